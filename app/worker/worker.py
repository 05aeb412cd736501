"""The `Worker`: a lane for this machine's networks, one for each backend that only waits, and a watchdog over all.

It starts, drains, stops and watches; what the lanes' threads do stands in `local_lane` and `remote_lane`.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping

from app.health_reasons import HealthReason
from app.jobs.queue_depth import follow_rows
from app.jobs.runner import Runner
from app.metrics import Metrics
from app.notices import Sentence, say
from app.options import BackendName
from app.queue import Queue
from app.store import Store
from app.threads import SupervisedThread, ThreadState
from app.worker.active_runs import ActiveRuns, Step
from app.worker.lane import Lane, LaneFilter, WorkerContext
from app.worker.local_lane import LOCAL_ATTEMPTS, LocalLane
from app.worker.remote_lane import RemoteLane

log = logging.getLogger(__name__)

RESCAN_SECONDS = 5.0  # how long no wake-up may come before the rows are read
SETTLE_SECONDS = 0.5  # between two tries to write the ends of runs before the process ends
STOP_GRACE_SECONDS = 10.0  # for a tile that must end once its run is asked to stop


@dataclasses.dataclass(frozen=True)
class WorkerHealth:
    """How the worker is.

    Attributes:
        status: `stopped`, `idle`, `busy`, `draining` or `failing` (threads keep dying, or a run hangs).
        reasons: plain sentences, empty when all is well.
        restarts: threads that died and were started again.
        current_attempt: the attempt that is being restored, or None.
        silence_seconds: time since the last sign of life of the work in hand, 0 when there is none.
    """

    status: str
    reasons: tuple[str, ...]
    restarts: int
    current_attempt: str | None
    silence_seconds: float


class Worker:
    """Drains the queue of waiting attempts, in lanes that do not wait for each other.

    The local lane holds at most five photos: two of different owners decoded, two of different owners restoring in
    turns, one being encoded. Each backend of `waiting` has a lane with as many threads, and so as many photos, as its
    number says; the local lane serves all other backends.

    An attempt whose last run crashed runs alone, with nothing of any lane beside it, so that a photo that kills the
    process never takes a neighbour with it: a second and a third crash are its own.

    Args:
        waiting: the backends with a lane of their own, and how many photos each of these holds.
        restores_here: whether there is a local lane.
        is_shared: other processes serve the same rows, so that the local lane takes this machine's backend alone.
        memory_bytes: what this process may use; None: what its limits say.

    `on_hang` is called, after the stacks were dumped, when a restoration or an encoding gave no sign of life for
    `hang_timeout_seconds`, and when a lane's thread died of `DeviceLost` or `end_without_card` was called, which
    `card_lost` then tells; the caller ends the process, since neither a thread can be ended nor a lost card be used
    again.
    """

    def __init__(
        self,
        runner: Runner,
        store: Store,
        metrics: Metrics,
        queue: Queue,
        *,
        waiting: Mapping[str, int] | None = None,
        restores_here: bool = True,
        is_shared: bool = False,
        hang_timeout_seconds: float = 300.0,
        on_hang: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rescan_seconds: float = RESCAN_SECONDS,
        stop_grace_seconds: float = STOP_GRACE_SECONDS,
        memory_bytes: int | None = None,
    ) -> None:
        self._runner, self._store, self._metrics = runner, store, metrics
        self._hang_timeout, self._on_hang = hang_timeout_seconds, on_hang
        self._clock, self._stop_grace = clock, stop_grace_seconds
        self.active_runs = ActiveRuns(clock)
        self._context = WorkerContext(runner, store, metrics, self.active_runs, queue, clock, wall, rescan_seconds)
        self._context.memory_bytes = self._context.memory_bytes if memory_bytes is None else memory_bytes
        self._context.on_device_lost = self.end_without_card
        self._hung = False
        self.hurried = threading.Event()  # a drain is cut short
        self.card_lost = False
        others = dict(waiting or {})
        self._lane_sizes = {**({BackendName.LOCAL.value: LOCAL_ATTEMPTS} if restores_here else {}), **others}
        self._lanes: list[Lane] = []
        if restores_here:
            lane_filter = LaneFilter(only=BackendName.LOCAL) if is_shared else LaneFilter(but=tuple(others))
            self._lanes.append(LocalLane(BackendName.LOCAL, self._context, lane_filter))
        self._lanes += [RemoteLane(name, self._context, LaneFilter(only=name), most) for name, most in others.items()]
        watchdog = SupervisedThread("worker-watchdog", self._watch_loop, on_death=self._watchdog_died, clock=clock)
        self._threads = [*(thread for lane in self._lanes for thread in lane.threads), watchdog]
        follow_rows(store, metrics)

    # What others call.

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def drain(self, deadline_seconds: float) -> bool:
        """Take nothing new, let the running photos end until the deadline, then stop it and give it back.

        What is given back burns no try. True when nothing had to be stopped. `stop` from another thread cuts it short.
        Ends of runs that the store could not take yet are written until the deadline: with the process they are lost.
        """
        give_up_at = self._clock() + deadline_seconds
        self._context.draining = True
        self.active_runs.close()
        ended = self.active_runs.wait_idle(deadline_seconds)
        self._end(join_seconds=1.0)
        while self._runner.settle() and self._clock() < give_up_at and not self.hurried.wait(SETTLE_SECONDS):
            log.warning("the ends of some runs are not written yet; trying again")
        return ended

    def stop(self) -> None:
        """Stop at once: what runs is asked to stop and given back. Harmless after `drain`, and during it."""
        self._context.draining = True
        self.hurried.set()
        self.active_runs.close()
        self.active_runs.force_stop()
        self._end(join_seconds=0.1)

    def held_tokens(self) -> set[str]:
        """The claims whose leases this process must renew: of what is in work, and of what could not be written yet."""
        return self.active_runs.tokens() | self._runner.unsettled_tokens()

    @property
    def lanes(self) -> dict[str, int]:
        """How many attempts each lane holds at most, by its name."""
        return dict(self._lane_sizes)

    def health(self, now: float | None = None) -> WorkerHealth:
        """How it is at the monotonic time `now` (the present when None)."""
        silence, _ = self.active_runs.silence(self._clock() if now is None else now)
        restoring = self.active_runs.at(Step.RESTORING, lane=BackendName.LOCAL) or self.active_runs.at(Step.RESTORING)
        status, reasons = self._status()
        return WorkerHealth(
            status,
            tuple(reasons),
            sum(thread.restarts for thread in self._threads),
            restoring[0].attempt_id if restoring else None,
            silence,
        )

    def watch(self, now: float) -> bool:
        """Look for a hung run at the monotonic time `now`: dump all stacks, then call `on_hang`. True if one hangs."""
        silence, attempt_id = self.active_runs.silence(now)
        if attempt_id is None or silence <= self._hang_timeout:
            return False
        if not self._hung:
            self._hung = True
            log.critical("attempt %s gave no sign of life for %.0f s", attempt_id, silence)
            faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
            if self._on_hang is not None:
                self._on_hang()
        return True

    # The watchdog's loop, ends and status.

    def _watch_loop(self, stop: threading.Event) -> None:
        while not stop.wait(min(5.0, self._hang_timeout / 4)):
            self.watch(self._clock())

    def end_without_card(self) -> None:
        """The card is lost: give back what waits decoded, let what is being encoded end, and end the process.

        The attempt that was on the card has been given back with a try burned, by the lane.
        """
        self.card_lost = True
        log.critical("the graphics card is lost for this process, which ends to be started again")
        self._context.draining = self._context.stop_requested = True
        self.active_runs.close()
        for run in self.active_runs.at(Step.PREPARING, Step.READY, lane=BackendName.LOCAL):
            self._runner.give_back(run.attempt_id, run.token)
            self.active_runs.leave(run.token)
        self.active_runs.wait_idle(self._stop_grace)
        for run in self.active_runs.drain_all():
            self._runner.give_back(run.attempt_id, run.token)
        if self._on_hang is not None:
            self._on_hang()

    def _watchdog_died(self, _error: BaseException) -> None:
        self._metrics.thread_restarted("worker-watchdog")

    def _end(self, join_seconds: float) -> None:
        """Ask what still runs to stop, give back what does not end by itself, and end the threads."""
        self._context.stop_requested = True
        self.active_runs.wait_idle(self._stop_grace)
        left = self.active_runs.drain_all()
        for run in left:
            self._runner.give_back(run.attempt_id, run.token)
        for lane in self._lanes:
            lane.end()
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            thread.join(0.0 if left else join_seconds)

    def _status(self) -> tuple[str, list[Sentence]]:
        states = {thread.name: thread.state for thread in self._threads}
        reasons = [
            say(HealthReason.THREAD_DIES, "The thread {thread} keeps dying; the log says why.", thread=name)
            for name, state in states.items()
            if state is ThreadState.FAILING
        ]
        if self._hung:
            words = "A restoration hangs; the process is about to be restarted."
            reasons.append(say(HealthReason.RESTORATION_HANGS, words))
        if reasons:
            return "failing", reasons
        if self._context.draining:
            return "draining", [say(HealthReason.SHUTTING_DOWN, "The service is stopping.")]
        if ThreadState.STOPPED in states.values():
            return "stopped", [say(HealthReason.WORKER_STOPPED, "The worker is not running.")]
        return ("idle" if self.active_runs.is_empty() else "busy"), []
