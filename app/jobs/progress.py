"""The progress of one run on its way to the row: at most two writes a second, and every change of stage.

It also carries the way back: whether the run was asked to stop or has lost its claim.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from app.errors import RestoreError
from app.stages import Stage
from app.store import Store

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.5
CLAIM_INTERVAL_SECONDS = 0.25  # the row is not asked oftener whether the claim still stands; strips come faster
_NOT_RESTORING = (Stage.WAITING, Stage.DECODING, Stage.LOADING, Stage.ENCODING)


class Progress:
    """What a backend calls with (fraction, stage); False tells it to stop, `stop_seen` and `claim_lost` say why.

    `sent`: a provider was asked, so the result costs money. `heartbeat` is called with every word, and may be called
    for any other sign of life.
    """

    def __init__(
        self,
        store: Store,
        attempt_id: str,
        token: str,
        clock: Callable[[], float],
        heartbeat: Callable[[], None],
        stop_requested: Callable[[], bool],
    ) -> None:
        self._store, self._attempt_id, self._token = store, attempt_id, token
        self._clock, self.heartbeat, self._stop_requested = clock, heartbeat, stop_requested
        self._reported, self._written_at, self._held_at = (-1.0, ""), -float("inf"), -float("inf")
        self._began: float | None = None  # to restore
        self.stop_seen = False
        self.claim_lost = False
        self.sent = False

    def __call__(self, fraction: float, stage: Stage) -> bool:
        """Write it, if it is time to; False: the run has to stop."""
        self.heartbeat()
        if self._stop_requested():
            self.stop_seen = True
            return False
        if stage is Stage.SENDING:  # without this on record nothing may be sent, so a refusal of the store is raised
            self.claim_lost = not self._store.mark_sent(self._attempt_id, self._token)
            self.sent = not self.claim_lost
            return not self.claim_lost
        try:
            self.claim_lost = not self._report(fraction, stage)
        except RestoreError as error:  # the store will be asked again; a full disk does not stop a restoration
            log.warning("progress could not be written: %s", error.detail)
        return not self.claim_lost

    def may_begin(self, claimed_at: float) -> bool:
        """False: the run was asked to stop, or has lost its claim since it made it, some time ago (monotonic)."""
        self.heartbeat()
        self.stop_seen, self._held_at = self._stop_requested(), claimed_at
        if self.stop_seen:
            return False
        with contextlib.suppress(RestoreError):  # the backend's first word asks again
            self.claim_lost = not self._still_holds(self._clock())
        return not self.claim_lost

    def _report(self, fraction: float, stage: Stage) -> bool:
        now, news = self._clock(), (fraction, stage)
        if self._began is None and stage not in _NOT_RESTORING:
            self._began = now
        soon = stage == self._reported[1] and now - self._written_at < INTERVAL_SECONDS
        if soon or news == self._reported:  # a run that only waits says the same again and again
            return self._still_holds(now)
        self._reported, self._written_at, self._held_at = news, now, now
        worked_seconds = None if self._began is None else now - self._began
        return self._store.report_progress(self._attempt_id, self._token, fraction, stage, worked_seconds)

    def _still_holds(self, now: float) -> bool:
        if now - self._held_at < CLAIM_INTERVAL_SECONDS:
            return True
        self._held_at = now
        return self._store.holds(self._attempt_id, self._token)
