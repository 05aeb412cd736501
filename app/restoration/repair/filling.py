"""Holes filled from their surroundings, in windows around them.

For now by OpenCV's Navier-Stokes inpainting alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from app.errors import Cancelled
from app.images import Pixels
from app.restoration.repair.inpainting_network import FillCorrection
from app.stages import OnFraction

_WINDOW_PIXELS, _MARGIN_PIXELS, _RADIUS_PIXELS = 512, 48, 3


def fill(
    rgb: Pixels,
    mask: NDArray[np.bool_],
    network: FillCorrection | None = None,
    on_fraction: OnFraction = lambda fraction: True,
) -> Pixels:
    """A new picture with the masked pixels filled; outside the mask not one bit changes.

    Args:
        rgb: (H, W, 3) uint8 or uint16 RGB.
        mask: (H, W), what is to be filled.
        network: corrects wide holes; None: the library fills them too.
        on_fraction: told the fraction done after every window.

    Returns:
        (H, W, 3) of the same dtype.

    Raises:
        Cancelled: `on_fraction` said stop.
    """
    filled = rgb.copy()
    windows = list(_windows(mask))
    for number, (inner, outer) in enumerate(windows):
        hole = mask[outer].astype(np.uint8)
        channels = [cv2.inpaint(rgb[outer][..., c], hole, _RADIUS_PIXELS, cv2.INPAINT_NS) for c in range(3)]
        seen = np.stack(channels, axis=2)
        core = tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
        filled[inner][mask[inner]] = seen[core][mask[inner]]
        if not on_fraction((number + 1) / len(windows)):
            raise Cancelled
    return filled


def _windows(mask: NDArray[np.bool_]) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """(rows, columns) of every window with a hole, and the same with a margin."""
    height, width = mask.shape
    for top in range(0, height, _WINDOW_PIXELS):
        for left in range(0, width, _WINDOW_PIXELS):
            bottom, right = min(height, top + _WINDOW_PIXELS), min(width, left + _WINDOW_PIXELS)
            if mask[top:bottom, left:right].any():
                margin = _MARGIN_PIXELS
                rows = slice(max(0, top - margin), min(height, bottom + margin))
                columns = slice(max(0, left - margin), min(width, right + margin))
                yield (slice(top, bottom), slice(left, right)), (rows, columns)
