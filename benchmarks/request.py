"""What the parts of a benchmark run are asked for, and the rows that they give back.

A part is a module with `measure(request) -> list[Row]`; one that cannot run here raises `LeftOut` with a sentence. It
needs numpy alone, so that it imports on any machine.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WARM_UP_ROUNDS = 2
INVENTED_SIDE_PIXELS = 1024
SHAPES = ("realesr-general-x4v3", "RealESRGAN_x4plus")  # the compact and the large shape
_SLOPE = 1.0  # the spectrum of photos falls about so


@dataclasses.dataclass(frozen=True)
class Request:
    """One run.

    Attributes:
        weights: folder with a file for each model, real or random, under the official names.
        folder: scratch; gone after the run.
        picture: (H, W, 3) uint8 RGB, which crops are cut from.
        sizes: sides of the crops, pixels, small first.
        models: what is measured, by name.
        rounds: how many count; medians are over these.
        device: a torch device name.
        quick: whether what takes minutes should be left out.
    """

    weights: Path
    folder: Path
    picture: NDArray[np.uint8]
    sizes: tuple[int, ...]
    models: tuple[str, ...]
    rounds: int
    device: str
    quick: bool = False

    @property
    def on_cpu(self) -> bool:
        """Whether no card is used."""
        return self.device == "cpu"

    def crop(self, side: int) -> Path:
        """File with the middle of the picture: (side, side, 3) uint8 RGB as `.npy`; a small picture is repeated."""
        path = self.folder / f"crop_{side}.npy"
        if not path.exists():
            picture = self.picture
            repeats = [-(-side // length) for length in picture.shape[:2]]
            picture = np.tile(picture, (*repeats, 1))
            top, left = ((length - side) // 2 for length in picture.shape[:2])
            np.save(path, np.ascontiguousarray(picture[top : top + side, left : left + side]))
        return path


@dataclasses.dataclass(frozen=True)
class Row:
    """One line: which part, what was measured, and its figures by name (the unit is the name's end), JSON-ready."""

    part: str
    what: str
    figures: dict[str, Any]


class LeftOut(Exception):
    """A part cannot run here; the text is a sentence for people."""


def invented_picture(side: int = INVENTED_SIDE_PIXELS, seed: int = 0) -> NDArray[np.uint8]:
    """A picture with the spectrum of photos, (side, side, 3) uint8, for machines where none is at hand."""
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    falling = 1.0 / np.maximum(np.hypot(rows, columns), 1.0 / side) ** _SLOPE  # (side, side / 2 + 1)
    planes = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) * falling, s=(side, side)) for _ in range(3)]
    stacked = np.stack(planes, axis=2)
    values: NDArray[np.float64] = np.clip(128 + 48 * stacked / stacked.std(), 0, 255)
    return values.astype(np.uint8)


def median(values: Sequence[float]) -> float:
    """The median of the rounds that count."""
    return float(statistics.median(values))
