"""The events border: the store publishes ids of jobs that changed, and listeners read the rows themselves.

An event is a hint and never the truth: it may come twice, late, or be lost, so a listener that must not miss a change
also looks at the row now and then. The contract suite is `tests/test_events_contract.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

OnChange = Callable[[str], None]  # the id of a job that changed, its place in the queue included
Unsubscribe = Callable[[], None]


class Events(Protocol):
    """Changes of jobs, told to whoever listens. Usable from any thread."""

    def publish(self, job_ids: Iterable[str]) -> None:
        """Tell every listener, after the commit of the change. A listener's exception is logged, never raised here."""
        ...

    def subscribe(self, callback: OnChange) -> Unsubscribe:
        """Hear of every change from now on; returns the function that ends the subscription (harmless twice).

        The callback runs in any thread, at once with others, and must be quick.
        """
        ...

    def follow(self, job_id: str) -> Unsubscribe:
        """Somebody waits for changes of this job, so those that other processes make are looked for as well.

        The first look tells of the job in any case: what changed before it cannot be known. Returns the function that
        ends it (harmless twice); a job may be followed several times.
        """
        ...

    def has_listeners(self) -> bool:
        """Whether anybody would hear a change now; where False, a publisher need not work out what changed."""
        ...
