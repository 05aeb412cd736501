"""A photo's holes window by window, so that memory stays flat and time goes by the area around the holes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from app.restoration.repair.diffusion_inpainting import Mask

WINDOW_PIXELS, MARGIN_PIXELS = 384, 64

Window = tuple[slice, slice]  # rows, columns


def windows_of(mask: Mask) -> Iterator[tuple[Window, Window]]:
    """(the part with holes, the same with a margin) of every window of a mask, (H, W) bool, that has a hole."""
    height, width = mask.shape
    for top in range(0, height, WINDOW_PIXELS):
        for left in range(0, width, WINDOW_PIXELS):
            part = mask[top : top + WINDOW_PIXELS, left : left + WINDOW_PIXELS]
            rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
            if len(rows):
                y, x = (
                    (top + int(rows[0]), top + int(rows[-1]) + 1),
                    (left + int(columns[0]), left + int(columns[-1]) + 1),
                )
                yield (slice(*y), slice(*x)), (_grown(*y, height), _grown(*x, width))


def _grown(begin: int, end: int, limit: int) -> slice:
    return slice(max(0, begin - MARGIN_PIXELS), min(limit, end + MARGIN_PIXELS))
