"""When each attempt of the queue will have ended, by letting the rows run ahead of time as the lanes would run them.

A machine's device takes photos of two owners in turns, so each of them gets half of it; a provider's places take one
photo each. Owners are served in turn, as the rows came ordered. Pure arithmetic over rows and estimates.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from app.options import BackendName
from app.stages import Stage
from app.store import Attempt, AttemptStatus
from app.time_estimate import Estimate, seconds_left

_SHARING_A_DEVICE = 2  # photos, of different owners
_BEFORE_RESTORING = (Stage.WAITING, Stage.DECODING)
_SAME_MOMENT_SECONDS = 1e-6
NEW = ""  # the attempt id of photos that are only asked about

Plan = Callable[[Attempt], Estimate | None]


@dataclasses.dataclass
class _Photo:
    """A photo on its way. `seconds` of the place's work are left, then `saving` beside the next one."""

    attempt_id: str
    owner: str
    seconds: float
    saving: float


@dataclasses.dataclass
class _Place:
    """Where photos are restored: one at a time, or several of different owners that share it."""

    most: int
    photos: list[_Photo] = dataclasses.field(default_factory=list)

    def has_room_for(self, photo: _Photo) -> bool:
        """Whether it may go there now."""
        return len(self.photos) < self.most and all(photo.owner != other.owner for other in self.photos)

    def seconds_to_next_end(self) -> float:
        """Until the first of its photos is restored, each at its part of the pace; infinite without any."""
        return min((photo.seconds for photo in self.photos), default=math.inf) * len(self.photos)


@dataclasses.dataclass
class _Lane:
    """The places of one backend, the photos on them and those that wait, and the ends that are known already."""

    places: list[_Place]
    waiting: list[_Photo] = dataclasses.field(default_factory=list)
    ends: dict[str, float] = dataclasses.field(default_factory=dict)
    is_blind: bool = False  # its next photos cannot be foretold

    def run(self) -> dict[str, float]:
        """Let all of them end; seconds from now, by attempt."""
        now = 0.0
        while True:
            self._fill()
            step = min((place.seconds_to_next_end() for place in self.places if place.photos), default=None)
            if step is None:
                return self.ends
            now += step
            for place in self.places:
                self._advance(place, step, now)

    def _fill(self) -> None:
        """Put every photo that waits and may go somewhere on the emptiest place."""
        while True:
            for place in sorted(self.places, key=lambda each: len(each.photos)):
                photo = next(filter(place.has_room_for, self.waiting), None)
                if photo is not None:
                    self.waiting.remove(photo)
                    place.photos.append(photo)
                    break
            else:
                return

    def _advance(self, place: _Place, step: float, now: float) -> None:
        share = step / max(1, len(place.photos))
        for photo in list(place.photos):
            photo.seconds -= share
            if photo.seconds <= _SAME_MOMENT_SECONDS:
                place.photos.remove(photo)
                self.ends[photo.attempt_id] = max(now + photo.saving, self.ends.get(photo.attempt_id, 0.0))


@dataclasses.dataclass(frozen=True)
class QueueForecast:
    """The queue at one moment, in seconds from it.

    Attributes:
        seen: the attempts that had not ended.
        ends: when each of them will have; without those for which nothing is known.
    """

    seen: frozenset[str]
    ends: Mapping[str, float]
    _make_lanes: Callable[[], Mapping[str, _Lane]]

    def end_of_new(self, backend: str, owner: str, plans: Sequence[Estimate]) -> float | None:
        """When the last of these photos would have ended if its owner sent them now; None while nobody can tell."""
        lane = self._make_lanes().get(backend)
        if lane is None or lane.is_blind:
            return None
        mine = [_Photo(NEW, owner, plan.loading + plan.restoring, plan.saving) for plan in plans]
        for photo, later in zip(mine[1:], plans[1:], strict=True):
            photo.seconds = later.restoring  # the network is loaded once
        lane.waiting = _in_turn([*lane.waiting, *mine])
        return lane.run().get(NEW)


def simulate_queue(plan: Plan, workers: int, active: Sequence[Attempt], cloud_concurrency: int) -> QueueForecast:
    """Let the attempts that have not ended run in their order.

    Args:
        plan: the seconds of an attempt once it is its turn, None where that is not known.
        workers: how many machines restore.
        active: all rows that have not ended, those that wait in the order of their turns.
        cloud_concurrency: how many photos are at a provider at once.
    """

    def make_lanes() -> Mapping[str, _Lane]:
        lanes = {
            BackendName.LOCAL.value: _Lane([_Place(_SHARING_A_DEVICE) for _ in range(workers)]),
            BackendName.SILICONFLOW.value: _Lane([_Place(1) for _ in range(cloud_concurrency)]),
        }
        for name, lane in lanes.items():
            _put_rows(lane, plan, [attempt for attempt in active if attempt.backend == name])
        return lanes

    ends = [lane.run() for lane in make_lanes().values()]
    known = {attempt_id: end for each in ends for attempt_id, end in each.items()}
    return QueueForecast(frozenset(attempt.id for attempt in active), known, make_lanes)


def _put_rows(lane: _Lane, plan: Plan, rows: Iterable[Attempt]) -> None:
    """Put each row where it stands, until one comes of which nothing is known."""
    loaded: set[str | None] = set()
    ordered = sorted(rows, key=_turn)
    owners = {row.owner for row in ordered if _is_being_restored(row)}
    for row in ordered:
        planned = plan(row)
        if planned is None:
            lane.is_blind = True
            return
        if planned.model in loaded:
            planned = dataclasses.replace(planned, loading=0.0)
        loaded.add(planned.model)
        left = _left(row, planned, shares=len(owners) > len(lane.places))
        if row.stage == Stage.ENCODING:
            lane.ends[row.id] = left
            continue
        saving = min(left, planned.saving)
        photo = _Photo(row.id, row.owner, left - saving, saving)
        if _is_being_restored(row):
            free = [place for place in lane.places if place.has_room_for(photo)] or lane.places
            min(free, key=lambda place: len(place.photos)).photos.append(photo)
        else:
            lane.waiting.append(photo)


def _left(row: Attempt, planned: Estimate, *, shares: bool) -> float:
    """Seconds of work that are left. Its own pace is half of the device's while it shares that, so the plan counts."""
    if row.status is not AttemptStatus.PROCESSING:
        return planned.seconds
    if shares and planned.is_measured and _is_being_restored(row):
        return (1.0 - row.progress) * planned.restoring + planned.saving
    return seconds_left(planned, row.stage, row.progress, row.worked_seconds)


def _is_being_restored(row: Attempt) -> bool:
    is_elsewhere = row.stage in _BEFORE_RESTORING or row.stage == Stage.ENCODING
    return row.status is AttemptStatus.PROCESSING and not is_elsewhere


def _turn(row: Attempt) -> int:
    """What is being saved or restored comes before what was decoded ahead, and that before what waits in the queue."""
    if row.status is AttemptStatus.QUEUED:
        return 3
    return 2 if row.stage in _BEFORE_RESTORING else 0 if row.stage == Stage.ENCODING else 1


def _in_turn(photos: Sequence[_Photo]) -> list[_Photo]:
    """Owners in turn: the first photo of each before anybody's second."""
    turns: Counter[str] = Counter()
    keyed = []
    for photo in photos:
        turns[photo.owner] += 1
        keyed.append((turns[photo.owner], photo))
    return [photo for _, photo in sorted(keyed, key=lambda each: each[0])]
