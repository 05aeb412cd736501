"""What an evaluation found: one row per photo, one cell per photo and column, and the run they belong to.

Plain data.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from app.evaluation.columns import BASELINE
from app.evaluation.figures import Figure, Values, mean


@dataclasses.dataclass(frozen=True)
class Trouble:
    """Why something has no result: a stable code and one plain sentence."""

    code: str
    message: str


@dataclasses.dataclass(frozen=True)
class Views:
    """Two small pictures for the page, as WebP bytes: the whole photo, and a detail at full size."""

    whole: bytes
    detail: bytes


@dataclasses.dataclass(frozen=True)
class Cell:
    """One photo restored one way.

    Attributes:
        column: the column's name.
        figures: by key; see `figures.py`.
        backend, model: what really ran; both empty when nothing did.
        seconds: of the restoration alone.
        width, height: of the result.
        faces: how many were found.
        result: the result's path below the results' folder, with slashes.
        warnings: plain sentences.
        trouble: why there is no result, or why it could not be measured.
        views: of the result.
    """

    column: str
    figures: Values = dataclasses.field(default_factory=dict)
    backend: str = ""
    model: str = ""
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    faces: int = 0
    result: str = ""
    warnings: tuple[str, ...] = ()
    trouble: Trouble | None = None
    views: Views | None = None


@dataclasses.dataclass(frozen=True)
class PhotoRow:
    """One photo with its cells; `trouble` when it could not be read at all.

    `detail_box` is the shown detail in pixels of the input: left, top, width, height.
    """

    label: str
    width: int = 0
    height: int = 0
    cells: tuple[Cell, ...] = ()
    notes: tuple[str, ...] = ()
    trouble: Trouble | None = None
    before: Views | None = None
    truth: Views | None = None
    detail_box: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def failed(self) -> bool:
        """Whether anything of this photo went wrong."""
        return self.trouble is not None or any(cell.trouble for cell in self.cells)

    def cell(self, column: str) -> Cell | None:
        """The cell of a column, or None."""
        return next((cell for cell in self.cells if cell.column == column), None)


@dataclasses.dataclass(frozen=True)
class Report:
    """One run.

    Attributes:
        mode: fidelity, reference or degrade.
        created: UTC, ISO 8601.
        machine: as `machine.describe_machine` gives it.
        columns: name to options, JSON-ready, in order; the baseline is not among them.
        figures: what was measured; photos are sorted by the first.
        border: pixels cut off each side against a reference.
        degradation: how the inputs were made, JSON-ready, or None.
        left_out: sentences about figures that could not be measured here.
        photos: worst first.
    """

    mode: str
    created: str
    machine: dict[str, Any]
    columns: dict[str, dict[str, Any]]
    figures: tuple[Figure, ...]
    border: int
    degradation: dict[str, Any] | None
    left_out: tuple[str, ...]
    photos: tuple[PhotoRow, ...]
    interrupted: bool = False

    @property
    def column_names(self) -> tuple[str, ...]:
        """All columns as shown: the baseline first, where there is one."""
        return ((BASELINE,) if self.mode != "fidelity" else ()) + tuple(self.columns)

    @property
    def failures(self) -> list[tuple[str, str, Trouble]]:
        """(photo, column or an empty text, trouble) of everything that went wrong."""
        found = []
        for photo in self.photos:
            if photo.trouble:
                found.append((photo.label, "", photo.trouble))
            found += [(photo.label, cell.column, cell.trouble) for cell in photo.cells if cell.trouble]
        return found

    def mean(self, column: str, key: str) -> float | None:
        """Mean of a figure over the photos that have it, finite, in every column that has it at all.

        So no column gains by a photo that it failed at.
        """
        rows = [{name: _finite(photo, name, key) for name in self.column_names} for photo in self.photos]
        having = [name for name in self.column_names if any(row[name] is not None for row in rows)]
        shared = [row for row in rows if all(row[name] is not None for name in having)]
        return mean([row[column] for row in shared])

    def seconds_per_megapixel(self, column: str) -> float | None:
        """Time of the restorations alone for each megapixel of their inputs."""
        done = [
            (cell.seconds, photo.width * photo.height / 1e6)
            for photo in self.photos
            if (cell := photo.cell(column)) and cell.backend
        ]
        area = sum(pixels for _, pixels in done)
        return sum(seconds for seconds, _ in done) / area if area else None


def _finite(photo: PhotoRow, column: str, key: str) -> float | None:
    cell = photo.cell(column)
    value = None if cell is None else cell.figures.get(key)
    return value if value is not None and math.isfinite(value) else None


def worst_first(photos: list[PhotoRow], figure: Figure) -> tuple[PhotoRow, ...]:
    """Sorted: those that failed, then by the mean of a figure over the columns that were asked for."""

    def key(photo: PhotoRow) -> tuple[bool, float, str]:
        value = mean([cell.figures.get(figure.key) for cell in photo.cells if cell.column != BASELINE])
        badness = float("inf") if value is None else (value if figure.more_is_better else -value)
        return not photo.failed, badness, photo.label

    return tuple(sorted(photos, key=key))
