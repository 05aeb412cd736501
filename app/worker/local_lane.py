"""The lane of this machine's own networks: one thread restores, and two beside it decode the next and encode the last.

An owner has one photo decoded ahead, and a second owner another one where memory allows. A second thread restores a
photo of another owner in turns with the one at work, step by step, so that nobody's photo waits for the end of somebody
else's. At most five photos are in memory.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext

from app.errors import DeviceLost, RestoreError
from app.jobs.memory_need import NETWORK_BYTES, attempt_bytes, fit_together, must_be_alone
from app.jobs.prepared import Prepared, expecting_photo
from app.jobs.result_writing import Finished
from app.stages import Stage
from app.store import Attempt
from app.worker.active_runs import Run, Step
from app.worker.lane import Lane, LaneFilter, WorkerContext, lower_priority
from app.worker.ready_photos import ReadyPhotos

LOCAL_ATTEMPTS = 3  # of one owner: decoded ahead, restored, encoded behind
_MOST_AHEAD = 2  # of two owners
_AHEAD = (Step.PREPARING, Step.READY)
_RESTORERS = ("worker-restore", "worker-restore-beside")


class LocalLane(Lane):
    """At most one attempt of each of two owners ahead of the one or two being restored, and one behind them."""

    def __init__(self, name: str, context: WorkerContext, lane_filter: LaneFilter) -> None:
        super().__init__(name, context, lane_filter)
        self._ready = ReadyPhotos(self._fits_beside)
        self._losing_device = threading.Lock()
        self._held: dict[str, str] = {}  # the token of the run that each restoring thread has in hand
        self._done: queue.Queue[Finished | None] = queue.Queue()
        for thread, loop, step in (
            ("worker-prepare", self._prepare_loop, Step.PREPARING),
            ("worker-finish", self._finish_loop, Step.FINISHING),
        ):
            self.threads.append(self._thread(thread, loop, functools.partial(context.active_runs.at, step, lane=name)))
        for thread in _RESTORERS:
            loop = functools.partial(self._restore_loop, thread)
            self.threads.append(self._thread(thread, loop, functools.partial(self._in_hand, thread)))

    def end(self) -> None:
        """Wake every thread; those that take from a queue end when they take None."""
        super().end()
        self._ready.close()
        self._done.put(None)

    def _prepare_loop(self, stop: threading.Event) -> None:
        self._listen(self._prepare_one, stop, alone=True)

    def _prepare_one(self, attempt: Attempt) -> None:
        """Claim and decode one attempt as soon as there is room for it."""
        with self._expected(attempt):
            prepared = self._admitted(attempt)
        if prepared is None:
            return
        if prepared.attempt.stage != self._first_stage() == Stage.WAITING:
            self._context.runner.set_waiting(prepared)
        self._context.active_runs.move(prepared.token, Step.READY)
        self._ready.put(prepared)

    def _admitted(self, attempt: Attempt) -> Prepared | None:
        """Wait for room, then claim and decode it; None when it failed, or waits no more."""
        active_runs, need_bytes = self._context.active_runs, attempt_bytes(attempt)
        alone = attempt.tries > 0 or must_be_alone(attempt, self._context.memory_bytes)
        has_room = functools.partial(self._has_room, attempt.owner, need_bytes)
        token = active_runs.admit(
            attempt.id, self.name, has_room, alone=alone, owner=attempt.owner, need_bytes=need_bytes
        )
        if token is None:
            return None
        try:
            prepared = self._prepare(attempt, token)
        except RestoreError:
            active_runs.leave(token)
            raise
        if prepared is None:
            active_runs.leave(token)
        return prepared

    def _take_over(self, token: str, claimed: Attempt) -> bool:
        """See `Lane`: judged as if it were let in now, since it may be much larger than the one that was chosen."""
        need_bytes, memory_bytes = attempt_bytes(claimed), self._context.memory_bytes
        has_room = functools.partial(self._has_room, claimed.owner, need_bytes)
        alone = must_be_alone(claimed, memory_bytes)
        return self._context.active_runs.take_over(
            token, claimed.id, has_room, alone=alone, owner=claimed.owner, need_bytes=need_bytes
        )

    def _restore_loop(self, thread: str, _stop: threading.Event) -> None:
        lower_priority()
        while (prepared := self._ready.take()) is not None:
            token = self._held[thread] = prepared.token
            try:
                finished = self._restore_one(prepared)
                del prepared  # its pixels are not needed while the last photo is encoded
                if finished is not None and self._context.active_runs.wait_finishing(token):
                    self._done.put(finished)
                del finished
            finally:
                self._ready.passed_on(token)

    def _restore_one(self, prepared: Prepared) -> Finished | None:
        token, context = prepared.token, self._context
        context.active_runs.move(token, Step.RESTORING)
        self._consumer.put(prepared.attempt.id)  # a place ahead became free: wake-ups of whoever waits for it are spent
        finished = None
        if context.draining:
            context.runner.give_back(prepared.attempt.id, token)
        else:
            finished = self._run(prepared)
        if finished is None:
            context.active_runs.leave(token)
        else:
            context.active_runs.move(token, Step.RESTORED)
        return finished

    def _run(self, prepared: Prepared) -> Finished | None:
        """Run the backend. Only the photo that lost the card burns a try for it, and none is begun after that."""
        token, context = prepared.token, self._context
        heartbeat = functools.partial(context.active_runs.heartbeat, token)
        try:
            return context.runner.restore(prepared, heartbeat=heartbeat, stop_requested=lambda: context.stop_requested)
        except DeviceLost:
            with self._losing_device:
                is_first, context.draining, context.stop_requested = not context.stop_requested, True, True
            if is_first:
                raise
            context.runner.give_back(prepared.attempt.id, token)
            return None

    def _finish_loop(self, _stop: threading.Event) -> None:
        lower_priority()
        while (finished := self._done.get()) is not None:
            token = finished.token
            self._context.runner.finish(
                finished, heartbeat=functools.partial(self._context.active_runs.heartbeat, token)
            )
            del finished
            self._context.active_runs.leave(token)
            self._ready.look_again()

    def _owners_left_out(self) -> Collection[str] | None:
        """Whoever has a photo decoded ahead; None once two have."""
        ahead = self._context.active_runs.at(*_AHEAD, lane=self.name)
        return None if len(ahead) >= _MOST_AHEAD else {run.owner for run in ahead}

    def _first_stage(self) -> Stage:
        """What is decoded ahead waits, for its owner, for the one that is being restored."""
        return Stage.WAITING if self._context.active_runs.at(Step.RESTORING, lane=self.name) else Stage.DECODING

    def _has_room(self, owner: str, need_bytes: int, runs: Sequence[Run]) -> bool:
        """One photo of an owner may be decoded ahead, and a second owner's if it fits beside all that is in work."""
        ahead = [run for run in runs if run.step in _AHEAD]
        if not ahead:
            return True
        if len(ahead) >= _MOST_AHEAD or owner in {run.owner for run in ahead}:
            return False
        return fit_together([need_bytes, *(run.need_bytes for run in runs)], self._context.memory_bytes)

    def _fits_beside(self) -> bool:
        """Whether there is memory for a second network at work, beside all photos that are in memory."""
        runs = self._context.active_runs.at(*Step, lane=self.name)
        return fit_together([NETWORK_BYTES, *(run.need_bytes for run in runs)], self._context.memory_bytes)

    def _expected(self, attempt: Attempt) -> AbstractContextManager[None]:
        """Where it will be at work beside another owner's photo, that one leaves the processor to its decoding.

        An owner who has a photo in work already needs no such haste: it would cost the other's time at every photo.
        """
        others = self._context.active_runs.at(*(step for step in Step if step is not Step.PREPARING), lane=self.name)
        is_new = others and all(run.owner != attempt.owner for run in others)
        if is_new and self._fits_beside():
            return expecting_photo(self._context.runner.backends.get(attempt.backend))
        return nullcontext()

    def _in_hand(self, thread: str) -> list[Run]:
        """The run that a dying thread was restoring; encoding has a thread of its own."""
        run = self._context.active_runs.run(self._held.get(thread, ""))
        return [] if run is None or run.step is Step.FINISHING else [run]
