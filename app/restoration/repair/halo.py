"""The rim of damage, which a threshold leaves out: scanners blur and sharpen, JPEG spreads colours.

A fill that takes up a pale or dark rim shows where the crack was.

A pixel beside the mask belongs to it when it is not what diffusion expects there from further away, by a share of how
far the damage next to it is from that. On drawn damage, whose masks reach over the rim, it costs about 0.4 dB; on
real scans it decides whether a filled crack can be seen.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from app.images import Pixels
from app.restoration.repair.diffusion_inpainting import Mask, carried_on, harmonic_fill
from app.restoration.repair.windows import Window, of_each, windows_of

REACH_PIXELS = 3  # how far from the mask a rim is looked for
SMALLEST_SHARE = 0.15  # of the damage's own distance from what is expected
SMALLEST_STEP = 0.04  # of the range, as a distance in RGB
_NEAR_PIXELS = 2.0  # standard deviation of the mean of the damage nearby


def with_halo(rgb: Pixels, mask: Mask, hidden: Mask | None = None) -> Mask:
    """The mask, (H, W), and the rim of what it covers in the photo, (H, W, 3) uint8 or uint16; a new array.

    `hidden`, (H, W), is what nobody sees (fully transparent): no rim lies there, and none is judged by it.
    """

    def rim(_: Window, outer: Window) -> Mask:
        picture = rgb[outer].astype(np.float32) / np.float32(np.iinfo(rgb.dtype).max)
        if hidden is None:
            return _rim(picture, mask[outer])
        return _rim(carried_on(picture, mask[outer], hidden[outer]), mask[outer]) & ~hidden[outer]

    grown = mask.copy()
    for (_, outer), found in of_each(windows_of(mask), rim):
        grown[outer] |= found
    return grown


def _rim(picture: NDArray[np.float32], mask: Mask) -> Mask:
    """(H, W, 3) float32 in [0, 1] and (H, W) to the rim's pixels."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * REACH_PIXELS + 1,) * 2)
    around = np.asarray(cv2.dilate(mask.astype(np.uint8), disc), dtype=np.bool_)
    away = picture - harmonic_fill(picture, around)  # from what is expected
    weight = mask.astype(np.float32)
    damage = np.asarray(cv2.GaussianBlur(away * weight[:, :, None], (0, 0), _NEAR_PIXELS))
    damage = damage / np.maximum(cv2.GaussianBlur(weight, (0, 0), _NEAR_PIXELS), 1e-6)[:, :, None]
    length = np.sqrt((damage**2).sum(axis=2))
    apart = np.sqrt((away**2).sum(axis=2))
    is_rim = (apart > SMALLEST_SHARE * length) & (apart > SMALLEST_STEP)
    return np.asarray(around & ~mask & is_rim, dtype=np.bool_)
