"""How well marked pixels agree with drawn damage: precision, recall and F1 with a tolerance of two pixels.

Counts are summed over pictures before anything is divided, so that a picture with little damage weighs little. Where
drawn damage cannot be seen, a mark is neither right nor wrong.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from numpy.typing import NDArray

TOLERANCE = 2  # pixels

Mask = NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Pixel counts: of the marked ones how many are right, of the damaged ones how many are found."""

    marked: int = 0
    right: int = 0
    damaged: int = 0
    found: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.marked + other.marked,
            self.right + other.right,
            self.damaged + other.damaged,
            self.found + other.found,
        )

    @property
    def precision(self) -> float:
        """Share of the marked pixels that are right; 1 when none is marked."""
        return self.right / self.marked if self.marked else 1.0

    @property
    def recall(self) -> float:
        """Share of the damaged pixels that are found; 1 when none is damaged."""
        return self.found / self.damaged if self.damaged else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2.0 * self.precision * self.recall / both if both else 0.0


def agreement(marked: Mask, damaged: Mask, unsure: Mask) -> Agreement:
    """Compare marks with visible damage; `unsure` is invisible damage; all (H, W) bool."""
    near_damage = _grown(damaged)
    counted = marked & (near_damage | ~_grown(unsure))
    return Agreement(
        marked=int(counted.sum()),
        right=int((counted & near_damage).sum()),
        damaged=int(damaged.sum()),
        found=int((damaged & _grown(marked)).sum()),
    )


def _grown(mask: Mask) -> Mask:
    side = 2 * TOLERANCE + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc), dtype=np.bool_)
