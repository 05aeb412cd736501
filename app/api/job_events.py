"""The bridge from the store's changes, which come in any thread, to those who wait for a job in the event loop.

A watcher is only woken, and reads the row itself: so a slow one skips states and never queues them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator

from app.events import Events, Unsubscribe


class JobEvents:
    """Wakes the watchers of a job. `changed` may be called from any thread; all else belongs to the event loop.

    Attributes:
        closing: True once the service stops; nobody should wait any longer.
    """

    def __init__(self) -> None:
        self.closing = False
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: Events | None = None
        self._unsubscribe: Unsubscribe = lambda: None

    def start(self, events: Events) -> None:
        """From inside the running loop. The store is listened to while somebody watches: telling costs it a query."""
        self._loop, self._events = asyncio.get_running_loop(), events

    def stop(self) -> None:
        """Stop listening and wake everybody once more."""
        self.closing = True
        self._stop_listening()
        self.wake_all()

    def wake_all(self) -> None:
        """Have every watcher look again, also at whether it may still watch."""
        for job_id in list(self._watchers):
            self._wake(job_id)

    def changed(self, job_id: str) -> None:
        """A job changed. Costs nothing when nobody watches it."""
        loop = self._loop
        if job_id in self._watchers and loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just closed
                loop.call_soon_threadsafe(self._wake, job_id)

    @contextlib.contextmanager
    def watch(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at each change; clear it, then read the row, then wait."""
        event, events = asyncio.Event(), self._events
        if not self._watchers and events is not None:
            self._unsubscribe = events.subscribe(self.changed)
        self._watchers[job_id].add(event)
        unfollow: Unsubscribe = events.follow(job_id) if events is not None else lambda: None
        try:
            yield event
        finally:
            unfollow()
            watchers = self._watchers[job_id]
            watchers.discard(event)
            if not watchers:
                del self._watchers[job_id]
            if not self._watchers:
                self._stop_listening()

    def _stop_listening(self) -> None:
        self._unsubscribe()
        self._unsubscribe = lambda: None

    def _wake(self, job_id: str) -> None:
        for event in self._watchers.get(job_id, ()):
            event.set()
