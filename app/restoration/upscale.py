"""Enlarges one plane of a picture with an engine: grid, rows, resampling to the asked size, smaller tiles on demand.

Out of memory halves the tile and starts the plane again; no failed tile is ever papered over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import OutOfMemory
from app.restoration import tiling
from app.restoration.engine import Engine, Grid, Plane, TileTooLarge, Tiling
from app.restoration.models.networks import Facts
from app.restoration.resample import make_sink
from app.stages import OnFraction

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class UpscalePlan:
    """How to run.

    Attributes:
        size_out: (height, width) of the result, in pixels.
        tile: side of a tile in input pixels; 0: the engine's own.
        ensemble: the mean over the 8 symmetries of the square.
        grey: one channel, the BT.601 luma, instead of three.
    """

    size_out: tuple[int, int]
    tile: int = 0
    ensemble: bool = False
    grey: bool = False


@dataclasses.dataclass
class UpscaleReport:
    """What happened on the way.

    Attributes:
        tile: side of the tiles of the last pass, in input pixels.
        tiles: how many were computed in it.
        redone_in_fp32: how many of those reduced precision had spoiled.
        restarts: how often memory ran out, and the plane was started again.
    """

    tile: int = 0
    tiles: int = 0
    redone_in_fp32: int = 0
    restarts: int = 0


def upscale(
    engine: Engine, pixels: NDArray[Any], plan: UpscalePlan, on_fraction: OnFraction
) -> tuple[NDArray[Any], UpscaleReport]:
    """Upscale one plane.

    Args:
        engine: what runs the network.
        pixels: (H, W, 3) uint8 or uint16, RGB.
        plan: sizes and ways; with `plan.grey` the result has one channel, the BT.601 luma of the network's three.
        on_fraction: told the fraction done after each run of the network, and within it where a run takes long.

    Returns:
        (H_out, W_out, 3), or (H_out, W_out, 1) with `plan.grey`, of the same dtype, and the report.

    Raises:
        Cancelled: `on_fraction` said stop. OutOfMemory: the smallest tile does not fit. Internal: `bad_network_output`.
    """
    report, chosen = UpscaleReport(), _chosen_tiling(engine.tiling, plan.tile)
    while True:
        report.tile, report.tiles, report.redone_in_fp32 = chosen.tile, 0, 0
        try:
            return _one_pass(engine, pixels, plan, chosen, on_fraction, report), report
        except TileTooLarge as error:
            log.warning("out of memory at tile %d", report.tile)
            smaller = error.tiling
        if smaller is None:
            raise OutOfMemory(
                "out_of_memory", "The device has too little memory for the smallest tile; free some or use a CPU."
            )
        chosen = smaller
        report.restarts += 1


def _chosen_tiling(own: Tiling, asked: int) -> Tiling:
    """The engine's tiling, with the tile that was asked for (0: none was), unless memory has decided on a smaller."""
    if asked and not (own.strict and own.tile < asked):
        return dataclasses.replace(own, tile=asked, strict=True)
    return own


def _one_pass(
    engine: Engine,
    pixels: NDArray[Any],
    plan: UpscalePlan,
    chosen: Tiling,
    on_fraction: OnFraction,
    report: UpscaleReport,
) -> NDArray[Any]:
    """The whole plane with one tiling; counts in the report."""
    facts = engine.facts
    height, width = pixels.shape[:2]
    padded = _pad(pixels, facts.multiple)
    size_in = (height * facts.scale, width * facts.scale)
    sink = make_sink(size_in, plan.size_out, 1 if plan.grey else 3, pixels.dtype)
    grid = cut_grid(facts, padded.shape[:2], chosen.tile, step=chosen.step, strict=chosen.strict)
    with contextlib.closing(engine.rows(Plane(padded, plan.grey, plan.ensemble), grid, on_fraction)) as finished:
        for rows in finished:
            sink.add(rows.pixels)
            report.tiles += rows.tiles
            report.redone_in_fp32 += rows.redone_in_fp32
            del rows  # it would keep the whole strip alive while the next one is computed
    return sink.result


def cut_grid(facts: Facts, size: tuple[int, ...], tile: int, *, strict: bool, step: int = 1) -> Grid:
    """The grid for a plane of `size` (height, width) at tiles of about `tile` pixels a side; `strict`: never above.

    Windows measure multiples of `step` pixels, unless the plane is smaller than one.
    """
    rows, columns = (
        tuple(tiling.cut(side, tile, facts.context, facts.blend, facts.multiple, step=step, strict=strict))
        for side in size
    )
    return Grid(rows, columns, tile)


def _pad(pixels: NDArray[Any], multiple: int) -> NDArray[Any]:
    """(H, W, 3) to sides that are multiples, reflected at bottom and right as RealESRGANer's mod_pad.

    Tiny sides repeat their edge.
    """
    height, width = pixels.shape[:2]
    pad = ((0, -height % multiple), (0, -width % multiple), (0, 0))
    if not any(after for _, after in pad):
        return pixels
    return np.pad(pixels, pad, mode="reflect" if min(height, width) > multiple else "edge")
