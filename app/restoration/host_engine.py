"""The engine whose canvas and loop live in host memory: windows go to the network's device, pieces come back.

Every tile is checked and, when reduced precision spoiled it, done again in fp32. It serves every device that torch
knows; a loop that keeps the canvas on a card would be an engine beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.errors import Cancelled, Internal
from app.restoration import tiling
from app.restoration.device_errors import is_out_of_memory
from app.restoration.device_memory import free_memory_bytes, release_memory, total_memory_bytes
from app.restoration.engine import LUMA, Grid, Plane, Rows, TileTooLarge, Tiling
from app.restoration.models.networks import Facts, Network, OnPart
from app.stages import OnFraction

log = logging.getLogger(__name__)

_SYMMETRIES = 8
_FLAT = 1.0 / 1024  # a spread below this is flat
_NOT_FLAT = 16.0 / 255
_BYTES_PER_FEATURE_MAP = 64 * 4  # 64 channels, 4 bytes
_FULL_WINDOW_PIXELS = 384 * 384  # from here on one window keeps a card busy (arithmetic, not measured)


class HostEngine:
    """Runs one `Network` over planes; see `Engine`. Nothing of a plane is kept on it.

    Args:
        network: what is run.
        tiling: where an engine for the same network left off; None: chosen by the device's memory.
    """

    def __init__(self, network: Network, tiling: Tiling | None = None) -> None:
        self._network = network
        self._tiling = tiling or tiling_for(network)

    @property
    def facts(self) -> Facts:
        """See `Engine`."""
        return self._network.facts

    @property
    def precision(self) -> str:
        """See `Engine`."""
        return self._network.precision

    @property
    def tiling(self) -> Tiling:
        """See `Engine`."""
        return self._tiling

    def rows(self, plane: Plane, grid: Grid, on_fraction: OnFraction) -> Generator[Rows, None, None]:
        """See `Engine`."""
        try:
            yield from _Pass(self._network, plane, grid, self._tiling.batch, on_fraction).rows()
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            log.warning("out of memory at windows of %d x %d", grid.rows[0].length, grid.columns[0].length)
        # Outside the handler, whose traceback would keep the tensors alive.
        release_memory(self._network.device)
        smaller = self._tiling.smaller(grid, batch_for(grid, self._tiling.batch))
        self._tiling = smaller or self._tiling
        raise TileTooLarge(smaller)


def tiling_for(network: Network) -> Tiling:
    """The profile's tile for the architecture, within a quarter of the device's memory, and what fits beside it.

    On a card all memory counts, not what is free, so that a photo is always cut alike; on a CPU what is free.
    """
    facts, profile, device = network.facts, network.profile, network.device
    room = (total_memory_bytes(device) if profile.fixed_tiling else free_memory_bytes(device)) // 4
    tile = profile.tile_pixels[facts.architecture] * facts.multiple
    # A pixel of the tile takes at the peak about 4 feature maps. ESRGAN has four times that (measured: 3 KB), and
    # where its end is not made in bands, `scale` times the size.
    maps = 1 if facts.architecture == "compact" else 4 if profile.tail_band_rows else facts.scale**2
    bytes_per_pixel = 4 * _BYTES_PER_FEATURE_MAP * maps
    while tile > tiling.MIN_TILE_PIXELS and (tile + 2 * facts.context) ** 2 * bytes_per_pixel > room:
        tile //= 2
    window_bytes = (tile + 2 * facts.context) ** 2 * bytes_per_pixel
    batch = profile.batch
    while batch > 1 and batch * window_bytes > room:
        batch //= 2
    return Tiling(tile, batch, profile.window_step)


def batch_for(grid: Grid, most: int) -> int:
    """How many windows of this grid go through the network at once: `most` small ones, or one that is large."""
    if grid.rows[0].length * grid.columns[0].length >= _FULL_WINDOW_PIXELS:
        return 1
    return min(most, len(grid.columns))


class _Pass:
    """One pass over one plane with one grid. Lives for one call; holds nothing between photos."""

    def __init__(self, network: Network, plane: Plane, grid: Grid, most: int, on_fraction: OnFraction) -> None:
        self._network, self._plane, self._grid, self._on_fraction = network, plane, grid, on_fraction
        self._batch = batch_for(grid, most)
        self._runs = len(grid.rows) * len(grid.columns) * (_SYMMETRIES if plane.ensemble else 1)
        self._done = 0
        self._channels = 1 if plane.grey else 3
        self._peak = float(np.iinfo(plane.pixels.dtype).max)
        self._redone = 0

    def rows(self) -> Iterator[Rows]:
        """Row of tiles by row of tiles; rows leave as soon as no later tile blends into them."""
        scale, pixels = self._network.facts.scale, self._plane.pixels
        strip_top = 0  # output row of the strip's first row
        strip: NDArray[Any] = np.empty((0, pixels.shape[1] * scale, self._channels), pixels.dtype)
        for number, row in enumerate(self._grid.rows):
            bottom = row.write_stop * scale
            strip = _grown(strip, bottom - strip_top)
            self._redone = 0
            self._compute(row, strip, row.write_start * scale - strip_top)
            is_last = number == len(self._grid.rows) - 1
            final = bottom if is_last else self._grid.rows[number + 1].write_start * scale
            yield Rows(strip[: final - strip_top], len(self._grid.columns), self._redone)
            strip, strip_top = strip[final - strip_top :], final

    @torch.inference_mode()
    def _compute(self, row: tiling.Span, strip: NDArray[Any], top: int) -> None:
        """Paste one row of tiles into the strip, in place. Not a generator: the mode must end before rows leave."""
        scale = self._network.facts.scale
        for column, piece in self._pieces(row):
            tiling.paste(strip, piece, top, column.write_start * scale, row.ramp * scale, column.ramp * scale)

    def _pieces(self, row: tiling.Span) -> Iterator[tuple[tiling.Span, NDArray[Any]]]:
        """The finished pieces of one row of tiles, in order, as (h, w, C) integer pixels."""
        batch, pixels = self._batch, self._plane.pixels
        for start in range(0, len(self._grid.columns), batch):
            columns = self._grid.columns[start : start + batch]
            windows = [
                pixels[row.start : row.start + row.length, column.start : column.start + column.length]
                for column in columns
            ]
            out = self._restore(self._to_tensor(windows))
            for column, sample in zip(columns, out, strict=True):
                yield column, self._to_pixels(sample, row, column)

    def _to_tensor(self, windows: list[NDArray[Any]]) -> Tensor:
        """N windows (h, w, 3), uint8 or uint16, to (N, 3, h, w) fp32 in [0, 1] on the network's device."""
        stacked = np.stack(windows)
        host = torch.from_numpy(stacked if stacked.dtype == np.uint8 else stacked.astype(np.int32))  # (N, h, w, 3)
        moved = host.to(self._network.device, non_blocking=True)
        return moved.permute(0, 3, 1, 2).to(torch.float32).div_(self._peak)  # (N, 3, h, w)

    def _restore(self, x: Tensor) -> Tensor:
        """(N, 3, h, w) to (N, 3, sh, sw), checked, the bad samples done again in fp32."""
        out = self._forward(self._network, x)
        good = _looks_sane(x, out)
        if not all(good) and self._network.precision != "fp32":
            bad = [i for i, fine in enumerate(good) if not fine]
            self._redone += len(bad)
            again = self._forward(self._network.exact(), x[bad])
            out[bad] = again
            good = _looks_sane(x[bad], again)
        if not all(good):
            raise Internal(
                "bad_network_output", "The network gave an unusable picture; try another model or PRECISION=fp32."
            )
        return out

    def _forward(self, network: Network, x: Tensor) -> Tensor:
        """One run of the samples, or the mean over the 8 symmetries; (N, 3, h, w) to (N, 3, sh, sw)."""
        if not self._plane.ensemble:
            return self._counted(network(x, self._on_part(len(x))), len(x))
        total: Tensor | None = None
        for symmetry in range(_SYMMETRIES):
            made = self._counted(network(_augment(x, symmetry), self._on_part(len(x))), len(x))
            out = _deaugment(made, symmetry)
            total = out.clone() if total is None else total.add_(out)
        assert total is not None
        return total.div_(_SYMMETRIES)

    def _counted(self, out: Tensor, runs: int) -> Tensor:
        """Count finished runs and ask whether to go on."""
        self._on_part(runs)(1.0)
        self._done = min(self._done + runs, self._runs)
        return out

    def _on_part(self, runs: int) -> OnPart:
        """What a network calls while it computes `runs` samples."""

        def report(fraction: float) -> None:
            if not self._on_fraction(min(self._done + fraction * runs, self._runs) / self._runs):
                raise Cancelled

        return report

    def _to_pixels(self, sample: Tensor, row: tiling.Span, column: tiling.Span) -> NDArray[Any]:
        """One sample (3, sh, sw) fp32, cut to what its tile writes, clamped and rounded, as (h, w, C) integers."""
        scale = self._network.facts.scale
        top, left = (row.write_start - row.start) * scale, (column.write_start - column.start) * scale
        bottom, right = (row.write_stop - row.start) * scale, (column.write_stop - column.start) * scale
        kept = sample[:, top:bottom, left:right]  # (3, h, w)
        size = (bottom - top, right - left, self._channels)
        out = torch.empty(size, dtype=torch.uint8 if self._peak == 255 else torch.int32, device=kept.device)
        step = self._network.profile.pixel_band_rows or size[0]
        for start in range(0, size[0], step):
            band = kept[:, start : start + step].clamp(0.0, 1.0)
            if self._plane.grey:
                weights = torch.tensor(LUMA, device=kept.device).view(3, 1, 1)
                band = (band * weights).sum(0, keepdim=True)  # (1, rows, w)
            out[start : start + step] = band.mul_(self._peak).round_().permute(1, 2, 0)  # (rows, w, C)
        return out.cpu().numpy().astype(self._plane.pixels.dtype, copy=False)


def _grown(strip: NDArray[Any], rows: int) -> NDArray[Any]:
    """The strip with room for `rows` rows, what it holds at its top."""
    grown = np.empty((rows, *strip.shape[1:]), strip.dtype)
    grown[: len(strip)] = strip
    return grown


def _looks_sane(x: Tensor, out: Tensor) -> list[bool]:
    """For each sample of (N, 3, h, w): finite everywhere, and not flat where the input was not."""
    spread_in = x.amax((1, 2, 3)) - x.amin((1, 2, 3))
    low, high = out.amin((1, 2, 3)), out.amax((1, 2, 3))  # a NaN anywhere makes both NaN
    finite = torch.isfinite(low) & torch.isfinite(high)
    went_flat = (spread_in > _NOT_FLAT) & (high.clamp(0, 1) - low.clamp(0, 1) < _FLAT)
    verdict: list[bool] = (finite & ~went_flat).tolist()
    return verdict


def _augment(x: Tensor, symmetry: int) -> Tensor:
    """(N, C, h, w) under one of the 8 symmetries of the square; `_deaugment` is its inverse."""
    if symmetry & 1:
        x = x.flip(3)
    if symmetry & 2:
        x = x.flip(2)
    return x.transpose(2, 3) if symmetry & 4 else x


def _deaugment(x: Tensor, symmetry: int) -> Tensor:
    if symmetry & 4:
        x = x.transpose(2, 3)
    if symmetry & 2:
        x = x.flip(2)
    return x.flip(3) if symmetry & 1 else x
