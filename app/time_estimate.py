"""How long a restoration takes: work in multiply-adds, times a pace that this machine was measured at.

Pure arithmetic for the service, the command line and, through `/api/v1/estimate`, the page. The work of a photo is that
of the network that will really run, with its passes, faces and alpha; loading and saving stand apart. Estimates by file
size or by megapixels alone were wrong by factors: the time for a pixel differs 14 times between two networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from app.options import BackendName, Quality, Repair, RestoreOptions, damage_reduction, output_size
from app.stages import Stage

ENSEMBLE_PASSES = 8
FACE_GIGAMACS, PARSING_GIGAMACS = 198.0, 234.0  # GFPGAN and ParseNet, for one face
# Of repair, in what a network's multiply-adds take: the search, a pixel of what is searched, and all else, a pixel of
# the photo. By what a scan damaged in many places takes on two cores: 0.8 and 0.9 seconds a megapixel.
SEARCH_MEGAMACS_PER_PIXEL, FILL_MEGAMACS_PER_PIXEL = 0.08, 0.08
SMALLEST_PIXELS = 128 * 128  # a smaller photo costs nearly as much
RECENT_SAMPLES = 6  # the newest ones decide: a machine that is busy today is slow today
LOADED_BYTES_PER_SECOND = 60e6  # a file to a network that has run once, measured on two cores
CLOUD_SECONDS = 25.0  # until a provider was measured
STEADY_PROGRESS = 0.25  # from here on the pace of the run itself is all that counts
# Seconds to write a megapixel, measured on two cores.
SAVING_SECONDS = {"jpg": 0.012, "png": 0.015, "tiff": 0.015, "webp": 0.085, "avif": 0.4, "auto": 0.015}
TILING_SECONDS = 0.02  # a megapixel of a result that is cut into tiles beside its encoding, on the same two cores
DECODING_SECONDS = 0.03  # a megapixel
_MEGAPIXEL = 1_000_000


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """A network: what it is built like, its multiply-adds a pixel of the photo in millions, and its file's size."""

    architecture: str
    megamacs_per_pixel: float
    bytes: int


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a machine says of itself, as far as time hangs on it (see `machine_of`)."""

    models: Mapping[str, ModelCost]
    qualities: Mapping[str, str]  # which model runs
    default_quality: str
    precision: str
    full_precision_ratio: float  # the time of fp32 over that of `precision`
    loaded: frozenset[tuple[str, str]]  # models in memory, each with its precision
    warm: tuple[str, float, float] | None  # model, pixels and seconds of the run at the start
    restores_faces: bool = False
    parses_faces: bool = False
    workers: int = 1
    tiled_from_pixels: int | None = None  # larger results are cut into tiles while they are saved; None: none is


@dataclasses.dataclass(frozen=True)
class Work:
    """What a photo asks of the networks, in thousands of millions of multiply-adds."""

    model: str
    architecture: str
    precision: str
    gigamacs: float


@dataclasses.dataclass(frozen=True)
class Sample:
    """A restoration that has ended. For a provider's, `work` is None."""

    work: Work | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds for one photo, the queue left out. `is_measured`: the pace comes from this model's own runs."""

    loading: float
    restoring: float
    saving: float
    model: str | None
    is_measured: bool

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.loading + self.restoring + self.saving


def machine_of(described: Mapping[str, Any]) -> Machine:
    """Read it from the description of the local backend (see `app.api.catalog`); missing facts are neutral."""
    faces = described.get("faces") or {}
    warm = described.get("warm_run")
    return Machine(
        models={
            row["name"]: ModelCost(row["architecture"], row["megamacs_per_pixel"], row["bytes"])
            for row in described.get("models", ())
            if row.get("megamacs_per_pixel")
        },
        qualities={row["quality"]: row["model"] for row in described.get("qualities", ())},
        default_quality=str(described.get("default_quality") or Quality.FAST),
        precision=str(described.get("precision") or "fp32"),
        full_precision_ratio=float(described.get("full_precision_ratio") or 1.0),
        loaded=frozenset((name, precision) for name, precision in described.get("loaded_models", ())),
        warm=None if warm is None else (warm["model"], warm["pixels"], warm["seconds"]),
        restores_faces=faces.get("model") is not None,
        parses_faces=bool(faces.get("parsing")),
        workers=max(1, int(described.get("workers") or 1)),
    )


def work_of(machine: Machine, width: int, height: int, options: RestoreOptions, *, faces: float = 0.0) -> Work | None:
    """The work of a photo that is to be restored; None where the model is not known.

    Args:
        machine: whose models run.
        width, height: of the photo, in pixels.
        options: as asked.
        faces: how many are restored; a fraction where it is a guess.
    """
    quality = options.quality or machine.default_quality
    is_best = options.model is None and quality == Quality.BEST
    return work_done(
        machine,
        width,
        height,
        model=options.model or machine.qualities.get(quality),
        precision="fp32" if is_best else machine.precision,
        ensemble=is_best,
        faces=faces if machine.restores_faces and options.face_enhance else 0.0,
        searched=options.repair != Repair.OFF,
        parsed=machine.parses_faces and (options.model is not None or quality != Quality.FAST),
    )


def work_done(
    machine: Machine,
    width: int,
    height: int,
    *,
    model: str | None,
    precision: str,
    ensemble: bool,
    faces: float,
    parsed: bool,
    planes: int = 1,
    searched: bool = False,
) -> Work | None:
    """The work of a photo by what was, or will be, done with it; None where the model is not known.

    `planes` is 2 with transparency that varies, `parsed` says that each face is parsed as well,
    `searched` that damage is looked for.
    """
    cost = machine.models.get(model or "")
    if model is None or cost is None:
        return None
    pixels = max(width * height, SMALLEST_PIXELS) * planes * (ENSEMBLE_PASSES if ensemble else 1)
    each = FACE_GIGAMACS + (PARSING_GIGAMACS if parsed else 0.0)
    gigamacs = pixels * cost.megamacs_per_pixel / 1000 + faces * each
    gigamacs += width * height * repair_megamacs_per_pixel(width, height) / 1000 if searched else 0.0
    return Work(model, cost.architecture, precision, gigamacs)


def repair_megamacs_per_pixel(width: int, height: int) -> float:
    """What repair costs for each pixel of a photo of this size; large ones are searched reduced."""
    return SEARCH_MEGAMACS_PER_PIXEL / damage_reduction(width, height) ** 2 + FILL_MEGAMACS_PER_PIXEL


def repair_share(megamacs_per_pixel: float | None, width: int, height: int) -> float:
    """Which part of a photo's work is its repair, beside a network of this cost (None: not known)."""
    repair = repair_megamacs_per_pixel(width, height)
    return repair / (repair + (megamacs_per_pixel or 1.0))


class Pace:
    """Seconds for a thousand million multiply-adds, from what ran here, the newest first.

    Args:
        machine: whose pace it is.
        samples: restorations that have ended, newest first.
    """

    def __init__(self, machine: Machine, samples: Iterable[Sample]) -> None:
        self._machine = machine
        self._samples = [sample for sample in samples if sample.seconds > 0]

    def seconds(self, work: Work) -> tuple[float | None, bool]:
        """Seconds for this work, and whether they come from runs of the same model and precision.

        None where nothing ever ran. Else the nearest runs count: the same architecture, then any, then the small run
        at the start; another precision is converted.
        """
        ran = [(sample.work, sample.seconds) for sample in self._samples if sample.work is not None]
        same = [(w, s) for w, s in ran if (w.model, w.precision) == (work.model, work.precision)]
        alike = [(w, s) for w, s in ran if w.architecture == work.architecture]
        for chosen in (same, alike, ran, self._warm()):
            if chosen:
                return work.gigamacs * _ratio(chosen[:RECENT_SAMPLES], self._slowness, work), chosen is same
        return None, False

    def cloud_seconds(self) -> float:
        """What a provider takes for one photo, whatever its size."""
        took = [sample.seconds for sample in self._samples if sample.work is None][:RECENT_SAMPLES]
        return sum(took) / len(took) if took else CLOUD_SECONDS

    def _slowness(self, precision: str) -> float:
        return self._machine.full_precision_ratio if precision == "fp32" else 1.0

    def _warm(self) -> list[tuple[Work, float]]:
        warm = self._machine.warm
        cost = self._machine.models.get(warm[0]) if warm is not None else None
        if warm is None or cost is None:
            return []
        gigamacs = warm[1] * cost.megamacs_per_pixel / 1000
        return [(Work(warm[0], cost.architecture, self._machine.precision, gigamacs), warm[2])]


def _ratio(runs: Sequence[tuple[Work, float]], slowness: Callable[[str], float], wanted: Work) -> float:
    """Seconds a unit of work over some runs, in the precision that is wanted."""
    seconds = sum(seconds / slowness(work.precision) for work, seconds in runs)
    return float(seconds / sum(work.gigamacs for work, _ in runs) * slowness(wanted.precision))


def estimate(
    machine: Machine, pace: Pace, width: int, height: int, options: RestoreOptions, *, faces: float = 0.0
) -> Estimate | None:
    """Seconds for a photo of this size when its turn has come; None while nothing is known of the machine.

    The arguments are those of `work_of`.
    """
    saving = _saving_seconds(machine, width, height, options)
    if options.backend != BackendName.LOCAL:
        return Estimate(0.0, pace.cloud_seconds(), saving, None, False)
    work = work_of(machine, width, height, options, faces=faces)
    if work is None:
        return None
    seconds, is_measured = pace.seconds(work)
    if seconds is None:
        return None
    is_loaded = (work.model, work.precision) in machine.loaded
    loading = 0.0 if is_loaded else machine.models[work.model].bytes / LOADED_BYTES_PER_SECOND
    return Estimate(loading, seconds, saving, work.model, is_measured)


def _saving_seconds(machine: Machine, width: int, height: int, options: RestoreOptions) -> float:
    """Decoding the photo, and encoding its result and cutting that into tiles."""
    wide, high = output_size(width, height, options.scale)
    each = SAVING_SECONDS[options.output_format]
    if machine.tiled_from_pixels is not None and wide * high > machine.tiled_from_pixels:
        each += TILING_SECONDS
    return wide * high / _MEGAPIXEL * each + width * height / _MEGAPIXEL * DECODING_SECONDS


def seconds_left(planned: Estimate, stage: str, progress: float, worked_seconds: float | None) -> float:
    """What an attempt in work still takes.

    Args:
        planned: the estimate for the whole of it.
        stage, progress: as its row says.
        worked_seconds: how long it was being restored when `progress` was written; None before.
    """
    if stage in (Stage.WAITING, Stage.DECODING):
        return planned.seconds
    if stage == Stage.ENCODING:
        return planned.saving
    if not worked_seconds or progress <= 0:
        return planned.seconds - (0.0 if stage == Stage.LOADING else planned.loading)
    trust = min(1.0, progress / STEADY_PROGRESS)
    observed = worked_seconds / progress
    return (1 - progress) * ((1 - trust) * planned.restoring + trust * observed) + planned.saving
