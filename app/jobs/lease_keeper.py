"""Keeps this process's claims alive, and finds those of processes that are gone: one thread, renewing before sweeping.

So it does with the submissions that this process is taking under an Idempotency-Key, and with waiting attempts that
no process would ever take.

A lease says nothing while the database was away, since nobody could renew one; so the sweeps begin only when it has
been reachable for long enough that every living process has renewed its own. Time is passed in.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import time
from collections.abc import Callable, Collection

from app.errors import RestoreError
from app.jobs.keys_in_work import KeysInWork
from app.jobs.unserved_backends import UNSERVED_SECONDS, UnservedBackends
from app.metrics import Metrics
from app.queue import Queue
from app.store import LEASE_SECONDS, Store
from app.threads import PeriodicThread

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LeaseTimes:
    """How long a claim lasts without a renewal, and how often claims are renewed and lost ones looked for.

    `calm_seconds` is how long the database must have been reachable before a sweep believes that a lease ran out, and
    `unserved_seconds` how long no live worker may serve a backend before what waits for it is failed.
    """

    lease_seconds: float = LEASE_SECONDS
    renew_seconds: float = 15.0
    sweep_seconds: float = 20.0
    calm_seconds: float = 30.0
    unserved_seconds: float = UNSERVED_SECONDS


class LeaseKeeper(PeriodicThread):
    """Renews and sweeps by call (`tick`) or in its own supervised thread (`start`).

    Attributes:
        keys_in_work: what takes submissions in this process holds their keys here.

    Args:
        store, queue, metrics: whose rows, whom to notify of an attempt that waits again, and where to count.
        times: see `LeaseTimes`.
        held: gives the tokens of the runs of this process.
        settle: writes what the store could not take before.
        clock, wall: monotonic and epoch seconds.
        jitter: spreads the sweeps of many processes; gives a factor around 1.
    """

    def __init__(
        self,
        store: Store,
        queue: Queue,
        metrics: Metrics,
        times: LeaseTimes,
        *,
        held: Callable[[], Collection[str]],
        settle: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[], float] = lambda: random.uniform(0.75, 1.25),
    ) -> None:
        self._store, self._queue, self._metrics, self._times = store, queue, metrics, times
        self._held, self._settle = held, settle
        self._clock, self._wall, self._jitter = clock, wall, jitter
        self.keys_in_work = KeysInWork()
        self._unserved = UnservedBackends(store, times.unserved_seconds)
        self._reachable_since: float | None = None
        self._renewed: set[str] = set()
        self._next_sweep = -float("inf")
        super().__init__(
            "lease-keeper",
            lambda: self.tick(self._clock(), self._wall()),
            times.renew_seconds,
            trouble="the leases could not be renewed",
            on_restart=metrics.thread_restarted,
            clock=clock,
        )

    def tick(self, monotonic: float, now: float) -> None:
        """Renew, and sweep when it is time to. `monotonic` and `now` are monotonic and epoch seconds.

        Raises `Unavailable` when the store cannot be asked.
        """
        try:
            self._renew()
            if self._reachable_since is None:
                self._reachable_since = monotonic
            self._settle()
            is_calm = monotonic - self._reachable_since >= self._times.calm_seconds
            if is_calm and monotonic >= self._next_sweep:
                self._next_sweep = monotonic + self._times.sweep_seconds * self._jitter()
                self._sweep(monotonic, now)
        except RestoreError:
            self._reachable_since = None
            raise

    def _renew(self) -> None:
        """What was renewed before and is not now has lost its claim; its run sees that at its next word of progress."""
        held = set(self._held())
        renewed = self._store.renew_leases(held)
        for token in sorted(self._renewed & held - renewed):
            log.info("the run %s lost its claim; it was cancelled, or silent for too long", token)
        self._renewed = renewed
        self._store.idempotency.renew(self.keys_in_work.held())

    def _sweep(self, monotonic: float, now: float) -> None:
        found = self._store.sweep_leases(now)
        for attempt_id in found.lapsed:
            log.warning("the lease on attempt %s ran out: its process died, was frozen or cut off", attempt_id)
            self._metrics.attempt_ended("lapsed")
        for attempt_id in found.to_notify:
            self._queue.publish(attempt_id)
        for _ in self._unserved.sweep(monotonic, now):
            self._metrics.attempt_ended("failed")
