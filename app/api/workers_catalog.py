"""The catalog of a server that restores nothing itself: it knows what the live workers report.

While no worker lives, jobs are still taken, since the rows wait for one; readiness says that none is there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from app.api.catalog import KEPT_SECONDS, LOCAL_BACKEND, Catalog
from app.errors import RestoreError, Unavailable
from app.health_reasons import HealthReason
from app.jobs.worker_pool import (
    PoolMember,
    backends_of,
    describe_pool,
    members_of,
    provider_pause_seconds,
    reasons_of,
    smallest_memory_bytes,
)
from app.notices import say
from app.options import BackendName, RestoreOptions
from app.store import Workers
from app.worker import WorkerHealth

POOL_KEPT_SECONDS = 2.0
WARM_UP_SECONDS = 60.0  # a worker hears of it with its next report, loads and runs
LOOK_FOR_WARM_UP_SECONDS = 0.5
NO_WORKER = say(
    HealthReason.NO_WORKER,
    "No worker is running, so photos wait until whoever runs the service starts one: {command}",
    command="python3 run.py worker",
)
_NO_LOCAL_WORKER = "no worker with networks is running; start one: python3 run.py worker"
_RETRY_SECONDS = 10


class WorkersCatalog(Catalog):
    """See `Catalog`. It needs no loading of its own.

    Args:
        workers: those that report.
        clock: monotonic seconds.
        pause: waits between two looks for the end of a warm-up.
    """

    def __init__(
        self,
        workers: Workers,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        super().__init__(dict, lambda: None, clock)
        self._workers, self._pause = workers, pause
        self._look = threading.Lock()
        self._members: tuple[PoolMember, ...] = ()
        self._pool_at = float("-inf")
        self._described: dict[str, Any] = {}

    @property
    def loading(self) -> bool:
        """Whether all live workers with networks still load theirs."""
        local = [one for one in self.members() if one.restores_here]
        return bool(local) and all(one.report.status == "starting" for one in local)

    @property
    def failure(self) -> str | None:
        """One plain sentence while no worker lives."""
        return None if self.members() else NO_WORKER

    def members(self, max_age_seconds: float = POOL_KEPT_SECONDS) -> tuple[PoolMember, ...]:
        """The live workers; those that were known last while the store cannot be asked, which health says by itself."""
        with self._look:
            if self._clock() - self._pool_at >= max_age_seconds:
                try:
                    self._members = members_of(self._workers.live())
                except RestoreError:
                    return self._members
                self._pool_at = self._clock()
                self._described = describe_pool(self._members) or self._described
            return self._members

    def description(self, max_age_seconds: float = KEPT_SECONDS) -> dict[str, Any]:
        """What the live workers have together; what the last ones had while none lives."""
        self.members(min(max_age_seconds, POOL_KEPT_SECONDS))
        return self._described

    def backends(self) -> list[dict[str, Any]]:
        """See `Catalog`; while nothing is known that of this machine's networks, which some worker will have."""
        members = self.members()
        rows = backends_of(members) or [dict(LOCAL_BACKEND)]
        if members and not any(one.restores_here for one in members):
            for row in rows:
                if row["name"] == BackendName.LOCAL:
                    row.update(available=False, reason=_NO_LOCAL_WORKER)
        return rows

    def can_restore(self) -> bool:
        """See `Catalog`; workers that only wait for a provider need no model."""
        members = self.members()
        return super().can_restore() or (bool(members) and not any(one.restores_here for one in members))

    def workers(self) -> list[dict[str, Any]]:
        """See `Catalog`."""
        return [one.row() for one in self.members()]

    def memory_bytes(self) -> int | None:
        """See `Catalog`: of the smallest live worker with networks, since any of them may be given the photo."""
        return smallest_memory_bytes(self.members())

    def provider_pause_seconds(self) -> float | None:
        """See `Catalog`: None while any worker may ask the provider."""
        return provider_pause_seconds(self.members())

    def check(self, options: RestoreOptions) -> str:
        """See `Catalog`. Without a live worker a job is taken and checked as it runs."""
        return super().check(options) if self.members() else options.backend

    def health(self) -> WorkerHealth:
        """The workers as one: `failing` when each of them is, `busy` when one is; reasons bear the worker's name."""
        members = self.members()
        states = [one.report.status for one in members]
        reasons = reasons_of(members)
        if states and all(state in ("failing", "stopped") for state in states):
            return WorkerHealth(
                "failing", reasons or (say(HealthReason.ALL_WORKERS_FAILED, "Every worker has failed."),), 0, None, 0.0
            )
        return WorkerHealth("busy" if "busy" in states else "idle", reasons, 0, None, 0.0)

    def warm_up(self) -> str | None:
        """Have every live worker run its default model once; the model's name, None with nothing installed anywhere.

        Raises:
            Unavailable: `no_worker`; `backend_failed` with the reason when it failed at each; `warm_up_pending`.
        """
        if not any(one.restores_here for one in self.members(0.0)):
            raise Unavailable("no_worker", NO_WORKER, retry_after_seconds=_RETRY_SECONDS)
        asked_at = self._workers.ask_warm_up()
        give_up_at = self._clock() + WARM_UP_SECONDS
        while self._clock() < give_up_at:
            asked = [
                one
                for one in self.members(0.0)
                if one.restores_here and (one.worker.warm_up_asked_at or 0.0) >= asked_at
            ]
            ended = [one for one in asked if one.report.warm_up and one.report.warm_up.asked_at >= asked_at]
            if len(ended) == len(asked):
                return _outcome(ended)
            self._pause(LOOK_FOR_WARM_UP_SECONDS)
        raise Unavailable(
            "warm_up_pending",
            "Not every worker has run its default model yet; they go on, so ask again in a moment.",
            retry_after_seconds=_RETRY_SECONDS,
        )


def _outcome(ended: list[PoolMember]) -> str | None:
    """The model of a warm-up that went well somewhere."""
    if not ended:
        raise Unavailable("no_worker", NO_WORKER, retry_after_seconds=_RETRY_SECONDS)
    outcomes = [one.report.warm_up for one in ended if one.report.warm_up is not None]
    if all(outcome.error for outcome in outcomes):
        raise Unavailable("backend_failed", str(outcomes[0].error))
    return next((outcome.model for outcome in outcomes if outcome.model is not None), None)
