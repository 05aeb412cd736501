"""Sinks for finished rows of the network's output: straight into the result, or through Lanczos to another size.

Rows arrive from top to bottom in bands, so that memory grows with the band and the result, never with the network's own
(often larger) canvas.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LANCZOS_SUPPORT = 3.0


class Sink(Protocol):
    """Takes bands of rows from top to bottom and holds the result."""

    result: NDArray[Any]  # (H, W, C) uint8 or uint16

    def add(self, rows: NDArray[Any]) -> None:
        """Take the next rows, (h, W_network, C), same dtype as the result."""
        ...


class CopySink:
    """Keeps the network's own size; rows and columns beyond (height, width) are padding and dropped."""

    def __init__(self, height: int, width: int, channels: int, dtype: np.dtype[Any]) -> None:
        self.result: NDArray[Any] = np.empty((height, width, channels), dtype)
        self._row = 0

    def add(self, rows: NDArray[Any]) -> None:
        """Copy the band, (h, W_network, C) of the result's dtype."""
        count = min(len(rows), len(self.result) - self._row)
        self.result[self._row : self._row + count] = rows[:count, : self.result.shape[1]]
        self._row += count


class LanczosSink:
    """Resizes (height_in, width_in) to (height, width) with an antialiased Lanczos-3 kernel, band by band.

    Pillow's `resize` takes a fractional box and reads beyond it, so a band resized with its neighbours' rows at hand
    equals the same rows of a resize of the whole. 16-bit channels go through 32-bit floats, one channel at a time.
    """

    def __init__(
        self, size_in: tuple[int, int], size_out: tuple[int, int], channels: int, dtype: np.dtype[Any]
    ) -> None:
        self._height_in, self._width_in = size_in
        self.result: NDArray[Any] = np.empty((*size_out, channels), dtype)
        self._ratio = self._height_in / size_out[0]  # input rows per output row
        self._reach = _LANCZOS_SUPPORT * max(1.0, self._ratio) + 1
        self._held: NDArray[Any] = np.empty((0, self._width_in, channels), dtype)
        self._held_top = 0  # input row number of the first held row
        self._done = 0  # output rows written

    def add(self, rows: NDArray[Any]) -> None:
        """Take (h, W_network, C): write every output row whose support is complete, drop what no later row needs."""
        room = self._height_in - self._held_top - len(self._held)
        self._held = np.concatenate([self._held, rows[:room, : self._width_in]])
        have = self._held_top + len(self._held)
        last = have >= self._height_in
        ready = len(self.result) if last else math.floor((have - self._reach) / self._ratio)
        if ready > self._done:
            self._write(ready)
        keep_from = max(self._held_top, math.floor(self._done * self._ratio - self._reach))
        self._held = self._held[keep_from - self._held_top :].copy()
        self._held_top = keep_from

    def _write(self, ready: int) -> None:
        top, bottom = self._done * self._ratio - self._held_top, ready * self._ratio - self._held_top
        box = (0.0, top, float(self._width_in), min(bottom, float(len(self._held))))
        size = (self.result.shape[1], ready - self._done)
        self.result[self._done : ready] = _resize(self._held, size, box)
        self._done = ready


def _resize(
    pixels: NDArray[Any], size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> NDArray[Any]:
    """Lanczos-resize (H, W, C) integer pixels to `size` (width, height), reading `box` of them."""
    if pixels.dtype == np.uint8:
        channels = pixels.shape[2]
        image = Image.fromarray(pixels if channels > 1 else pixels[:, :, 0])
        return np.asarray(image.resize(size, Image.Resampling.LANCZOS, box)).reshape(size[1], size[0], channels)
    peak = np.iinfo(pixels.dtype).max
    out = np.empty((size[1], size[0], pixels.shape[2]), pixels.dtype)
    for channel in range(pixels.shape[2]):
        plane = Image.fromarray(pixels[:, :, channel].astype(np.float32))
        resized = np.asarray(plane.resize(size, Image.Resampling.LANCZOS, box))
        out[:, :, channel] = np.rint(np.clip(resized, 0, peak)).astype(pixels.dtype)
    return out


def make_sink(
    size_in: tuple[int, int], size_out: tuple[int, int], channels: int, dtype: np.dtype[Any]
) -> CopySink | LanczosSink:
    """The sink that turns rows of the network's canvas into the result.

    Args:
        size_in: (height, width) of the canvas; rows and columns beyond are padding.
        size_out: (height, width) of the result.
        channels: 1 or 3.
        dtype: uint8 or uint16, of rows and result.
    """
    if size_in == size_out:
        return CopySink(*size_out, channels, dtype)
    return LanczosSink(size_in, size_out, channels, dtype)
