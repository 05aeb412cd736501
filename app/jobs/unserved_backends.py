"""Ends the waiting for backends that nobody serves any more, such as a provider whose key was taken from all workers.

Their attempts would hold places in the queue, and their owners' shares of it, for ever. Time is passed in.
"""

from __future__ import annotations

import logging

from app.jobs.worker_pool import members_of
from app.options import BackendName
from app.store import Store

log = logging.getLogger(__name__)

UNSERVED_SECONDS = 900.0  # longer than a deployment, a reboot or the start of a machine takes
LONGEST_GAP_SECONDS = 60.0  # of the time between two looks no more counts: what happened in between was not seen


class UnservedBackends:
    """Looks, by call, which backends no live worker serves, and fails what waits for those it has seen so for long.

    While no worker lives at all, nothing is known of what the next ones will serve, and their absence begins anew.

    Args:
        store: whose rows and workers.
        after_seconds: for how long no live worker must have served a backend.
    """

    def __init__(self, store: Store, after_seconds: float = UNSERVED_SECONDS) -> None:
        self._store, self._after_seconds = store, after_seconds
        self._seconds: dict[str, float] = {}  # that a backend was seen unserved
        self._looked_at: float | None = None

    def sweep(self, monotonic: float, now: float) -> tuple[str, ...]:
        """Look at the monotonic time `monotonic` (epoch: `now`); ids of the attempts that were failed.

        Raises `Unavailable` when the store cannot be asked.
        """
        gap = 0.0 if self._looked_at is None else min(LONGEST_GAP_SECONDS, monotonic - self._looked_at)
        self._seconds = {name: self._seconds.get(name, -gap) + gap for name in self._unserved()}
        self._looked_at = monotonic
        due = [name for name, seconds in self._seconds.items() if seconds >= self._after_seconds]
        if not due:
            return ()
        failed = self._store.workers.fail_unserved(due, now)
        if failed:
            log.warning("%d waiting attempts failed: no worker serves %s any more", len(failed), " or ".join(due))
        return failed

    def _unserved(self) -> list[str]:
        members = members_of(self._store.workers.live())
        if not members or not all(one.report.backends for one in members):  # a report that does not say
            return []
        served = {name for one in members for name in one.report.backends}
        return [backend.value for backend in BackendName if backend.value not in served]
