"""Holes to fill: aged photos with the shape of drawn damage cut out, and what stood there, without grain.

Grain cannot be guessed, so a target with grain bounds every method and blurs a network; the service puts grain back
after filling.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from numpy.typing import NDArray

from app.evaluation.damage.ageing import choose_scan, make_print
from app.evaluation.damage.kinds import TRAINED, DamageKind
from app.evaluation.damage.layers import Rng, Unit
from app.evaluation.damage.scans import Mask, apply_damage

LARGEST_SHARE = 0.3  # of a picture that is cut out; damage beyond it is left out
INPAINT_RADIUS = 3  # pixels
METHODS: dict[str, int] = {"navier_stokes": cv2.INPAINT_NS, "telea": cv2.INPAINT_TELEA}
SHARES: dict[DamageKind, float] = {
    DamageKind.WIDE_CRACK: 0.46,  # wide holes are the network's; thin ones surround them
    DamageKind.BLOTCH: 0.24,
    DamageKind.CRACK: 0.06,
    DamageKind.CREASE: 0.06,
    DamageKind.SCRATCH: 0.04,
    DamageKind.DUST: 0.04,
    DamageKind.BORDER: 0.05,
    DamageKind.CORNER: 0.05,
}


@dataclasses.dataclass(frozen=True)
class FillSample:
    """A scan with damage, (H, W, 3) uint8 RGB, the hole over the damage, (H, W) bool, and the target without grain."""

    scan: NDArray[np.uint8]
    hole: Mask
    target: NDArray[np.uint8]


def library_fill(scan: NDArray[np.uint8], hole: Mask, method: int = cv2.INPAINT_NS) -> NDArray[np.uint8]:
    """OpenCV's fill (Navier-Stokes or Telea) of a hole, (H, W) bool, in a scan, (H, W, 3) uint8."""
    return np.asarray(cv2.inpaint(scan, hole.astype(np.uint8), INPAINT_RADIUS, method), dtype=np.uint8)


def make_fill_sample(scene: Unit, rng: Rng, with_grain: bool) -> FillSample:
    """Age a picture, (H, W, 3) float32 in [0, 1], and cut out one to three kinds of damage with a margin."""
    plain, canvas = make_print(scene, rng, with_grain=False)
    scan = choose_scan(rng)
    target = scan.see(plain)
    damaged, hole = plain, np.zeros(canvas.shape, np.bool_)
    for kind in rng.choice(np.array(list(SHARES)), int(rng.integers(1, 4)), p=list(SHARES.values())):
        after, drawn = apply_damage(damaged, TRAINED[DamageKind(kind)](canvas, rng))
        if (hole | drawn).mean() < LARGEST_SHARE:
            damaged, hole = after, hole | drawn
    margin = int(rng.integers(1, 4))  # what a segmentation marks reaches a little over the damage
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    hole = np.asarray(cv2.dilate(hole.astype(np.uint8), disc), dtype=np.bool_)
    noisy = dataclasses.replace(scan, noise=float(rng.uniform(0.005, 0.05))) if with_grain else scan
    stored = noisy.store(scan.see(damaged), rng) if with_grain else as_pixels(scan.see(damaged))
    return FillSample(stored, hole, as_pixels(target))


def as_pixels(picture: Unit) -> NDArray[np.uint8]:
    """(H, W, 3) float32 in [0, 1] to uint8."""
    return np.asarray(np.rint(picture * 255.0), dtype=np.uint8)
