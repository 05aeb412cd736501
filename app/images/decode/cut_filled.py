"""WebP, AVIF and HEIC files that are cut off: filled up to the length they claim, and how many rows are really there.

As with JPEG, what is missing is found by decoding with different bytes in the place of the missing ones.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from app.images.decode.missing import Completed, Missing
from app.images.header import open_plugin

_FILLERS = (0x00, 0x55, 0xAA, 0xFF, 0x11, 0x80, 0x3C, 0x01)  # a decoder may stumble over some of them

_ENOUGH_VARIANTS = 3


def complete(filled: Callable[[int], bytes], name: str) -> Completed | None:
    """Find out what is missing of a file that `filled` makes as long as it claims; None where nothing decodes.

    HEIC pictures come turned upright, so that of them no rows can be told.
    """
    variants: dict[int, NDArray[np.uint8]] = {}
    for filler in _FILLERS:
        pixels = _decoded(filled(filler), name)
        if pixels is not None:
            variants[filler] = pixels
        if len(variants) == _ENOUGH_VARIANTS:
            break
    if not variants:
        return None
    calmest, *others = variants
    pixels = variants[calmest]
    # Where all other fillers are refused, nothing can be compared.
    first = min((_first_difference(pixels, variants[filler]) for filler in others), default=None)
    data = filled(calmest)
    if first == len(pixels):
        return Completed(data)
    return Completed(data, Missing(len(pixels), None if name == "HEIF" else first))


def _decoded(data: bytes, name: str) -> NDArray[np.uint8] | None:
    try:
        with open_plugin(io.BytesIO(data), name) as image:
            image.load()
            return np.asarray(image)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a decoder may stumble over bytes that are none of the photo's
        return None


def _first_difference(pixels: NDArray[np.uint8], others: NDArray[np.uint8]) -> int:
    """The first row that differs, or the height."""
    differs = (pixels != others).reshape(len(pixels), -1).any(axis=1)
    return int(differs.argmax()) if differs.any() else len(pixels)
