"""Looks twice a second for what other processes changed: jobs that somebody follows, and sign-ins that were ended.

Only where several processes share a database. Time is passed in.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection

from app.errors import RestoreError
from app.metrics import Metrics
from app.store import Store
from app.threads import SupervisedThread, ThreadState

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.5
SESSIONS_SECONDS = 1.0


class ChangeWatch:
    """Looks by call (`tick`) or in its own supervised thread (`start`).

    Args:
        store, metrics: where the sign-ins stand, and where a death of the thread is counted.
        look: looks at the followed jobs (`PollingEvents.tick`).
        forget_sessions: hears the ids of sign-ins that have ended; None: there are no sign-ins.
        clock, wall: monotonic and epoch seconds.
    """

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        *,
        look: Callable[[], None],
        forget_sessions: Callable[[Collection[str]], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._metrics, self._look, self._forget = store, metrics, look, forget_sessions
        self._clock, self._wall = clock, wall
        self._known: set[str] = set()
        self._next_sessions = -float("inf")
        self._thread = SupervisedThread("change-watch", self._loop, on_death=self._died, clock=clock)

    def tick(self, monotonic: float, now: float) -> None:
        """Look once; `monotonic` and `now` are monotonic and epoch seconds. Raises `Unavailable` without a store."""
        self._look()
        if self._forget is not None and monotonic >= self._next_sessions:
            ended = self._store.ended_sessions(now)
            if ended - self._known:
                self._forget(ended - self._known)
            self._known = ended
            self._next_sessions = monotonic + SESSIONS_SECONDS

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End the thread and wait for it."""
        self._thread.stop()
        self._thread.join(timeout_seconds)

    @property
    def state(self) -> ThreadState:
        """Whether the thread runs, or keeps dying."""
        return self._thread.state

    def _loop(self, stop: threading.Event) -> None:
        is_reachable = True
        while not stop.is_set():
            try:
                self.tick(self._clock(), self._wall())
                is_reachable = True
            except RestoreError as error:
                if is_reachable:  # said once an outage, not twice a second
                    log.warning("changes of other processes cannot be seen: %s", error.detail)
                is_reachable = False
            stop.wait(WATCH_SECONDS)

    def _died(self, _error: BaseException) -> None:
        self._metrics.thread_restarted("change-watch")
