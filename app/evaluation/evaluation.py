"""Restores every photo every asked way, measures the results and collects the rows of a report.

It works through the same backends as the service. One bad photo never stops the run: whatever goes wrong becomes its
row's trouble.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from app.atomic_files import part_beside, publish
from app.backends.protocol import Backend
from app.errors import Cancelled, NotFound, RestoreError, Unprocessable, file_error
from app.evaluation import degradation, figures, views
from app.evaluation.columns import BASELINE, INPUTS_FOLDER, Column
from app.evaluation.figures import Figure, Lpips
from app.evaluation.inputs import Photo
from app.evaluation.metrics import Rgb
from app.evaluation.records import Cell, PhotoRow, Trouble, Views
from app.images import Decoder, Picture, check_format, encode
from app.options import check_output
from app.result_names import place_of
from app.results import RestorationResult

log = logging.getLogger(__name__)

_PIXELS_PER_MEGAPIXEL = 1_000_000
OnStep = Callable[[int, float, str], bool]  # (photo's number, its share done in [0, 1], words); False: stop


@dataclasses.dataclass(frozen=True)
class Degradation:
    """How `--degrade` makes an input: bicubic, then noise, then JPEG; the noise hangs on seed and name only."""

    factor: int
    noise_sigma: float = 0.0
    jpeg_quality: int | None = None
    seed: int = 0

    def apply(self, rgb: Rgb, label: str) -> Rgb:
        """(H, W, 3) uint8 RGB to (H / factor, W / factor, 3)."""
        small = degradation.bicubic_down(rgb, self.factor)
        if self.noise_sigma > 0:
            small = degradation.noise(small, self.noise_sigma, self.seed + zlib.crc32(label.encode()))
        return small if self.jpeg_quality is None else degradation.jpeg(small, self.jpeg_quality)


@dataclasses.dataclass(frozen=True)
class Task:
    """What to do: photos, columns, where results go, how inputs are made, what is measured and within which limits.

    With `degradation` None and `referenced`, every photo needs its reference.
    """

    photos: tuple[Photo, ...]
    columns: tuple[Column, ...]
    output: Path
    figures: tuple[Figure, ...]
    degradation: Degradation | None = None
    referenced: bool = False
    lpips: Lpips | None = None
    max_output_megapixels: float = 400.0
    pictured: int = 60  # photos whose small pictures go onto the page

    @property
    def scale(self) -> float:
        """How many times larger results are; equal for all columns, since they are compared."""
        return self.columns[0].options.scale

    @property
    def border(self) -> int:
        """Pixels cut off each side against a reference: the scale, as the field does."""
        return math.ceil(self.scale)

    @property
    def with_niqe(self) -> bool:
        """Whether NIQE is among the figures."""
        return figures.NIQE_RESULT in self.figures


@dataclasses.dataclass(frozen=True)
class _Subject:
    """One photo ready to be restored: the picture that goes in, how it looks, and what should come out."""

    photo: Photo
    picture: Picture
    rgb: Rgb
    truth: Rgb | None
    box: views.Box
    notes: tuple[str, ...]


class Evaluation:
    """One run over a task's photos; `rows` fills as it goes, and `stopped` says whether it was told to stop.

    The first of the decoders opens photos, the second references, which may be as large as results.
    """

    def __init__(
        self, task: Task, backends: Mapping[str, Backend], decoders: tuple[Decoder, Decoder], on_step: OnStep
    ) -> None:
        self._task, self._backends, self._on_step = task, backends, on_step
        self._decoder, self._reference_decoder = decoders
        self.rows: list[PhotoRow] = []
        self.stopped = False

    def run(self) -> None:
        """Evaluate one photo after another; what was begun when told to stop is left out."""
        for number, photo in enumerate(self._task.photos):
            try:
                self.rows.append(self._photo(number, photo))
            except Cancelled:
                self.stopped = True
                return

    def _photo(self, number: int, photo: Photo) -> PhotoRow:
        if not self._on_step(number, 0.0, "reading"):
            raise Cancelled
        try:
            subject = self._subject(photo)
            naturalness = figures.naturalness(subject.rgb, wanted=self._task.with_niqe)
            cells = [self._baseline(subject)] if subject.truth is not None else []
        except Exception as error:  # noqa: BLE001 - one bad photo never stops the run
            return PhotoRow(photo.label, trouble=_trouble(error, photo.label))
        for place, column in enumerate(self._task.columns):
            cells.append(self._cell(subject, column, number, place))
        baseline = cells[0].figures if subject.truth is not None else {}
        return self._row(subject, [_completed(cell, naturalness, baseline) for cell in cells])

    def _row(self, subject: _Subject, cells: list[Cell]) -> PhotoRow:
        height, width = subject.rgb.shape[:2]
        pictured = len(self.rows) < self._task.pictured
        return PhotoRow(
            subject.photo.label,
            width,
            height,
            tuple(cells),
            subject.notes,
            before=self._views(subject, subject.rgb) if pictured else None,
            truth=self._views(subject, subject.truth) if pictured and subject.truth is not None else None,
            detail_box=subject.box,
        )

    def _subject(self, photo: Photo) -> _Subject:
        """Decode the photo and its reference, or degrade it."""
        picture = self._decoder.decode(photo.path)
        notes = tuple(notice.message for notice in picture.notes)
        rgb = views.as_rgb(picture)
        truth: Rgb | None = None
        if self._task.degradation is not None:
            truth = _divisible(rgb, self._task.degradation.factor)
            rgb = self._task.degradation.apply(truth, photo.label)
            picture = Picture(rgb)
            self._write(picture, INPUTS_FOLDER, photo.stem, "png", 100, "keep")
        elif self._task.referenced:
            if photo.reference is None:
                raise NotFound("no_reference", "There is no reference of this name; add one or take the photo out.")
            truth = views.as_rgb(self._reference_decoder.decode(photo.reference))
        return _Subject(photo, picture, rgb, truth, views.telling_detail(rgb, self._task.scale), notes)

    def _baseline(self, subject: _Subject) -> Cell:
        """The same input enlarged by MATLAB's bicubic; also finds a reference that does not fit."""
        assert subject.truth is not None
        height, width = (round(side * self._task.scale) for side in subject.rgb.shape[:2])
        enlarged = degradation.bicubic_to(subject.rgb, (height, width))
        return self._measured(Cell(BASELINE, width=width, height=height), subject, enlarged)

    def _cell(self, subject: _Subject, column: Column, number: int, place: int) -> Cell:
        """One photo one way; whatever goes wrong becomes the cell's trouble."""
        label, share = subject.photo.label, 1.0 / len(self._task.columns)

        def on_progress(fraction: float, stage: str) -> bool:
            return self._on_step(number, (place + 0.9 * fraction) * share, f"{column.name}, {stage}")

        cell = Cell(column.name)
        try:
            self._check_size(subject, column)
            restored = self._backends[column.options.backend].restore(subject.picture, column.options, on_progress)
            cell = self._kept(cell, subject, column, restored)
            if not self._on_step(number, (place + 0.9) * share, f"{column.name}, measuring"):
                raise Cancelled
            return self._measured(cell, subject, views.as_rgb(restored.picture))
        except Cancelled:
            raise
        except Exception as error:  # noqa: BLE001 - one bad photo never stops the run
            return dataclasses.replace(cell, trouble=_trouble(error, label))

    def _check_size(self, subject: _Subject, column: Column) -> None:
        height, width = subject.rgb.shape[:2]
        check_output(width * height, column.options.scale, self._task.max_output_megapixels)
        check_format(column.options.output_format, width, height, column.options.scale)

    def _kept(self, cell: Cell, subject: _Subject, column: Column, restored: RestorationResult) -> Cell:
        """The cell after its result was written."""
        options = column.options
        file = (options.output_format, options.output_quality, options.metadata)
        name = self._write(restored.picture, column.folder, subject.photo.stem, *file)
        return dataclasses.replace(
            cell,
            backend=options.backend,
            model=restored.model,
            seconds=restored.seconds,
            width=restored.picture.width,
            height=restored.picture.height,
            faces=len(restored.faces),
            result=name,
            warnings=tuple(warning.message for warning in restored.warnings),
        )

    def _write(self, picture: Picture, folder: str, stem: str, form: str, quality: int, metadata: str) -> str:
        """Write a result under a temporary name, rename it, and return its path below the results' folder."""
        place = self._task.output / folder / stem
        with part_beside(place) as part:
            encoded = encode(picture, part, form, quality, metadata)
            target = place_of(place.parent, place.name, encoded.extension)
            publish(part, target)
        return target.relative_to(self._task.output).as_posix()

    def _measured(self, cell: Cell, subject: _Subject, result: Rgb) -> Cell:
        """The cell with its figures and views."""
        values = figures.fidelity(subject.rgb, result)
        values["niqe"] = figures.naturalness(result, wanted=self._task.with_niqe)
        pictured = self._views(subject, result) if len(self.rows) < self._task.pictured else None
        cell = dataclasses.replace(cell, figures=values, views=pictured)
        if subject.truth is None:
            return cell
        truth = _fitting(subject.truth, result, self._task.scale)
        values |= figures.against_reference(truth, result, self._task.border, self._task.lpips)
        return dataclasses.replace(cell, figures=values)

    def _views(self, subject: _Subject, rgb: Rgb) -> Views:
        """Small pictures, of one size for everything that belongs to one photo."""
        inside, scale = subject.rgb.shape[:2], self._task.scale
        whole = views.whole_size((round(inside[0] * scale), round(inside[1] * scale)))
        box = views.scaled_box(subject.box, (inside[0], inside[1]), (rgb.shape[0], rgb.shape[1]))
        detail = (max(1, round(subject.box[3] * scale)), max(1, round(subject.box[2] * scale)))
        return views.make_views(rgb, whole, box, detail)


def _completed(cell: Cell, naturalness: float | None, baseline: Mapping[str, float | None]) -> Cell:
    """The cell with the figures that hang on others."""
    if not cell.figures:
        return cell
    values = {**cell.figures, "niqe_input": naturalness}
    if baseline:
        values["gain_psnr_y"] = figures.gain(cell.figures, baseline)
    return dataclasses.replace(cell, figures=values)


def _divisible(rgb: Rgb, factor: int) -> Rgb:
    """Without the last rows and columns that the factor does not divide, as the field's test sets are cut."""
    height, width = (side - side % factor for side in rgb.shape[:2])
    if min(height, width) == 0:
        raise Unprocessable("too_small_to_compare", f"The photo is smaller than the factor {factor}; leave it out.")
    return np.ascontiguousarray(rgb[:height, :width])


def _fitting(truth: Rgb, result: Rgb, scale: float) -> Rgb:
    """The reference cut to the result's size, if it is larger by less than the scale (a cut-off remainder)."""
    more = (truth.shape[0] - result.shape[0], truth.shape[1] - result.shape[1])
    if all(0 <= side < scale for side in more):
        return truth[: result.shape[0], : result.shape[1]]
    raise Unprocessable(
        "sizes_differ",
        f"The result has {result.shape[1]}x{result.shape[0]} pixels, its reference {truth.shape[1]}x{truth.shape[0]}; "
        "give references of the results' size, or choose another --scale.",
    )


def _trouble(error: Exception, label: str) -> Trouble:
    """An error as a code and a sentence; what nobody foresaw goes to the log with its trace."""
    if isinstance(error, OSError):
        error = file_error(error)
    if isinstance(error, RestoreError):
        return Trouble(error.code, error.detail)
    log.error("evaluating %s failed", label, exc_info=error)
    return Trouble("internal", f"Something unforeseen went wrong ({type(error).__name__}); the log above says more.")


def as_json(asked: Degradation | None) -> dict[str, Any] | None:
    """How the inputs were made, JSON-ready."""
    return None if asked is None else dataclasses.asdict(asked)
