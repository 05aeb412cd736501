"""Holds a message of the broker for as long as this process has, or may get, its attempt.

Holding is what spreads work: a worker has as many messages as its lanes have places, and the rest stays in the broker
for others. Which attempt a lane takes is the rows' matter, not the message's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.errors import RestoreError
from app.store import AttemptStatus, Store
from app.worker.active_runs import ActiveRuns, Step

LOOK_SECONDS = 1.0  # how often the row is read while nothing moves here


class MessageHolder:
    """One for a process; `hold` is called by as many threads as there are messages.

    Args:
        store: whose rows say what became of an attempt.
        active_runs: what is in work here.
        notify: wakes the lanes of this process.
    """

    def __init__(self, store: Store, active_runs: ActiveRuns, notify: Callable[[str], None]) -> None:
        self._store, self._active_runs, self._notify = store, active_runs, notify
        self._released = threading.Event()

    def hold(self, attempt_id: str) -> bool:
        """Wake the lanes, and return once the attempt has ended or is another process's.

        False: the holder was released while the attempt still waits, so the message belongs back into the broker.
        """
        self._notify(attempt_id)
        while True:
            released, seen = self._released.is_set(), self._active_runs.rooms_made()
            if not released and self._active_runs.holds(attempt_id):  # its row says nothing new before its run ends
                self._active_runs.wait_for_room(seen, LOOK_SECONDS)
                continue
            still_waits = self._still_waits(attempt_id)
            if still_waits is None:
                return True
            if released:
                return not still_waits
            if still_waits and not self._active_runs.at(Step.PREPARING, Step.READY):
                self._notify(attempt_id)  # the wake-up before was spent on another one's turn
            self._active_runs.wait_for_room(seen, LOOK_SECONDS)

    def release(self) -> None:
        """Let go of every message: the process ends, and its attempts have ended or were given back."""
        self._released.set()
        self._active_runs.close()

    def _still_waits(self, attempt_id: str) -> bool | None:
        """Whether its row waits; None when it is nothing of this process any more."""
        try:
            attempt = self._store.attempt(attempt_id)
        except RestoreError:  # the database is away; whoever comes back to it asks again
            return True
        if attempt is None or attempt.status.ended:
            return None
        if attempt.status is AttemptStatus.QUEUED:
            return True
        return False if attempt.claim in self._active_runs.tokens() else None
