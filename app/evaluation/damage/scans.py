"""Photos as damaged scans: aged, damage drawn on them or none, scanned, and the mask of what is visible.

Everything hangs on the random generator that is handed in.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from app.evaluation.damage.ageing import choose_scan, make_print
from app.evaluation.damage.kinds import Draw
from app.evaluation.damage.layers import Layer, Rng, Unit, clipped, paste

VISIBLE_CONTRAST = 0.06  # of the range, in the channel that differs most
NATIVE_SHARE = 0.3  # of the crops, which are not scaled and so stay sharp

Mask = NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One scan and what is known of it.

    `scan` is (H, W, 3) uint8 RGB; `contrast` (H, W) float32 in [0, 1] is how far the damage differs from what the
    scanner would have seen without it, before noise; `unsure` (H, W) is damage drawn where it cannot be seen, which
    counts neither as damage nor as none. `undamaged`, (H, W, 3) uint8, is the scan with the same noise and the same
    compression that the print would have given without damage; None where it was not asked for.
    """

    scan: NDArray[np.uint8]
    contrast: NDArray[np.float32]
    unsure: Mask
    undamaged: NDArray[np.uint8] | None = None

    @property
    def mask(self) -> Mask:
        """Damage that can be seen, (H, W) bool."""
        return self.contrast > VISIBLE_CONTRAST


def contrast(before: Unit, after: Unit) -> NDArray[np.float32]:
    """Difference of two pictures, (H, W, 3) float32 in [0, 1], in the channel that differs most: (H, W) float32."""
    difference = np.abs(after - before)
    red, green, blue = difference[:, :, 0], difference[:, :, 1], difference[:, :, 2]
    return np.asarray(np.maximum(np.maximum(red, green), blue))  # four times faster than max(axis=2)


def apply_damage(undamaged: Unit, layers: Sequence[Layer]) -> tuple[Unit, Mask]:
    """Paste layers over a print where they can be seen.

    Args:
        undamaged: (H, W, 3) float32 RGB in [0, 1].
        layers: the first lowest.

    Returns:
        (the damaged print of the same shape, and where it was changed, (H, W) bool): outside, no pixel is touched.
    """
    damaged = paste(undamaged, layers)
    drawn = contrast(undamaged, damaged) > VISIBLE_CONTRAST
    return np.where(drawn[:, :, None], damaged, undamaged), drawn


def scan_sample(
    scene: Unit, draws: Sequence[Draw], rng: Rng, side: int | None = None, *, with_undamaged: bool = False
) -> Sample:
    """Age, damage and scan a picture.

    Args:
        scene: (H, W, 3) float32 RGB in [0, 1].
        draws: the damage; none: an undamaged print.
        rng: decides everything else.
        side: of the scan, in pixels, where the scanner resolves more of the square print than it holds; None: as the
            scene.
        with_undamaged: keep the scan without damage too.
    """
    undamaged, canvas = make_print(scene, rng)
    damaged, drawn = apply_damage(undamaged, [layer for draw in draws for layer in draw(canvas, rng)])
    scan = choose_scan(rng)
    clean, seen = scan.see(undamaged), scan.see(damaged)
    if side not in (None, len(scene)):
        clean, seen = _enlarged(clean, side), _enlarged(seen, side)
        drawn = _enlarged(drawn.astype(np.float32), side) > 0.5
    difference = contrast(clean, seen)
    unsure = drawn & (difference <= VISIBLE_CONTRAST)
    kept = scan.store(clean, copy.deepcopy(rng)) if with_undamaged else None
    return Sample(scan.store(seen, rng), difference, unsure, kept)


def _enlarged(picture: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Values in [0, 1], of (s, s) or (s, s, 3), at (side, side)."""
    return clipped(np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC), dtype=np.float32))


def crop(photo: NDArray[np.uint8], side: int, rng: Rng) -> Unit:
    """A random square of a photo, (H, W, 3) uint8, scaled and turned: (side, side, 3) float32 RGB in [0, 1]."""
    smallest = side / min(photo.shape[:2])
    factor = max(smallest, float(np.exp(rng.uniform(math.log(0.6), math.log(1.6)))))
    if rng.random() < NATIVE_SHARE:
        factor = max(smallest, 1.0)
    cut = min(*photo.shape[:2], math.ceil(side / factor))
    y, x = rng.integers(photo.shape[0] - cut + 1), rng.integers(photo.shape[1] - cut + 1)
    square = np.rot90(photo[y : y + cut, x : x + cut], int(rng.integers(4)))
    square = np.ascontiguousarray(square[:, ::-1] if rng.random() < 0.5 else square)
    way = cv2.INTER_AREA if cut > side else cv2.INTER_CUBIC
    resized = np.asarray(cv2.resize(square, (side, side), interpolation=way), dtype=np.float32)
    return resized / np.float32(255.0)
