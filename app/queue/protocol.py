"""The queue border: attempt ids that wake workers. The SQL row is the truth, and a queue only says where to look.

A wake-up may come twice, late, or be lost: consumers claim the row before they work, and read the waiting rows when the
queue is silent. The contract suite is `tests/test_queue_contract.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


def serves_all(_backend: str) -> bool:
    """What a consumer serves unless it says otherwise."""
    return True


class Consumer(Protocol):
    """One receiving end. Several threads may receive from it at once; each wake-up goes to one of them."""

    def receive(self, timeout_seconds: float) -> str | None:
        """The next attempt id; None when none came in time, or when `wake` ended the wait."""
        ...

    def put(self, attempt_id: str) -> None:
        """Add a wake-up for this consumer alone. Never blocks."""
        ...

    def wake(self, waiters: int) -> None:
        """End the waits of that many `receive` calls, now or when they come, without an id: for a stop."""
        ...


class Queue(Protocol):
    """Wake-ups from those who accept attempts to those who run them. Usable from any thread."""

    def publish(self, attempt_id: str, backend: str | None = None) -> None:
        """Say, after the commit of its row, that an attempt waits. Never blocks and never raises.

        Every consumer that is open gets the wake-up, but one that is known not to serve the attempt's `backend`.
        """
        ...

    def open_consumer(self, serves: Callable[[str], bool] = serves_all) -> Consumer:
        """A receiving end for what is published from now on; `serves` says for which backends."""
        ...
