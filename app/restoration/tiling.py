"""The geometry of tiles: where a photo is cut, which window each tile reads, and how its edge blends into the canvas.

Pure arithmetic on NumPy arrays. Windows have one fixed shape for the whole photo and never leave it, so that a network
sees the photo's true border exactly as it would untiled.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_TILE_PIXELS = 32  # below it the context costs far more than the tile


@dataclasses.dataclass(frozen=True)
class Span:
    """One tile along one axis, in input pixels.

    Attributes:
        start: first pixel of the window that the network reads; `length` pixels follow.
        length: the window's size, equal for all spans of an axis.
        write_start, write_stop: the part of the photo that this tile writes, blend zone included.
        ramp: width of the zone at `write_start` that is blended over what the tile before wrote; 0 at the border.
    """

    start: int
    length: int
    write_start: int
    write_stop: int
    ramp: int


def cut(
    size: int, tile: int, context: int, blend: int, multiple: int = 1, *, step: int = 1, strict: bool = False
) -> list[Span]:
    """Cut one axis into spans of about `tile` pixels each.

    Args:
        size: length of the axis in pixels; a multiple of `multiple`.
        tile: the size aimed at, without context; windows are `2 * context + blend` larger at most.
        context: pixels that the network must see beyond what is kept.
        blend: width of the zone in which two neighbours are mixed; 0: a hard cut (right when context covers the
            receptive field, since both tiles then hold the same values).
        multiple: windows start at, and measure, multiples of this many pixels (pixel-unshuffle networks).
        step: windows also measure multiples of this many pixels, where the axis is long enough.
        strict: True: never above `tile` (memory decides). False: up to half above, where that saves a tile.
    """
    count = max(1, math.ceil(size / tile) if strict else round(size / tile))
    edges = [_snap(size * i / count, multiple) for i in range(count)] + [size]
    before = blend // 2
    after = blend - before
    core = max(b - a for a, b in itertools.pairwise(edges))
    length = min(size, _snap_up(core + blend + 2 * context + (multiple - 1), math.lcm(multiple, step)))
    spans = []
    for a, b in itertools.pairwise(edges):
        first, last = a == 0, b == size
        write_start = a if first else a - before
        write_stop = b if last else b + after
        start = min(max(_snap(write_start - context, multiple), 0), size - length)
        spans.append(Span(start, length, write_start, write_stop, 0 if first else blend))
    return spans


def _snap(value: float, multiple: int) -> int:
    return int(value) // multiple * multiple


def _snap_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def ramp(width: int) -> NDArray[np.float32]:
    """Weights (width,) float32 of the newer tile, rising inside (0, 1) without reaching either end."""
    return ((np.arange(width, dtype=np.float32) + 0.5) / max(1, width)).astype(np.float32)


def paste(strip: NDArray[Any], piece: NDArray[Any], top: int, left: int, ramp_top: int, ramp_left: int) -> None:
    """Write `piece` into `strip` at (top, left), blending its first rows and columns over what is there.

    Args:
        strip: (H, W, C) integer canvas, changed in place.
        piece: (h, w, C) of the same dtype.
        ramp_top, ramp_left: width in pixels of the zones that blend; 0 writes hard.
    """
    height, width = piece.shape[:2]
    target = strip[top : top + height, left : left + width]
    if ramp_left or ramp_top:
        piece = piece.copy()
    if ramp_left:
        _mix(target[:, :ramp_left], piece[:, :ramp_left], ramp(ramp_left)[None, :, None])
    if ramp_top:
        _mix(target[:ramp_top], piece[:ramp_top], ramp(ramp_top)[:, None, None])
    target[...] = piece


def _mix(old: NDArray[Any], new: NDArray[Any], weight: NDArray[np.float32]) -> None:
    """new := old * (1 - weight) + new * weight, rounded to new's integer type, in place."""
    mixed = old + (new.astype(np.float32) - old) * weight
    new[...] = np.rint(mixed).astype(new.dtype)
