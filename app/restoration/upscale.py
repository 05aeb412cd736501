"""Runs one network over a whole picture plane, tile by tile, into a result in host memory.

Every tile is checked and, when reduced precision spoiled it, done again in fp32; out of memory halves the tile and
starts the photo again; no failed tile is ever papered over. It knows nothing of files, alpha, options or models.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.errors import Cancelled, Internal, OutOfMemory
from app.restoration import tiling
from app.restoration.device import free_memory_bytes, is_out_of_memory
from app.restoration.models.networks import Network, OnPart
from app.restoration.resample import Lanczos, Straight, make_sink

log = logging.getLogger(__name__)

SMALLEST_TILE_PIXELS = 32
# Two CPU cores compute at the same rate at any tile from 230 to 1,090 pixels, so a larger tile only saves context;
# these sides bound the memory. ESRGAN: 192 -> 127, 256 -> 116, 384 -> 107 us a pixel; compact: 384 -> 8.0, 640 -> 7.2,
# 1024 -> 6.5.
_CPU_TILE_PIXELS = {"esrgan": 384, "compact": 640}
_CUDA_TILE_PIXELS = {"esrgan": 512, "compact": 1024}
_CUDA_BATCH = 4
_FLAT = 1.0 / 1024  # a spread below this is flat
_NOT_FLAT = 16.0 / 255
_BAND_ROWS = 64  # of a result, which so stay in a CPU's cache from step to step
LUMA = (0.299, 0.587, 0.114)  # BT.601 full range, as cv2.COLOR_RGB2GRAY


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to run: tile size in pixels (0: chosen here), self-ensemble or not, and the result's (height, width)."""

    size_out: tuple[int, int]
    tile: int = 0
    ensemble: bool = False
    grey: bool = False


@dataclasses.dataclass
class Report:
    """What happened on the way."""

    tile: int = 0
    tiles: int = 0
    redone_in_fp32: int = 0
    restarts: int = 0


OnTile = Callable[[float], bool]  # fraction of this plane done, told several times a tile; False: stop


def upscale(network: Network, pixels: NDArray[Any], plan: Plan, on_tile: OnTile) -> tuple[NDArray[Any], Report]:
    """Upscale one plane.

    Args:
        network: what to run.
        pixels: (H, W, 3) uint8 or uint16, RGB.
        plan: sizes and ways; with `plan.grey` the result has one channel, the BT.601 luma of the network's three.
        on_tile: told the fraction done after each run of the network, and on a CPU within it.

    Returns:
        (H_out, W_out, 3), or (H_out, W_out, 1) with `plan.grey`, of the same dtype, and the report.

    Raises:
        Cancelled: `on_tile` said stop. OutOfMemory: the smallest tile does not fit. Internal: `bad_network_output`.
    """
    report = Report()
    asked = plan.tile
    tile = asked or default_tile(network)
    while True:
        report.tile, report.tiles, report.redone_in_fp32 = tile, 0, 0
        try:
            strict = bool(asked) or report.restarts > 0
            with torch.inference_mode():
                return _Run(network, pixels, plan, on_tile, report, strict=strict).result(), report
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            log.warning("out of memory at tile %d", tile)
        # Outside the handler, whose traceback would keep the tensors alive.
        _free(network.device)
        if tile <= SMALLEST_TILE_PIXELS:
            raise OutOfMemory(
                "out_of_memory", "The device has too little memory for the smallest tile; free some or use a CPU."
            )
        tile = max(SMALLEST_TILE_PIXELS, min(tile, max(pixels.shape[:2])) // 2)
        report.restarts += 1


def _free(device: str) -> None:
    if device != "cpu":
        torch.cuda.empty_cache()


def default_tile(network: Network) -> int:
    """Tile side in pixels for the network's device, within a quarter of the memory that is free."""
    table = _CPU_TILE_PIXELS if network.device == "cpu" else _CUDA_TILE_PIXELS
    facts = network.facts
    tile = table[facts.architecture] * facts.multiple
    # A pixel of the tile takes at the peak about 4 feature maps of 64 channels at 4 bytes. ESRGAN has four times that
    # (measured: 3 KB), and on a card its end, which a CPU makes in bands, at `scale` times the size.
    maps = 1 if facts.architecture == "compact" else 4 if network.device == "cpu" else facts.scale**2
    bytes_per_pixel = 4 * 64 * 4 * maps
    room = free_memory_bytes(network.device) // 4
    while tile > SMALLEST_TILE_PIXELS and (tile + 2 * facts.context) ** 2 * bytes_per_pixel > room:
        tile //= 2
    return tile


class _Run:
    """One pass over one plane at one tile size. Lives for one call; holds nothing between photos."""

    def __init__(
        self, network: Network, pixels: NDArray[Any], plan: Plan, on_tile: OnTile, report: Report, *, strict: bool
    ) -> None:
        self._network, self._plan, self._on_tile, self._report = network, plan, on_tile, report
        facts = network.facts
        height, width = pixels.shape[:2]
        self._pixels = _pad(pixels, facts.multiple)
        self._rows, self._columns = (
            tiling.cut(size, report.tile, facts.context, facts.blend, facts.multiple, strict=strict)
            for size in self._pixels.shape[:2]
        )
        self._runs = len(self._rows) * len(self._columns) * (8 if plan.ensemble else 1)
        self._done = 0
        self._channels = 1 if plan.grey else 3
        size_in = (height * facts.scale, width * facts.scale)
        self._sink: Straight | Lanczos = make_sink(size_in, plan.size_out, self._channels, pixels.dtype)
        self._peak = float(np.iinfo(pixels.dtype).max)

    def result(self) -> NDArray[Any]:
        """Run all tiles; rows leave for the sink as soon as no later tile blends into them."""
        scale, width = self._network.facts.scale, self._pixels.shape[1]
        strip_top = 0  # output row of the strip's first row
        strip: NDArray[Any] = np.empty((0, width * scale, self._channels), self._pixels.dtype)
        for number, row in enumerate(self._rows):
            top, bottom = row.write_start * scale, row.write_stop * scale
            grown = np.empty((bottom - strip_top, *strip.shape[1:]), strip.dtype)
            grown[: len(strip)] = strip
            strip = grown
            for column, piece in self._pieces(row):
                ramp_left = column.ramp * scale
                tiling.paste(strip, piece, top - strip_top, column.write_start * scale, row.ramp * scale, ramp_left)
            is_last = number == len(self._rows) - 1
            final = bottom if is_last else self._rows[number + 1].write_start * scale
            self._sink.add(strip[: final - strip_top])
            strip, strip_top = strip[final - strip_top :], final
        return self._sink.result

    def _pieces(self, row: tiling.Span) -> Iterator[tuple[tiling.Span, NDArray[Any]]]:
        """The finished pieces of one row of tiles, in order, as (h, w, C) integer pixels."""
        batch = 1 if self._network.device == "cpu" else _CUDA_BATCH
        for start in range(0, len(self._columns), batch):
            columns = self._columns[start : start + batch]
            windows = [
                self._pixels[row.start : row.start + row.length, column.start : column.start + column.length]
                for column in columns
            ]
            out = self._restore(self._to_tensor(windows))
            for column, sample in zip(columns, out, strict=True):
                yield column, self._to_pixels(sample, row, column)

    def _to_tensor(self, windows: list[NDArray[Any]]) -> Tensor:
        stacked = np.stack(windows)
        host = torch.from_numpy(stacked if stacked.dtype == np.uint8 else stacked.astype(np.int32))
        moved = host.to(self._network.device, non_blocking=True)
        return moved.permute(0, 3, 1, 2).to(torch.float32).div_(self._peak)  # (N, 3, h, w)

    def _restore(self, x: Tensor) -> Tensor:
        """(N, 3, h, w) to (N, 3, sh, sw), checked, the bad samples done again in fp32."""
        self._report.tiles += len(x)
        out = self._forward(self._network, x)
        good = _looks_sane(x, out)
        if not all(good) and self._network.precision != "fp32":
            bad = [i for i, fine in enumerate(good) if not fine]
            self._report.redone_in_fp32 += len(bad)
            again = self._forward(self._network.exact(), x[bad])
            out[bad] = again
            good = _looks_sane(x[bad], again)
        if not all(good):
            raise Internal(
                "bad_network_output", "The network gave an unusable picture; try another model or PRECISION=fp32."
            )
        return out

    def _forward(self, network: Network, x: Tensor) -> Tensor:
        if not self._plan.ensemble:
            return self._told(network(x, self._on_part(len(x))), len(x))
        total: Tensor | None = None
        for turn in range(8):
            out = _deaugment(self._told(network(_augment(x, turn), self._on_part(len(x))), len(x)), turn)
            total = out.clone() if total is None else total.add_(out)
        assert total is not None
        return total.div_(8)

    def _told(self, out: Tensor, runs: int) -> Tensor:
        """Count finished runs and ask whether to go on."""
        self._on_part(runs)(1.0)
        self._done = min(self._done + runs, self._runs)
        return out

    def _on_part(self, runs: int) -> OnPart:
        """What a network tells while it computes `runs` samples."""

        def tell(fraction: float) -> None:
            if not self._on_tile(min(self._done + fraction * runs, self._runs) / self._runs):
                raise Cancelled

        return tell

    def _to_pixels(self, sample: Tensor, row: tiling.Span, column: tiling.Span) -> NDArray[Any]:
        scale = self._network.facts.scale
        top, left = (row.write_start - row.start) * scale, (column.write_start - column.start) * scale
        bottom, right = (row.write_stop - row.start) * scale, (column.write_stop - column.start) * scale
        kept = sample[:, top:bottom, left:right]  # (3, h, w)
        size = (bottom - top, right - left, self._channels)
        out = torch.empty(size, dtype=torch.uint8 if self._peak == 255 else torch.int32, device=kept.device)
        step = _BAND_ROWS if self._network.device == "cpu" else size[0]
        for start in range(0, size[0], step):
            band = kept[:, start : start + step].clamp(0.0, 1.0)
            if self._plan.grey:
                weights = torch.tensor(LUMA, device=kept.device).view(3, 1, 1)
                band = (band * weights).sum(0, keepdim=True)  # (1, rows, w)
            out[start : start + step] = band.mul_(self._peak).round_().permute(1, 2, 0)
        return out.cpu().numpy().astype(self._pixels.dtype, copy=False)


def _pad(pixels: NDArray[Any], multiple: int) -> NDArray[Any]:
    """Reflect-pad bottom and right to a multiple, as RealESRGANer's mod_pad; tiny sides repeat their edge."""
    height, width = pixels.shape[:2]
    pad = ((0, -height % multiple), (0, -width % multiple), (0, 0))
    if not any(after for _, after in pad):
        return pixels
    return np.pad(pixels, pad, mode="reflect" if min(height, width) > multiple else "edge")


def _looks_sane(x: Tensor, out: Tensor) -> list[bool]:
    """For each sample: finite everywhere, and not flat where the input was not."""
    spread_in = x.amax((1, 2, 3)) - x.amin((1, 2, 3))
    low, high = out.amin((1, 2, 3)), out.amax((1, 2, 3))  # a NaN anywhere makes both NaN
    finite = torch.isfinite(low) & torch.isfinite(high)
    went_flat = (spread_in > _NOT_FLAT) & (high.clamp(0, 1) - low.clamp(0, 1) < _FLAT)
    verdict: list[bool] = (finite & ~went_flat).tolist()
    return verdict


def _augment(x: Tensor, turn: int) -> Tensor:
    """The turn-th of the 8 symmetries of the square; `_deaugment` is its inverse."""
    if turn & 1:
        x = x.flip(3)
    if turn & 2:
        x = x.flip(2)
    return x.transpose(2, 3) if turn & 4 else x


def _deaugment(x: Tensor, turn: int) -> Tensor:
    if turn & 4:
        x = x.transpose(2, 3)
    if turn & 2:
        x = x.flip(2)
    return x.flip(3) if turn & 1 else x
