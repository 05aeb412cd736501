"""The engine border: a whole plane and a grid of tiles go in, finished rows of the enlarged plane come out.

What runs the network, where its buffers lie and in which order windows are computed is the engine's own business. Its
contract suite is `tests/test_engine_contract.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from numpy.typing import NDArray

from app.restoration.models.networks import Facts
from app.restoration.tiling import Span

Tell = Callable[[float], bool]  # fraction of this plane done, in [0, 1]; False: stop


class TileTooLarge(Exception):
    """The device has too little memory for windows of this grid: cut a smaller one and start the plane again."""


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
    """How a plane is cut: each row of tiles against each column, in input pixels; all windows have one shape."""

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]


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
    """One network, ready to run on one device. `rows` may be asked for from one thread at a time."""

    @property
    def facts(self) -> Facts:
        """Scale, context, blend and multiple of the network, which the grid must respect."""
        ...

    @property
    def precision(self) -> str:
        """fp32, bf16 or fp16."""
        ...

    def tile_pixels(self) -> int:
        """The tile side that suits the network and the device's memory."""
        ...

    def rows(self, plane: Plane, grid: Grid, tell: Tell) -> Iterator[Rows]:
        """Enlarge the plane by `facts.scale`; computing goes on only while rows are asked for.

        `tell` is called from the asking thread at least once a tile. Closing the iterator ends the work.

        Raises:
            Cancelled: `tell` said stop.
            TileTooLarge: out of memory; whatever was allocated for the plane has been given back.
            Internal: `bad_network_output`, when a tile is unusable in fp32 too. No bad tile is ever let through.
        """
        ...
