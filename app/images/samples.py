"""Rows of a picture as the samples that a file holds: grey or RGB, with or without alpha, 8- or 16-bit.

Writers ask for bands of rows, so that no writer copies a whole picture. Arrays only; it knows no format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.images.picture import Picture, Pixels

_BAND_BYTES = 1 << 20
_BAND_PIXELS = 1 << 20


def channels(picture: Picture) -> int:
    """Samples of one pixel: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha."""
    return (1 if picture.grey else 3) + (picture.alpha is not None)


def pixel_bytes(picture: Picture) -> int:
    """Bytes of one pixel in a file that keeps its depth."""
    return channels(picture) * picture.rgb.dtype.itemsize


def bands(picture: Picture) -> Iterator[Pixels]:
    """Bands of about a mebibyte from top to bottom, each (rows, W, channels), uint8 or uint16 as the picture."""
    row_bytes = picture.width * pixel_bytes(picture)
    rows = max(1, _BAND_BYTES // row_bytes)
    for start in range(0, picture.height, rows):
        yield band(picture, start, start + rows)


def band(picture: Picture, start: int, stop: int) -> Pixels:
    """The rows from `start` to `stop` as (rows, W, channels), uint8 or uint16; a view where nothing has to be mixed."""
    rgb = picture.rgb[start:stop]
    colour: Any = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None] if picture.grey else rgb
    if picture.alpha is None:
        return colour  # type: ignore[no-any-return]
    return np.concatenate([colour, picture.alpha[start:stop, :, None]], axis=2)


def row_slices(pixels: Pixels) -> Iterator[slice]:
    """Slices of rows of (H, W) or (H, W, C) pixels, about a megapixel each, so that no step copies a whole photo."""
    rows = max(1, _BAND_PIXELS // pixels.shape[1])
    for start in range(0, pixels.shape[0], rows):
        yield slice(start, start + rows)


def eight_bit(values: Pixels) -> NDArray[np.uint8]:
    """Samples of any shape, uint8 or uint16, rounded to uint8; 8-bit samples come back as they are (a view)."""
    if values.dtype == np.uint8:
        return values.view(np.uint8)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def whole(picture: Picture, *, alpha: bool) -> NDArray[np.uint8]:
    """All rows in 8 bits: (H, W) grey or (H, W, channels). Without `alpha` a transparent picture is laid on white."""
    flatten = picture.alpha is not None and not alpha
    if not picture.grey and picture.alpha is None and picture.rgb.dtype == np.uint8:
        return picture.rgb.view(np.uint8)
    depth = channels(picture) - flatten
    result = np.empty((picture.height, picture.width, depth), np.uint8)
    row = 0
    for part in bands(picture):
        values = eight_bit(part)
        result[row : row + len(values)] = on_white(values[..., :-1], values[..., -1]) if flatten else values
        row += len(values)
    return result[..., 0] if depth == 1 else result


def on_white(colour: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 grey or RGB (rows, W, C) laid on white by its straight alpha (rows, W), uint8; the same shape."""
    weight = alpha[..., None].astype(np.uint16)
    return ((colour * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)
