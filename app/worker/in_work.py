"""The attempts that are in work right now: who holds each, where it stands, and when it last gave a sign of life.

Its condition is where the worker's threads wait for room. It knows nothing of threads, rows or pictures.
"""

from __future__ import annotations

import dataclasses
import enum
import threading
from collections.abc import Callable

from app.storage import new_id


class Step(enum.StrEnum):
    """Where an attempt in work stands."""

    PREPARING = "preparing"
    READY = "ready"
    RESTORING = "restoring"
    RESTORED = "restored"
    FINISHING = "finishing"


_WATCHED = (Step.RESTORING, Step.FINISHING)  # decoding has its own limit, which kills the decoder's child
_AHEAD = (Step.PREPARING, Step.READY)


@dataclasses.dataclass
class Run:
    """One run of an attempt. `token` is its claim; `beat_at` is monotonic seconds."""

    attempt_id: str
    token: str
    step: Step
    beat_at: float


class InWork:
    """At most one attempt ahead of the one being restored, and one behind it. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._runs: dict[str, Run] = {}  # by token: a run that lost its attempt never stands for the next one
        self._moved = threading.Condition()
        self._open, self._hurry = True, False

    def admit(self, attempt_id: str, *, alone: bool) -> str | None:
        """Wait for room ahead (for an empty house when `alone`) and enter; the run's token, None once closed."""
        with self._moved:
            self._moved.wait_for(lambda: not self._open or (self._is_empty() if alone else self._has_room_ahead()))
            if not self._open:
                return None
            token = new_id()
            self._runs[token] = Run(attempt_id, token, Step.PREPARING, self._clock())
            return token

    def move(self, token: str, step: Step) -> None:
        """The run comes to a new step, which is a sign of life."""
        with self._moved:
            run = self._runs.get(token)
            if run is not None:
                run.step, run.beat_at = step, self._clock()
            self._moved.notify_all()

    def await_finishing(self, token: str) -> bool:
        """Wait until the last photo is encoded, then come to that step; False when the run was taken away."""
        with self._moved:
            self._moved.wait_for(lambda: token not in self._runs or not self._is_finishing())
            if token not in self._runs:
                return False
            self.move(token, Step.FINISHING)
            return True

    def beat(self, token: str) -> None:
        """A sign of life."""
        run = self._runs.get(token)
        if run is not None:
            run.beat_at = self._clock()

    def leave(self, token: str) -> None:
        """The run ended."""
        with self._moved:
            self._runs.pop(token, None)
            self._moved.notify_all()

    def close(self) -> None:
        """Admit nobody any more; what is in work goes on."""
        with self._moved:
            self._open = False
            self._moved.notify_all()

    def hurry(self) -> None:
        """End every `await_nobody` at once."""
        with self._moved:
            self._hurry = True
            self._moved.notify_all()

    def await_nobody(self, timeout_seconds: float | None = None) -> bool:
        """Wait until every run has ended; False after the timeout, or when hurried."""
        with self._moved:
            self._moved.wait_for(lambda: self._is_empty() or self._hurry, timeout=timeout_seconds)
            return self._is_empty() and not self._hurry

    def take_all(self) -> list[Run]:
        """Empty the house; whoever still runs has lost its place."""
        with self._moved:
            left = list(self._runs.values())
            self._runs.clear()
            self._moved.notify_all()
            return left

    def at(self, *steps: Step) -> list[Run]:
        """The runs that stand at one of these steps."""
        with self._moved:
            return [run for run in self._runs.values() if run.step in steps]

    def is_empty(self) -> bool:
        """Whether nothing is in work."""
        with self._moved:
            return self._is_empty()

    def silence(self, now: float) -> tuple[float, str | None]:
        """The longest silence among runs that ought to give signs of life, in seconds, and whose it is."""
        with self._moved:
            beats = [(now - run.beat_at, run.attempt_id) for run in self._runs.values() if run.step in _WATCHED]
        return max(beats, default=(0.0, None))

    def _is_empty(self) -> bool:
        return not self._runs

    def _has_room_ahead(self) -> bool:
        return not any(run.step in _AHEAD for run in self._runs.values())

    def _is_finishing(self) -> bool:
        return any(run.step is Step.FINISHING for run in self._runs.values())
