"""The engine border: a whole plane and a grid of tiles go in, finished rows of the enlarged plane come out.

What runs the network, where its buffers lie and in which order windows are computed is the engine's own business. Its
contract suite is `tests/test_engine_contract.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import Any, Protocol

from numpy.typing import NDArray

from app.restoration.models.networks import Facts
from app.restoration.tiling import MIN_TILE_PIXELS, Span
from app.stages import OnFraction

LUMA = (0.299, 0.587, 0.114)  # BT.601 full range, for RGB; as cv2.COLOR_RGB2GRAY


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How planes are cut for an engine. It is fixed when the engine is opened; only out of memory makes it smaller.

    Attributes:
        tile: side of a tile in input pixels, `MIN_TILE_PIXELS` or more.
        batch: how many windows may go through the network at once.
        step: windows measure multiples of so many pixels, so that few shapes occur.
        strict: memory has decided, so no tile may be larger; else one may be up to half above where that saves a tile.
    """

    tile: int
    batch: int = 1
    step: int = 1
    strict: bool = False

    def smaller(self, grid: Grid, batch: int) -> Tiling | None:
        """What to try after memory ran out with this grid and so many windows at once; None: nothing smaller is left.

        First the batch is halved, then the tile.
        """
        if batch > 1:
            return dataclasses.replace(self, tile=grid.tile, batch=batch // 2, strict=True)
        if grid.tile <= MIN_TILE_PIXELS:
            return None
        longest = max(grid.rows[-1].write_stop, grid.columns[-1].write_stop)
        half = max(MIN_TILE_PIXELS, min(grid.tile, longest) // 2)
        return dataclasses.replace(self, tile=half, batch=1, strict=True)


class TileTooLarge(Exception):
    """The device has too little memory for windows of this grid: cut it by `tiling` and start the plane again.

    `tiling` is None when nothing smaller is left.
    """

    def __init__(self, tiling: Tiling | None) -> None:
        super().__init__("out of memory" if tiling is None else f"out of memory; tiles of {tiling.tile} pixels may do")
        self.tiling = tiling


@dataclasses.dataclass(frozen=True)
class Plane:
    """What is enlarged. The caller leaves it unchanged until the rows have ended.

    Attributes:
        pixels: (H, W, 3), uint8 in [0, 255] or uint16 in [0, 65535], RGB; H and W are multiples of `facts.multiple`.
        grey: the rows have one channel, the BT.601 luma of the network's three.
        ensemble: the mean over the 8 symmetries of the square (arXiv:1707.02921, section 3.3) instead of one run.
    """

    pixels: NDArray[Any]
    grey: bool = False
    ensemble: bool = False


@dataclasses.dataclass(frozen=True)
class Grid:
    """How a plane is cut: each row of tiles against each column, in input pixels; all windows have one shape.

    `tile` is the side that was aimed at.
    """

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    tile: int


@dataclasses.dataclass(frozen=True)
class Rows:
    """The next finished rows, from top to bottom without a gap.

    Attributes:
        pixels: (n, W * scale, C), dtype of the plane, C is 1 or 3; valid until the next rows are asked for.
        tiles: how many tiles were computed for them.
        redone_in_fp32: how many of those reduced precision had spoiled.
    """

    pixels: NDArray[Any]
    tiles: int
    redone_in_fp32: int


class Engine(Protocol):
    """One network, ready to run on one device. Between two planes it holds its weights and nothing of a photo.

    The properties may be read from any thread. One plane is enlarged at a time, and one thread asks for all its rows;
    the next plane may come from another thread.
    """

    @property
    def facts(self) -> Facts:
        """Scale, context, blend and multiple of the network, which the grid must respect; never change."""
        ...

    @property
    def precision(self) -> str:
        """fp32, bf16 or fp16: what the body of the network runs in; never changes."""
        ...

    @property
    def tiling(self) -> Tiling:
        """The tiles and batches that suit the network and the device; smaller after `TileTooLarge`, never larger."""
        ...

    def rows(self, plane: Plane, grid: Grid, on_fraction: OnFraction) -> Generator[Rows, None, None]:
        """Enlarge the plane by `facts.scale`, and give its rows from top to bottom as they are finished.

        Nothing is computed before the first rows are asked for, and no tile is begun after the iterator was closed.
        After the last rows H * `facts.scale` of them have been given, and the last call of `on_fraction` said 1. After
        the end, closing or an error, the engine holds nothing of the plane and takes the next one.

        Args:
            plane: what to enlarge; never written to.
            grid: spans that cover the plane, cut with this engine's `facts`.
            on_fraction: called in the thread that asks for rows, after each run of the network (of one or a few
                tiles) or oftener, with growing values; after it said stop, no tile is begun.

        Raises:
            Cancelled: `on_fraction` said stop.
            TileTooLarge: out of memory, with the tiling to try next, which is the engine's own from then on; what was
                allocated for the plane has been given back before it is raised.
            Internal: `bad_network_output`, when a tile is not finite, or flat where the photo is not, in fp32 too.
                No such tile is ever given.
            RuntimeError: any other failure of the device, as torch raised it.
        """
        ...
