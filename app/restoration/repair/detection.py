"""Where a photo is damaged: the segmentation network over the whole of it, tile by tile.

Tiles overlap and their probabilities are blended over the overlap, so that no border can be seen. Only one row of
tiles is in memory beside the result, whatever the photo's size. A large photo is searched reduced, since a scan of
many megapixels shows its cracks wider and softer than those that the network was trained on.

Tried and left out: a second look at small photos halved. On held-out photos F1 of all kinds fell from 0.69 to 0.62 at a
threshold of 0.5 (of wide cracks from 0.88 to 0.62), and undamaged photos were marked twice as much. A look at large
photos at their own size beside the reduced one: with a network trained on such scans it marked bows, lips and skin.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.errors import Cancelled, OutOfMemory
from app.images import Pixels
from app.images.samples import eight_bit
from app.options import damage_reduction
from app.restoration.device_errors import is_out_of_memory
from app.restoration.device_memory import release_memory
from app.restoration.repair.inference import probabilities
from app.restoration.repair.segmentation_network import MULTIPLE
from app.stages import OnFraction

log = logging.getLogger(__name__)

NO_ROOM = "The device has too little memory to repair the photo; free some, or set repair to off."
TILE_PIXELS = 1024  # the side of a tile; along a narrow photo it is longer, and has no more pixels
OVERLAP_PIXELS = 128
_SMALLEST_TILE = 256  # when memory runs out
_BAND_ROWS = 64  # of a reduced photo, made and enlarged at once


@dataclasses.dataclass(frozen=True)
class DamageNetwork:
    """A loaded segmentation network: (N, 3, h, w) RGB in [0, 1] to (N, 1, h, w) logits, where and how it computes."""

    module: nn.Module
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    def __call__(self, window: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(h, w, 3) uint8 RGB to probabilities (h, w) float32 in [0, 1]."""
        x: Tensor = torch.from_numpy(np.ascontiguousarray(window.transpose(2, 0, 1)))[None].to(self.device)
        x = x.to(self.dtype).div_(255.0).contiguous(memory_format=torch.channels_last)  # (1, 3, h, w)
        with torch.inference_mode():
            found: NDArray[np.float32] = probabilities(self.module, x).cpu().numpy()
            if not np.isfinite(found).all():
                log.warning("a tile was not finite in %s; it is searched again in fp32", self.dtype)
                found = probabilities(copy.deepcopy(self.module).float(), x.float()).cpu().numpy()
        return found


@dataclasses.dataclass(frozen=True)
class _Span:
    """One tile along one side: where it begins and ends, and how sure it is of each of its pixels (0 to 1)."""

    begin: int
    end: int
    weights: NDArray[np.float32]


def find_damage(
    network: DamageNetwork,
    rgb: Pixels,
    on_fraction: OnFraction,
    *,
    tile: int = TILE_PIXELS,
    overlap: int = OVERLAP_PIXELS,
    reduction: int | None = None,
) -> NDArray[np.uint8]:
    """255 times the probability of damage of each pixel.

    Args:
        network: the loaded network.
        rgb: (H, W, 3) uint8 or uint16 RGB, at the photo's own size.
        on_fraction: told the fraction done after every tile.
        tile, overlap: of the tiles, in pixels; see `TILE_PIXELS`.
        reduction: how many times reduced it is searched; None: as its size asks. For a part of a photo it is that of
            the whole.

    Returns:
        (H, W) uint8.

    Raises:
        Cancelled: `on_fraction` said stop.
        OutOfMemory: not even the smallest tile fits the device; it is halved until then.
    """
    factor = damage_reduction(rgb.shape[1], rgb.shape[0]) if reduction is None else reduction
    searched = rgb if factor == 1 else _reduced(rgb, factor)
    while True:
        try:
            found = _look(network, searched, on_fraction, tile, min(overlap, tile // 4))
            break
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            log.warning("out of memory while damage was looked for in tiles of %d pixels", tile)
        # Outside the handler, whose traceback would keep the tensors alive.
        release_memory(network.device)
        if tile <= _SMALLEST_TILE:
            raise OutOfMemory("out_of_memory", NO_ROOM)
        tile //= 2
    return found if factor == 1 else _enlarged(found, factor, rgb.shape[0], rgb.shape[1])


def _reduced(rgb: Pixels, factor: int) -> NDArray[np.uint8]:
    """Each square of `factor` by `factor` pixels as its mean, the last ones filled up from the photo's border."""
    height, width = (math.ceil(side / factor) for side in rgb.shape[:2])
    reduced = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _BAND_ROWS):
        rows = eight_bit(rgb[top * factor : (top + _BAND_ROWS) * factor])
        lacking = (-len(rows) % factor, width * factor - rows.shape[1])
        full = cv2.copyMakeBorder(rows, 0, lacking[0], 0, lacking[1], cv2.BORDER_REPLICATE)
        reduced[top : top + _BAND_ROWS] = cv2.resize(full, (width, len(full) // factor), interpolation=cv2.INTER_AREA)
    return reduced


def _enlarged(reduced: NDArray[np.uint8], factor: int, height: int, width: int) -> NDArray[np.uint8]:
    """Each pixel as a square of `factor` by `factor`, cut to (height, width).

    Not smoothly: a line one pixel wide would sink below every threshold.
    """
    enlarged = np.empty((height, width), np.uint8)
    for top in range(0, len(reduced), _BAND_ROWS):
        part = reduced[top : top + _BAND_ROWS]
        rows = enlarged[top * factor : (top + _BAND_ROWS) * factor]
        rows[:] = np.repeat(np.repeat(part, factor, axis=0), factor, axis=1)[: len(rows), :width]
    return enlarged


def _look(network: DamageNetwork, rgb: Pixels, on_fraction: OnFraction, tile: int, overlap: int) -> NDArray[np.uint8]:
    """See `find_damage`; at one size."""
    height, width = rgb.shape[:2]
    rows = spans(height, _longest(tile, width), overlap)
    columns = spans(width, _longest(tile, height), overlap)
    result = np.zeros((height, width), np.uint8)
    above: NDArray[np.float32] = np.zeros((0, width), np.float32)  # what the last row of tiles left for this one
    for number, row in enumerate(rows):
        band = _band(network, rgb, row, columns, _part(on_fraction, number, len(rows)))
        band[: len(above)] += above
        until = rows[number + 1].begin if number + 1 < len(rows) else height
        result[row.begin : until] = np.rint(band[: until - row.begin] * 255.0)
        above = band[until - row.begin :].copy()
    return result


def _band(
    network: DamageNetwork, rgb: Pixels, row: _Span, columns: list[_Span], on_fraction: OnFraction
) -> NDArray[np.float32]:
    """One row of tiles, weighted: (h, W) float32."""
    band = np.zeros((row.end - row.begin, rgb.shape[1]), np.float32)
    for number, column in enumerate(columns):
        found = network(eight_bit(rgb[row.begin : row.end, column.begin : column.end]))
        band[:, column.begin : column.end] += found * column.weights * row.weights[:, None]
        if not on_fraction((number + 1) / len(columns)):
            raise Cancelled
    return band


def _part(on_fraction: OnFraction, number: int, count: int) -> OnFraction:
    return lambda fraction: on_fraction((number + fraction) / count)


def spans(length: int, tile: int, overlap: int) -> list[_Span]:
    """Tiles along one side; the weights of all tiles sum to 1 at each pixel.

    They begin at multiples of the network's grid, so that each pools the same pixels as the whole photo would.
    """
    count = max(1, math.ceil((length - overlap) / (tile - overlap)))
    size = min(tile, _on_grid((length + (count - 1) * overlap) / count))
    last = max(0, _on_grid(length - size))
    begins = [_on_grid(index * last / max(1, count - 1)) for index in range(count)]
    return list(_weighted(begins, [min(length, begin + size) for begin in begins]))


def _longest(tile: int, across: int) -> int:
    """The longest side of a tile in a photo that is so wide across it: the fewer tiles, the less is seen twice."""
    return tile if across >= tile else min(2 * tile, tile * tile // _on_grid(across) // MULTIPLE * MULTIPLE)


def _on_grid(place: float) -> int:
    return math.ceil(place / MULTIPLE) * MULTIPLE


def _weighted(begins: Sequence[int], ends: Sequence[int]) -> Iterator[_Span]:
    for index, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        weights = np.ones(end - begin, np.float32)
        if index > 0:
            shared = ends[index - 1] - begin
            weights[:shared] = _ramp(shared)
        if index + 1 < len(begins):
            shared = end - begins[index + 1]
            weights[len(weights) - shared :] = 1.0 - _ramp(shared)
        yield _Span(begin, end, weights)


def _ramp(length: int) -> NDArray[np.float32]:
    return ((np.arange(length, dtype=np.float32) + 0.5) / np.float32(length)).astype(np.float32)
