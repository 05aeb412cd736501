"""Wake-ups inside one process, in `queue.Queue`s: one for each consumer."""

from __future__ import annotations

import queue
from collections.abc import Callable

from app.queue.protocol import serves_all


class LocalConsumer:
    """One receiving end in this process; see `Consumer`."""

    def __init__(self) -> None:
        self._wake_ups: queue.Queue[str | None] = queue.Queue()

    def put(self, attempt_id: str | None) -> None:
        """Add a wake-up; None wakes one waiter without an id."""
        self._wake_ups.put(attempt_id)

    def receive(self, timeout_seconds: float) -> str | None:
        """See `Consumer`."""
        try:
            return self._wake_ups.get(timeout=timeout_seconds)
        except queue.Empty:
            return None

    def wake(self, waiters: int) -> None:
        """See `Consumer`."""
        for _ in range(waiters):
            self.put(None)


class LocalQueue:
    """Gives every wake-up to every consumer of this process; see `Queue`."""

    def __init__(self) -> None:
        # Replaced whole, so that publishing needs no lock.
        self._consumers: tuple[tuple[LocalConsumer, Callable[[str], bool]], ...] = ()

    def publish(self, attempt_id: str, backend: str | None = None) -> None:
        """See `Queue`."""
        for consumer, serves in self._consumers:
            if backend is None or serves(backend):
                consumer.put(attempt_id)

    def open_consumer(self, serves: Callable[[str], bool] = serves_all) -> LocalConsumer:
        """See `Queue`."""
        consumer = LocalConsumer()
        self._consumers = (*self._consumers, (consumer, serves))
        return consumer
