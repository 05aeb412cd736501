"""The `Worker`: one thread restores, and two beside it decode the next photo and encode the last one.

The bell (`queue.Queue`) carries attempt ids and promises nothing; the rows are the truth, and are read again whenever
the bell is silent. It knows threads and their deaths; it knows nothing of pictures, SQL or HTTP.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import functools
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable

from app.errors import RestoreError
from app.metrics import Metrics
from app.runner import Finished, Prepared, Runner
from app.store import AttemptStatus, Store
from app.threads import SupervisedThread, ThreadState
from app.worker.in_work import InWork, Step

log = logging.getLogger(__name__)

RESCAN_SECONDS = 5.0  # how long the bell may be silent before the rows are asked
STOP_GRACE_SECONDS = 10.0  # for a tile that must end once its run is asked to stop
REFUSED_PAUSE_SECONDS = 1.0  # after the store refused a claim (a full disk, say)
NICENESS = 10  # added for the working threads, so that a busy machine still answers requests at once


@dataclasses.dataclass(frozen=True)
class WorkerHealth:
    """How the worker is.

    Attributes:
        word: `stopped`, `idle`, `busy`, `draining` or `failing` (threads keep dying, or a run hangs).
        reasons: plain sentences, empty when all is well.
        restarts: threads that died and were started again.
        current_attempt: the attempt that is being restored, or None.
        silence_seconds: time since the last sign of life of the work in hand, 0 when there is none.
    """

    word: str
    reasons: tuple[str, ...]
    restarts: int
    current_attempt: str | None
    silence_seconds: float


class Worker:
    """Drains the queue of waiting attempts. At most three photos are in memory: decoded, restoring, being encoded.

    An attempt whose last run crashed runs alone, so that a photo that kills the process never takes a neighbour
    with it: a second crash is its own.

    `on_hang` is called once, after the stacks were dumped, when a restoration or an encoding gave no sign of life for
    `hang_timeout_seconds`; the caller ends the process, since a thread cannot be ended.
    """

    def __init__(
        self,
        runner: Runner,
        store: Store,
        metrics: Metrics,
        *,
        hang_timeout_seconds: float = 300.0,
        on_hang: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rescan_seconds: float = RESCAN_SECONDS,
        stop_grace_seconds: float = STOP_GRACE_SECONDS,
    ) -> None:
        self._runner, self._store, self._metrics = runner, store, metrics
        self._hang_timeout, self._on_hang = hang_timeout_seconds, on_hang
        self._clock, self._wall = clock, wall
        self._rescan, self._stop_grace = rescan_seconds, stop_grace_seconds
        # One lane for all backends: another lane (for backends that only wait) would get its own bell and threads here.
        self._bell: queue.Queue[str | None] = queue.Queue()
        self._ready: queue.Queue[Prepared | None] = queue.Queue()
        self._done: queue.Queue[Finished | None] = queue.Queue()
        self._in_work = InWork(clock)
        self._draining = self._stop_asked = self._hung = False
        self._threads = [
            self._supervised("prepare", self._prepare_loop, Step.PREPARING),
            self._supervised("restore", self._restore_loop, Step.RESTORING, Step.RESTORED),
            self._supervised("finish", self._finish_loop, Step.FINISHING),
            self._supervised("watchdog", self._watch_loop),
        ]
        metrics.follow_queue(
            functools.partial(self._depth, AttemptStatus.QUEUED),
            functools.partial(self._depth, AttemptStatus.PROCESSING),
        )

    # What others call.

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def ring(self, attempt_id: str) -> None:
        """Say that an attempt waits. Ringing twice does no harm; a bell that gets lost costs seconds."""
        self._bell.put(attempt_id)

    def drain(self, deadline_seconds: float) -> bool:
        """Take nothing new, let the running photo end until the deadline, then stop it and give it back.

        What is given back burns no try. True when nothing had to be stopped. `stop` from another thread cuts it short.
        """
        self._draining = True
        self._in_work.close()
        ended = self._in_work.await_nobody(deadline_seconds)
        self._end(join_seconds=1.0)
        return ended

    def stop(self) -> None:
        """Stop at once: what runs is asked to stop and given back. Harmless after `drain`, and during it."""
        self._draining = True
        self._in_work.close()
        self._in_work.hurry()
        self._end(join_seconds=0.1)

    def health(self, now: float | None = None) -> WorkerHealth:
        """How it is at the monotonic time `now` (the present when None)."""
        silence, _ = self._in_work.silence(self._clock() if now is None else now)
        restoring = self._in_work.at(Step.RESTORING)
        word, reasons = self._word()
        return WorkerHealth(
            word,
            tuple(reasons),
            sum(thread.restarts for thread in self._threads),
            restoring[0].attempt_id if restoring else None,
            silence,
        )

    def watch(self, now: float) -> bool:
        """Look for a hung run at the monotonic time `now`: dump all stacks, then call `on_hang`. True if one hangs."""
        silence, attempt_id = self._in_work.silence(now)
        if attempt_id is None or silence <= self._hang_timeout:
            return False
        if not self._hung:
            self._hung = True
            log.critical("attempt %s gave no sign of life for %.0f s", attempt_id, silence)
            faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
            if self._on_hang is not None:
                self._on_hang()
        return True

    # The loops. Those that take from a queue end when they take None.

    def _prepare_loop(self, stop: threading.Event) -> None:
        _lower_priority()
        while not self._draining:
            try:
                attempt_id = self._bell.get(timeout=self._rescan)
            except queue.Empty:
                attempt_id = self._rescanned()
            try:
                if attempt_id is not None:
                    self._prepare_one(attempt_id)
            except RestoreError as error:  # the row still waits, and a rescan finds it
                log.warning("an attempt could not be claimed: %s", error.detail)
                stop.wait(REFUSED_PAUSE_SECONDS)

    def _rescanned(self) -> str | None:
        """The bell is silent: settle what the store refused, and find a waiting row whose bell was lost."""
        try:
            self._runner.settle()
            waiting = self._store.queued_ids(limit=1)
        except RestoreError as error:
            log.warning("the waiting attempts could not be read: %s", error.detail)
            return None
        return waiting[0] if waiting else None

    def _prepare_one(self, attempt_id: str) -> None:
        """Claim and decode one attempt as soon as there is room for it."""
        attempt = self._store.attempt(attempt_id)
        if attempt is None or attempt.status is not AttemptStatus.QUEUED:
            return
        crashed_before = attempt.tries > 0
        token = self._in_work.admit(attempt_id, alone=crashed_before)
        if token is None:
            return
        try:
            prepared = self._runner.prepare(attempt_id, token, self._wall())
        except RestoreError:
            self._in_work.leave(token)
            raise
        if prepared is None:
            self._in_work.leave(token)
            return
        self._in_work.move(token, Step.READY)
        self._ready.put(prepared)
        del prepared  # else this thread would keep the pixels while it waits
        if crashed_before:
            self._in_work.await_nobody()

    def _restore_loop(self, _stop: threading.Event) -> None:
        _lower_priority()
        while (prepared := self._ready.get()) is not None:
            finished = self._restore_one(prepared)
            del prepared  # its pixels are not needed while the last photo is encoded
            if finished is not None and self._in_work.await_finishing(finished.token):
                self._done.put(finished)
            del finished

    def _restore_one(self, prepared: Prepared) -> Finished | None:
        token = prepared.token
        self._in_work.move(token, Step.RESTORING)
        finished = None
        if self._draining:
            self._runner.give_back(prepared.attempt.id, token)
        else:
            beat = functools.partial(self._in_work.beat, token)
            finished = self._runner.restore(prepared, beat=beat, stop_asked=lambda: self._stop_asked)
        if finished is None:
            self._in_work.leave(token)
        else:
            self._in_work.move(token, Step.RESTORED)
        return finished

    def _finish_loop(self, _stop: threading.Event) -> None:
        _lower_priority()
        while (finished := self._done.get()) is not None:
            token = finished.token
            self._runner.finish(finished, beat=functools.partial(self._in_work.beat, token))
            del finished
            self._in_work.leave(token)

    def _watch_loop(self, stop: threading.Event) -> None:
        while not stop.wait(min(5.0, self._hang_timeout / 4)):
            self.watch(self._clock())

    # Ends, deaths and words.

    def _supervised(self, name: str, loop: Callable[[threading.Event], None], *steps: Step) -> SupervisedThread:
        died = functools.partial(self._died, f"worker-{name}", steps)
        return SupervisedThread(f"worker-{name}", loop, on_death=died, clock=self._clock)

    def _died(self, name: str, steps: tuple[Step, ...], _error: BaseException) -> None:
        """Settle what the dying thread had in hand: its row must not stay in the middle."""
        self._metrics.thread_restarted(name)
        for run in self._in_work.at(*steps):
            self._runner.abandon(run.attempt_id, run.token)
            self._in_work.leave(run.token)
            self.ring(run.attempt_id)

    def _end(self, join_seconds: float) -> None:
        """Ask what still runs to stop, give back what does not end by itself, and end the threads."""
        self._stop_asked = True
        self._in_work.await_nobody(self._stop_grace)
        left = self._in_work.take_all()
        for run in left:
            self._runner.give_back(run.attempt_id, run.token)
        for bell in (self._bell, self._ready, self._done):
            bell.put(None)
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            thread.join(0.0 if left else join_seconds)

    def _word(self) -> tuple[str, list[str]]:
        states = {thread.name: thread.state for thread in self._threads}
        reasons = [
            f"The thread {name} keeps dying; the log says why."
            for name, state in states.items()
            if state is ThreadState.FAILING
        ]
        if self._hung:
            reasons.append("A restoration hangs; the process is about to be restarted.")
        if reasons:
            return "failing", reasons
        if self._draining:
            return "draining", ["The service is stopping."]
        if ThreadState.STOPPED in states.values():
            return "stopped", ["The worker is not running."]
        return ("idle" if self._in_work.is_empty() else "busy"), []

    def _depth(self, status: AttemptStatus) -> float:
        try:
            return float(getattr(self._store.counts(), status.value))
        except RestoreError:
            return float("nan")


def _lower_priority() -> None:
    """Let request threads go first (Linux knows a priority a thread; pools made by this thread inherit it)."""
    if sys.platform == "linux":
        ours = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, ours + NICENESS))
