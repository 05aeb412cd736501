"""The lane of a backend that only waits (a provider's answer): some threads, each with one photo from start to end.

It runs beside the machine's own networks and never behind them. At most as many photos as threads are in memory.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence

from app.errors import RestoreError
from app.jobs.prepared import Prepared
from app.store import Attempt
from app.worker.active_runs import Run, Step
from app.worker.lane import Lane, LaneFilter, WorkerContext, lower_priority


class RemoteLane(Lane):
    """`most` attempts at once, each in a thread of its own."""

    def __init__(self, name: str, context: WorkerContext, lane_filter: LaneFilter, most: int) -> None:
        super().__init__(name, context, lane_filter)
        self._most = most
        self._ended = threading.Event()
        self._held: dict[str, str] = {}  # the token of the run that each thread has in hand
        for number in range(1, most + 1):
            thread = f"worker-{name}-{number}"
            loop = functools.partial(self._loop, thread)
            self.threads.append(self._thread(thread, loop, functools.partial(self._in_hand, thread)))

    def end(self) -> None:
        """Wake every thread, also one that waits to write its result again."""
        super().end()
        self._ended.set()

    def _loop(self, thread: str, stop: threading.Event) -> None:
        lower_priority()
        self._listen(functools.partial(self._one, thread), stop)

    def _one(self, thread: str, attempt: Attempt) -> None:
        """One attempt through all three steps. When the thread dies of it, `_in_hand` still names the run."""
        active_runs = self._context.active_runs
        token = active_runs.admit(attempt.id, self.name, self._has_room, alone=attempt.tries > 0)
        if token is None:
            return
        self._held[thread] = token
        try:
            prepared = self._prepare(attempt, token)
            if prepared is not None:
                self._run(prepared)
        except RestoreError:
            active_runs.leave(token)
            raise
        active_runs.leave(token)

    def _run(self, prepared: Prepared) -> None:
        context, token = self._context, prepared.token
        heartbeat = functools.partial(context.active_runs.heartbeat, token)
        if context.draining:
            context.runner.give_back(prepared.attempt.id, token)
            return
        context.active_runs.move(token, Step.RESTORING)
        finished = context.runner.restore(prepared, heartbeat=heartbeat, stop_requested=lambda: context.stop_requested)
        if finished is not None:
            context.active_runs.move(token, Step.FINISHING)
            wait_to_retry = functools.partial(self._wait_to_retry, heartbeat)
            context.runner.finish(finished, heartbeat=heartbeat, wait_to_retry=wait_to_retry)

    def _wait_to_retry(self, heartbeat: Callable[[], None]) -> bool:
        """A moment before a paid result is written again; False when the worker stops. The lane takes nothing new."""
        heartbeat()
        return not self._ended.wait(self._context.rescan_seconds) and not self._context.draining

    def _has_room(self, runs: Sequence[Run]) -> bool:
        return len(runs) < self._most

    def _in_hand(self, thread: str) -> list[Run]:
        run = self._context.active_runs.run(self._held.get(thread, ""))
        return [] if run is None else [run]
