"""The attempts that are in work right now: who holds each, where it stands, and when it last gave a sign of life.

Its condition is where the lanes' threads wait for room.
"""

from __future__ import annotations

import dataclasses
import enum
import threading
from collections import Counter
from collections.abc import Callable, Sequence

from app.storage import new_id


class Step(enum.StrEnum):
    """Where an attempt in work stands."""

    PREPARING = "preparing"
    READY = "ready"
    RESTORING = "restoring"
    RESTORED = "restored"
    FINISHING = "finishing"


_WATCHED = (Step.RESTORING, Step.FINISHING)  # decoding has its own limit, which kills the decoder's child


@dataclasses.dataclass
class Run:
    """One run of an attempt in a lane. `token` is its claim; `heartbeat_at` is monotonic seconds.

    `need_bytes` is the memory it takes at least; 0 where the lane does not judge by that.
    """

    attempt_id: str
    owner: str
    token: str
    lane: str
    alone: bool
    need_bytes: int
    step: Step
    heartbeat_at: float


HasRoom = Callable[[Sequence[Run]], bool]


class ActiveRuns:
    """The runs of all lanes; each lane says when it has room. `clock` is monotonic seconds.

    A run that must be alone waits until nothing is active, and none of any lane is admitted before it has left.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._runs: dict[str, Run] = {}  # by token: a run that lost its attempt never stands for the next one
        self._moved = threading.Condition()
        self._open, self._force_stop = True, False
        self._want_to_be_alone = 0
        self._rooms_made = 0  # how often a place became free
        self._waiting: Counter[str] = Counter()

    def admit(
        self, attempt_id: str, lane: str, has_room: HasRoom, *, alone: bool, owner: str = "", need_bytes: int = 0
    ) -> str | None:
        """Wait for room in the lane (until nothing is active when `alone`); the new run's token, None once closed."""
        with self._moved:
            self._want_to_be_alone += alone
            self._waiting[lane] += 1
            self._moved.wait_for(
                lambda: not self._open or (self._is_empty() if alone else self._lets_in(lane, has_room))
            )
            self._waiting[lane] -= 1
            self._want_to_be_alone -= alone
            if not self._open:
                return None
            token = new_id()
            now = self._clock()
            self._runs[token] = Run(attempt_id, owner, token, lane, alone, need_bytes, Step.PREPARING, now)
            return token

    def move(self, token: str, step: Step) -> None:
        """The run comes to a new step, which is a sign of life."""
        with self._moved:
            run = self._runs.get(token)
            if run is not None:
                run.step, run.heartbeat_at = step, self._clock()
                self._rooms_made += step is Step.RESTORING
            self._moved.notify_all()

    def take_over(
        self, token: str, attempt_id: str, has_room: HasRoom, *, alone: bool, owner: str = "", need_bytes: int = 0
    ) -> bool:
        """Let the run hold another attempt than the one it was admitted for; False when it would not be let in now."""
        with self._moved:
            run = self._runs.get(token)
            if run is None:
                return False
            others = [other for other in self._runs.values() if other is not run]
            if others and (alone or not has_room([other for other in others if other.lane == run.lane])):
                return False
            run.attempt_id, run.owner, run.need_bytes = attempt_id, owner, need_bytes
            run.alone = run.alone or alone
            return True

    def tokens(self) -> set[str]:
        """The tokens of all runs."""
        with self._moved:
            return set(self._runs)

    def wait_finishing(self, token: str) -> bool:
        """Wait until the lane's last photo is encoded, then come to that step; False when the run was taken away."""
        with self._moved:
            self._moved.wait_for(lambda: not self._must_wait_to_finish(token))
            if token not in self._runs:
                return False
            self.move(token, Step.FINISHING)
            return True

    def heartbeat(self, token: str) -> None:
        """A sign of life."""
        run = self._runs.get(token)
        if run is not None:
            run.heartbeat_at = self._clock()

    def leave(self, token: str) -> None:
        """The run ended."""
        with self._moved:
            self._runs.pop(token, None)
            self._rooms_made += 1
            self._moved.notify_all()

    def close(self) -> None:
        """Admit nobody any more; what is in work goes on."""
        with self._moved:
            self._open = False
            self._rooms_made += 1  # nobody waits for room any more
            self._moved.notify_all()

    def force_stop(self) -> None:
        """End every `wait_idle` at once."""
        with self._moved:
            self._force_stop = True
            self._moved.notify_all()

    def wait_idle(self, timeout_seconds: float | None = None) -> bool:
        """Wait until every run has ended; False after the timeout, or when hurried."""
        with self._moved:
            self._moved.wait_for(lambda: self._is_empty() or self._force_stop, timeout=timeout_seconds)
            return self._is_empty() and not self._force_stop

    def drain_all(self) -> list[Run]:
        """Forget all runs; whoever still works has lost its claim here."""
        with self._moved:
            left = list(self._runs.values())
            self._runs.clear()
            self._rooms_made += 1
            self._moved.notify_all()
            return left

    def at(self, *steps: Step, lane: str | None = None) -> list[Run]:
        """The runs that stand at one of these steps, of one lane or of all."""
        with self._moved:
            return [run for run in self._runs.values() if run.step in steps and lane in (None, run.lane)]

    def run(self, token: str) -> Run | None:
        """The run of this token, if it is still active."""
        with self._moved:
            return self._runs.get(token)

    def waiting(self, lane: str) -> int:
        """How many attempts of a lane wait to be admitted; they are not claimed yet."""
        with self._moved:
            return self._waiting[lane]

    def holds(self, attempt_id: str) -> bool:
        """Whether a run of this attempt is active."""
        with self._moved:
            return any(run.attempt_id == attempt_id for run in self._runs.values())

    def rooms_made(self) -> int:
        """How often a run left or began to restore, which lets another one in."""
        with self._moved:
            return self._rooms_made

    def wait_for_room(self, seen: int, timeout_seconds: float) -> None:
        """Wait until `rooms_made` is not what was `seen`, at most so long."""
        with self._moved:
            self._moved.wait_for(lambda: self._rooms_made != seen, timeout_seconds)

    def is_empty(self) -> bool:
        """Whether nothing is in work."""
        with self._moved:
            return self._is_empty()

    def silence(self, now: float) -> tuple[float, str | None]:
        """The longest silence among runs that ought to give signs of life, in seconds, and whose it is."""
        with self._moved:
            beats = [(now - run.heartbeat_at, run.attempt_id) for run in self._runs.values() if run.step in _WATCHED]
        return max(beats, default=(0.0, None))

    def _is_empty(self) -> bool:
        return not self._runs

    def _lets_in(self, lane: str, has_room: HasRoom) -> bool:
        if self._want_to_be_alone or any(run.alone for run in self._runs.values()):
            return False
        return has_room([run for run in self._runs.values() if run.lane == lane])

    def _must_wait_to_finish(self, token: str) -> bool:
        own = self._runs.get(token)
        if own is None:
            return False
        return any(run.step is Step.FINISHING and run.lane == own.lane for run in self._runs.values())
