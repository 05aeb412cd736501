"""Looks twice a second for what other processes changed: jobs that somebody follows, and sign-ins that were ended.

Only where several processes share a database. Time is passed in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from app.metrics import Metrics
from app.store import Store
from app.threads import PeriodicThread

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.5
SESSIONS_SECONDS = 1.0


class ChangeWatch(PeriodicThread):
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
        super().__init__(
            "change-watch",
            lambda: self.tick(self._clock(), self._wall()),
            WATCH_SECONDS,
            trouble="changes of other processes cannot be seen",
            on_restart=metrics.thread_restarted,
            clock=clock,
        )

    def tick(self, monotonic: float, now: float) -> None:
        """Look once; `monotonic` and `now` are monotonic and epoch seconds. Raises `Unavailable` without a store."""
        self._look()
        if self._forget is not None and monotonic >= self._next_sessions:
            ended = self._store.accounts.ended_sessions(now)
            if ended - self._known:
                self._forget(ended - self._known)
            self._known = ended
            self._next_sessions = monotonic + SESSIONS_SECONDS
