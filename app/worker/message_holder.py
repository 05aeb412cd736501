"""Holds a message of the broker for as long as this process has, or may get, its attempt.

Holding is what spreads work: a worker has as many messages as its lanes have places, and the rest stays in the broker
for others. Which attempt a lane takes is the rows' matter, not the message's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from app.errors import RestoreError
from app.store import Store
from app.worker.active_runs import ActiveRuns, Step

LOOK_SECONDS = 1.0  # how often the rows are read while nothing moves here
REST_SECONDS = 0.2  # between two looks while something is in work here


class MessageHolder:
    """One for a process; `hold` is called by as many threads as there are messages.

    The rows of all held attempts are read in one look, which serves every thread that wants to know.

    Args:
        store: whose rows say what became of an attempt.
        active_runs: what is in work here.
        notify: wakes the lanes of this process that serve a backend.
    """

    def __init__(
        self,
        store: Store,
        active_runs: ActiveRuns,
        notify: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._active_runs, self._notify, self._clock = store, active_runs, notify, clock
        self._released = threading.Event()
        self._held: list[str] = []
        self._looking, self._looks_begun, self._looked_at = threading.Lock(), 0, -float("inf")
        self._waiting: Mapping[str, str] = {}  # of those held, at the last look, with their backends

    def hold(self, attempt_id: str) -> bool:
        """Wake the lanes, and return once the attempt has ended or is another process's.

        False: the holder was released while the attempt still waits, so the message belongs back into the broker.
        """
        self._held.append(attempt_id)
        try:
            return self._hold(attempt_id)
        finally:
            self._held.remove(attempt_id)

    def release(self) -> None:
        """Let go of every message: the process ends, and its attempts have ended or were given back."""
        self._released.set()
        self._active_runs.close()

    def _hold(self, attempt_id: str) -> bool:
        is_new = True
        while True:
            released, seen = self._released.is_set(), self._active_runs.rooms_made()
            if released or not self._active_runs.holds(attempt_id):  # else its row says nothing new before its run ends
                backend = self._waits_for(attempt_id)
                if released:
                    return backend is None
                if backend is None and not self._active_runs.holds(attempt_id):
                    return True
                if is_new and backend is not None:
                    self._notify(attempt_id, backend)
                is_new = False
            self._active_runs.wait_for_room(seen, LOOK_SECONDS)

    def _waits_for(self, attempt_id: str) -> str | None:
        """The backend that its row waits for, by a look that began after this was asked, or by one recent enough."""
        asked = self._looks_begun
        with self._looking:
            if self._looks_begun == asked and not self._may_rest(attempt_id):
                self._looks_begun += 1
                self._looked_at = self._clock()
                self._look(set(self._held))
            return self._waiting.get(attempt_id)

    def _may_rest(self, attempt_id: str) -> bool:
        """While something is in work here no other process's photo is waited for, so that there is no haste."""
        is_recent = self._clock() - self._looked_at < REST_SECONDS and attempt_id in self._waiting
        return is_recent and not self._released.is_set() and not self._active_runs.is_empty()

    def _look(self, held: set[str]) -> None:
        """Read the rows; what waited at the last look too has lost its wake-up to another one's turn."""
        before = self._waiting
        try:
            self._waiting = self._store.waiting_among(held)
        except RestoreError:  # the database is away; whoever comes back to it asks again
            self._waiting = {attempt_id: before.get(attempt_id, "") for attempt_id in held}
            return
        if not self._active_runs.at(Step.PREPARING, Step.READY):
            for attempt_id in self._waiting.keys() & before.keys():
                self._notify(attempt_id, self._waiting[attempt_id])
