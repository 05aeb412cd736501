"""Enlarges one plane of a picture with an engine: grid, rows, resampling to the asked size, smaller tiles on demand.

Out of memory halves the tile and starts the plane again; no failed tile is ever papered over.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import OutOfMemory
from app.restoration import tiling
from app.restoration.engine import Engine, Grid, Plane, Tell, TileTooLarge
from app.restoration.host_engine import SMALLEST_TILE_PIXELS
from app.restoration.resample import make_sink

log = logging.getLogger(__name__)


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


def upscale(engine: Engine, pixels: NDArray[Any], plan: Plan, tell: Tell) -> tuple[NDArray[Any], Report]:
    """Upscale one plane.

    Args:
        engine: what runs the network.
        pixels: (H, W, 3) uint8 or uint16, RGB.
        plan: sizes and ways; with `plan.grey` the result has one channel, the BT.601 luma of the network's three.
        tell: told the fraction done after each run of the network, and within it where a run takes long.

    Returns:
        (H_out, W_out, 3), or (H_out, W_out, 1) with `plan.grey`, of the same dtype, and the report.

    Raises:
        Cancelled: `tell` said stop. OutOfMemory: the smallest tile does not fit. Internal: `bad_network_output`.
    """
    report = Report(tile=plan.tile or engine.tile_pixels())
    while True:
        report.tiles = report.redone_in_fp32 = 0
        try:
            return _one_pass(engine, pixels, plan, tell, report), report
        except TileTooLarge:
            log.warning("out of memory at tile %d", report.tile)
        if report.tile <= SMALLEST_TILE_PIXELS:
            raise OutOfMemory(
                "out_of_memory", "The device has too little memory for the smallest tile; free some or use a CPU."
            )
        report.tile = max(SMALLEST_TILE_PIXELS, min(report.tile, max(pixels.shape[:2])) // 2)
        report.restarts += 1


def _one_pass(engine: Engine, pixels: NDArray[Any], plan: Plan, tell: Tell, report: Report) -> NDArray[Any]:
    """The whole plane at one tile size; counts in the report."""
    facts = engine.facts
    height, width = pixels.shape[:2]
    padded = _pad(pixels, facts.multiple)
    size_in = (height * facts.scale, width * facts.scale)
    sink = make_sink(size_in, plan.size_out, 1 if plan.grey else 3, pixels.dtype)
    # Where memory has decided once, or the user, no tile may be larger than said.
    grid = cut_grid(engine, padded, report.tile, strict=bool(plan.tile) or report.restarts > 0)
    for rows in engine.rows(Plane(padded, plan.grey, plan.ensemble), grid, tell):
        sink.add(rows.pixels)
        report.tiles += rows.tiles
        report.redone_in_fp32 += rows.redone_in_fp32
    return sink.result


def cut_grid(engine: Engine, pixels: NDArray[Any], tile: int, *, strict: bool) -> Grid:
    """The grid for a plane (H, W, 3) at tiles of about `tile` pixels a side; `strict`: never above."""
    facts = engine.facts
    rows, columns = (
        tuple(tiling.cut(size, tile, facts.context, facts.blend, facts.multiple, strict=strict))
        for size in pixels.shape[:2]
    )
    return Grid(rows, columns)


def _pad(pixels: NDArray[Any], multiple: int) -> NDArray[Any]:
    """Reflect-pad bottom and right to a multiple, as RealESRGANer's mod_pad; tiny sides repeat their edge."""
    height, width = pixels.shape[:2]
    pad = ((0, -height % multiple), (0, -width % multiple), (0, 0))
    if not any(after for _, after in pad):
        return pixels
    return np.pad(pixels, pad, mode="reflect" if min(height, width) > multiple else "edge")
