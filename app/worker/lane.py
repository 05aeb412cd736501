"""What every lane of the worker has: its own consumer of wake-ups, and a rescan of the rows when no wake-up comes.

A lane serves the backends that compete for one resource. Wake-ups carry attempt ids and promise nothing; the rows are
the truth.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Collection

from app.errors import DeviceLost, RestoreError
from app.jobs.prepared import Prepared
from app.jobs.runner import Runner
from app.memory_limit import budget_bytes
from app.metrics import Metrics
from app.queue import Queue
from app.stages import Stage
from app.store import Attempt, Store
from app.threads import SupervisedThread
from app.worker.active_runs import ActiveRuns, Run

log = logging.getLogger(__name__)

_RESCANNED_AT_ONCE = 20
REFUSED_PAUSE_SECONDS = 1.0  # after the store refused a claim (a full disk, say)
EXHAUSTED_PAUSE_SECONDS = 1.0  # after a run for which this process lacked descriptors, say; then twice as long
LONGEST_PAUSE_SECONDS = 60.0
NICENESS = 10  # added for the working threads, so that a busy machine still answers requests and claims at once


@dataclasses.dataclass
class WorkerContext:
    """What the lanes of one worker share. `clock` is monotonic seconds, `wall` epoch seconds."""

    runner: Runner
    store: Store
    metrics: Metrics
    active_runs: ActiveRuns
    queue: Queue
    clock: Callable[[], float]
    wall: Callable[[], float]
    rescan_seconds: float  # how long no wake-up may come before the rows are read
    memory_bytes: int = dataclasses.field(default_factory=budget_bytes)  # what this process may use
    draining: bool = False
    stop_requested: bool = False
    on_device_lost: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True)
class LaneFilter:
    """Which backends a lane serves: `only` one, or all `but` some."""

    only: str | None = None
    but: Collection[str] = ()

    def __call__(self, backend: str) -> bool:
        """Whether attempts of this backend belong to the lane."""
        return backend not in self.but and self.only in (None, backend)


class Lane:
    """One lane; a child class says which threads it has and what they do."""

    def __init__(self, name: str, context: WorkerContext, lane_filter: LaneFilter) -> None:
        self.name = name
        self.threads: list[SupervisedThread] = []
        self._context, self._filter = context, lane_filter
        self._consumer = context.queue.open_consumer(lane_filter)
        self._chosen: set[str] = set()
        self._others_wait = False  # of another owner than the one that was chosen
        self._choosing = threading.Lock()
        self._cannot_read, self._telling = False, threading.Lock()

    def end(self) -> None:
        """Wake every thread that waits for a wake-up, so that it ends."""
        self._consumer.wake(len(self.threads))

    def _listen(self, take: Callable[[Attempt], None], stop: threading.Event, *, alone: bool = False) -> None:
        """At each wake-up, or when none comes, take the attempt whose turn it is, until the worker drains.

        `alone`: no other thread of the lane does so; one look then answers all wake-ups that are there, and after an
        attempt it looks again if it can take another one, of another owner perhaps.
        """
        if alone:  # what a thread before this one had received died with it
            self._consumer.wake(1)
        pause = ExhaustionPause(lambda: self._context.runner.exhausted_runs)
        while not self._context.draining:
            woken = self._consumer.receive(self._context.rescan_seconds)
            if woken is None and not self._context.draining:
                self._rescan()
            while alone and self._consumer.receive(0) is not None:
                pass
            if seconds := pause.next_seconds():
                stop.wait(seconds)
            attempt = None if self._context.draining else self._choose()
            if attempt is None:
                continue
            try:
                take(attempt)
            except RestoreError as error:  # the row still waits, and a rescan finds it
                log.warning("an attempt could not be claimed: %s", error.detail)
                stop.wait(REFUSED_PAUSE_SECONDS)
            finally:
                self._chosen.discard(attempt.id)
                if alone and (self._others_wait or not self._owners_left_out()):
                    self._consumer.put(attempt.id)

    def _choose(self) -> Attempt | None:
        """Whose turn it is, whichever wake-up came: no other thread of this lane has it."""
        with self._choosing:
            left_out = self._owners_left_out()
            if left_out is None:
                return None
            try:
                attempt = self._next_but(left_out)
            except RestoreError as error:
                self._reading_failed(error)
                return None
            self._cannot_read = False
            if attempt is not None:
                self._chosen.add(attempt.id)
            return attempt

    def _next_but(self, left_out: Collection[str]) -> Attempt | None:
        """The next one whose owner is not left out: the first of each owner come before anybody's second."""
        store, lane = self._context.store, self._filter
        waiting = store.waiting(2 + len(self._chosen), only=lane.only, but=lane.but, owners_but=left_out)
        self._others_wait = len({attempt.owner for attempt in waiting}) > 1
        return next((attempt for attempt in waiting if attempt.id not in self._chosen), None)

    def _owners_left_out(self) -> Collection[str] | None:
        """Owners whose photos cannot be taken now; None: nobody's can. A lane that says so wakes itself later."""
        return ()

    def _rescan(self) -> None:
        """No wake-up came: settle what the store refused, and wake for waiting rows whose wake-ups were lost."""
        try:
            self._context.runner.settle()
            lane = self._filter
            waiting = self._context.store.queued_ids(_RESCANNED_AT_ONCE, only=lane.only, but=lane.but)
        except RestoreError as error:
            self._reading_failed(error)
            return
        for attempt_id in waiting[1:]:  # for the first this thread is awake
            self._context.queue.publish(attempt_id, lane.only)

    def _reading_failed(self, error: RestoreError) -> None:
        """Say so once, not at each wake-up of each thread until the store is back."""
        with self._telling:
            told, self._cannot_read = self._cannot_read, True
        if not told:
            log.warning("the waiting attempts could not be read: %s", error.detail)

    def _prepare(self, attempt: Attempt, token: str) -> Prepared | None:
        """Claim and decode it; when another process took it first, the next one that waits and need not be alone."""
        now = self._context.wall()
        claimed = self._claim(attempt, token, now)
        return None if claimed is None else self._context.runner.decode(claimed, token, now)

    def _claim(self, attempt: Attempt, token: str, now: float) -> Attempt | None:
        store, lane = self._context.store, self._filter
        stage = self._first_stage()
        if attempt.tries > 0:
            return store.claim(attempt.id, token, now, tries=attempt.tries, stage=stage)
        claimed = store.claim_next(token, now, first=attempt.id, only=lane.only, but=lane.but, stage=stage)
        if claimed is None or claimed.id == attempt.id or self._take_over(token, claimed):
            return claimed
        self._context.runner.give_back(claimed.id, token)
        self._consumer.put(claimed.id)  # whose turn it is is looked up again, and judged before it is claimed
        return None

    def _take_over(self, token: str, claimed: Attempt) -> bool:
        """Whether the run may hold this attempt, which was not the one it was admitted for."""
        return self._context.active_runs.take_over(
            token, claimed.id, lambda _runs: True, alone=False, owner=claimed.owner
        )

    def _first_stage(self) -> Stage:
        """What the owner of an attempt sees when it was claimed."""
        return Stage.DECODING

    def _thread(
        self, name: str, loop: Callable[[threading.Event], None], runs_of_dead: Callable[[], Collection[Run]]
    ) -> SupervisedThread:
        """A supervised thread; when it dies, the runs it had in hand are settled."""
        died = functools.partial(self._died, name, runs_of_dead)
        return SupervisedThread(name, loop, on_death=died, clock=self._context.clock)

    def _died(self, name: str, runs_of_dead: Callable[[], Collection[Run]], error: BaseException) -> None:
        """Settle what the dying thread had in hand: its row must not stay in the middle."""
        self._context.metrics.thread_restarted(name)
        for run in runs_of_dead():
            self._context.runner.abandon(run.attempt_id, run.token)
            self._context.active_runs.leave(run.token)
            self._context.queue.publish(run.attempt_id)
        if isinstance(error, DeviceLost):
            self._context.on_device_lost()


class ExhaustionPause:
    """How long one thread of a lane waits while this process lacks descriptors or memory: whatever it takes would fail.

    `exhausted_runs` says how many runs have failed so.
    """

    def __init__(self, exhausted_runs: Callable[[], int]) -> None:
        self._exhausted_runs, self._seen, self._seconds = exhausted_runs, exhausted_runs(), 0.0

    def next_seconds(self) -> float:
        """How long to wait before the next attempt: twice as long while runs fail so, 0 once none has."""
        seen, self._seen = self._seen, self._exhausted_runs()
        grown = min(LONGEST_PAUSE_SECONDS, max(EXHAUSTED_PAUSE_SECONDS, 2 * self._seconds))
        self._seconds = grown if self._seen != seen else 0.0
        return self._seconds


def lower_priority() -> None:
    """Let request threads go first (Linux knows a priority a thread; pools made by this thread inherit it)."""
    if sys.platform == "linux":
        ours = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, ours + NICENESS))
