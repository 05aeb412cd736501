"""When each waiting photo will be done: the work ahead of it, everybody's, at the pace of `app.time_estimate`.

One forecast serves all requests of a moment, since each needs the whole queue.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.api.catalog import Catalog
from app.api.queue_simulation import QueueForecast, simulate_queue
from app.api.views import options_of
from app.options import BackendName, Pages, Quality, RestoreOptions
from app.store import Attempt, Job, Store
from app.time_estimate import Estimate, Machine, Pace, Sample, estimate, machine_of, work_done

KEPT_SECONDS = 1.0
MOST_ATTEMPTS = 500  # beyond that nobody waits for a number of seconds
_SIDE_OF_A_MEGAPIXEL = 1000
GUESSED_FACES = 0.5  # of a photo, until photos with faces were seen


@dataclasses.dataclass(frozen=True)
class Estimator:
    """What estimates are made from: the machine, its pace, and how many faces a photo has on average."""

    machine: Machine
    pace: Pace
    faces: float

    def plan(self, attempt: Attempt) -> Estimate | None:
        """The seconds that an attempt of the queue takes, once it is its turn."""
        return self.estimate(attempt.photo_width, attempt.photo_height, options_of(attempt.options_json))

    def estimate(self, width: int, height: int, options: RestoreOptions) -> Estimate | None:
        """The seconds for a photo of this size."""
        return estimate(self.machine, self.pace, width, height, options, faces=self.faces)

    def speeds(self) -> list[dict[str, Any]]:
        """A row for each quality: the model that would run, its seconds for a megapixel of photo (None while nothing is
        known), and whether it ran here before."""
        rows = []
        for quality in Quality:
            plan = self.estimate(_SIDE_OF_A_MEGAPIXEL, _SIDE_OF_A_MEGAPIXEL, RestoreOptions(quality=quality.value))
            rows.append(
                {
                    "quality": quality.value,
                    "model": self.machine.qualities.get(quality),
                    "seconds_per_input_megapixel": None if plan is None else round(plan.restoring, 3),
                    "measured": plan is not None and plan.is_measured,
                }
            )
        return rows


class Forecast:
    """Estimates over the rows of the store. Usable from any thread that may wait for the store.

    Args:
        store, catalog: of the service.
        clock: monotonic seconds.
        cloud_concurrency: how many photos are at a provider at once.
        tiled_from_pixels: larger results are cut into tiles while they are saved; None: none is.
    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        clock: Callable[[], float],
        cloud_concurrency: int = 1,
        tiled_from_pixels: int | None = None,
    ) -> None:
        self._store, self._catalog, self._clock = store, catalog, clock
        self._cloud_concurrency, self._tiled_from_pixels = cloud_concurrency, tiled_from_pixels
        self._lock = threading.Lock()
        self._kept: tuple[float, Estimator, QueueForecast] | None = None

    def seconds_left(self, job: Job) -> float | None:
        """Until the last photo of a job has ended; None for one that has, and while nobody can tell."""
        active = [attempt for attempt in job.attempts if not attempt.status.ended]
        if not active:
            return None
        _, line = self.now()
        if any(attempt.id not in line.seen for attempt in active):  # it came in this moment
            _, line = self.now(max_age_seconds=0.0)
        ends = [line.ends.get(attempt.id) for attempt in active]
        return None if None in ends else round(max(end for end in ends if end is not None), 1)

    def now(self, max_age_seconds: float = KEPT_SECONDS) -> tuple[Estimator, QueueForecast]:
        """What is known, and the queue, at most so old."""
        with self._lock:
            kept = self._kept
            if kept is None or self._clock() - kept[0] > max_age_seconds:
                estimator = self._look()
                rows, workers = self._store.active(MOST_ATTEMPTS), estimator.machine.workers
                line = simulate_queue(estimator.plan, workers, rows, self._cloud_concurrency)
                kept = self._kept = (self._clock(), estimator, line)
        return kept[1], kept[2]

    def _look(self) -> Estimator:
        described = machine_of(self._catalog.description())
        machine = dataclasses.replace(described, tiled_from_pixels=self._tiled_from_pixels)
        recent = self._store.recent_completed()
        samples = [sample for attempt in recent if (sample := sample_of(machine, attempt)) is not None]
        return Estimator(machine, Pace(machine, samples), mean_faces(recent))


def sample_of(machine: Machine, attempt: Attempt) -> Sample | None:
    """What a completed attempt says of the pace; None where its work is not known."""
    options = options_of(attempt.options_json)
    if attempt.seconds is None or options.pages == Pages.ALL or attempt.params.get("cache"):
        return None
    if attempt.backend != BackendName.LOCAL:
        return Sample(None, attempt.seconds)
    work = work_done(
        machine,
        attempt.photo_width,
        attempt.photo_height,
        model=attempt.model,
        precision=str(attempt.params.get("precision", machine.precision)),
        ensemble=bool(attempt.params.get("ensemble")),
        planes=int(attempt.params.get("planes", 1)),
        faces=_restored_faces(attempt),
        parsed=machine.parses_faces and _is_parsed(attempt.params),
        searched=not (attempt.params.get("repair") or {}).get("own_mask", True),
    )
    return None if work is None else Sample(work, attempt.seconds)


def mean_faces(attempts: Sequence[Attempt]) -> float:
    """Faces that were restored in a photo, over those that were asked to have theirs restored."""
    asked = [_restored_faces(attempt) for attempt in attempts if attempt.params.get("faces") is not None]
    return sum(asked) / len(asked) if asked else GUESSED_FACES


def _restored_faces(attempt: Attempt) -> int:
    return sum(bool(face.get("restored")) for face in attempt.faces)


def _is_parsed(params: Mapping[str, Any]) -> bool:
    return bool((params.get("faces") or {}).get("parsing"))
