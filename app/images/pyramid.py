"""A pyramid: a picture at its full size, at half of it, at a quarter and so on, cut into JPEG tiles in one file.

Any tile is found without reading the others: behind the tiles stands an index with the place and the length of each,
level by level from the full size down to the one that fits one tile, and in each by rows.
"""

from __future__ import annotations

import os
import struct
import threading
from typing import BinaryIO

from app.errors import NotFound

TILE_PIXELS = 1024
LARGE_PIXELS = 32_000_000  # from here on browsers are given tiles and not the picture itself
ENTRY = struct.Struct("<QI")  # where a tile begins, and its length in bytes
_MOST_TILE_BYTES = 16 * 1024 * 1024


def level_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """Width and height of each level: the whole picture first, then halves (rounded up) until one tile holds it."""
    sizes = [(width, height)]
    while max(sizes[-1]) > TILE_PIXELS:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def tile_counts(width: int, height: int) -> list[tuple[int, int]]:
    """Columns and rows of tiles of each level."""
    return [(-(-w // TILE_PIXELS), -(-h // TILE_PIXELS)) for w, h in level_sizes(width, height)]


class Pyramid:
    """The tiles in a file that nobody else writes; usable from any thread, and closed once for all of them."""

    def __init__(self, file: BinaryIO, width: int, height: int, index_at: int) -> None:
        """Raises ValueError where the index is cut short, or names what is not in the file."""
        self.width, self.height = width, height
        self._file, self._lock = file, threading.Lock()
        self._counts = tile_counts(width, height)
        self.bytes = os.fstat(file.fileno()).st_size
        self._index = os.pread(file.fileno(), ENTRY.size * sum(c * r for c, r in self._counts), index_at)
        if len(self._index) != ENTRY.size * sum(c * r for c, r in self._counts):
            raise ValueError("the index is cut short")
        if any(start + size > index_at or size > _MOST_TILE_BYTES for start, size in ENTRY.iter_unpack(self._index)):
            raise ValueError("the index names what is not there")

    def tile(self, level: int, x: int, y: int) -> bytes:
        """JPEG bytes of the tile in column `x` and row `y` of a level; 0 is the full size.

        Raises `NotFound`: `tile_not_found`, or `result_not_found` once it is closed.
        """
        place = self._place(level, x, y)
        start, size = ENTRY.unpack_from(self._index, ENTRY.size * place)
        with self._lock:
            if self._file.closed:
                raise NotFound("result_not_found", "The file is not there any more; ask again.")
            return os.pread(self._file.fileno(), size, start)

    def smallest_level(self, longer_side: int) -> int:
        """The level with the fewest pixels whose longer side has at least so many; 0 where none has."""
        sizes = level_sizes(self.width, self.height)
        return max((level for level, size in enumerate(sizes) if max(size) >= longer_side), default=0)

    def rows(self, level: int) -> list[list[bytes]]:
        """All tiles of a level, row by row. Raises as `tile` does."""
        columns, rows = self._counts[level]
        return [[self.tile(level, x, y) for x in range(columns)] for y in range(rows)]

    def close(self) -> None:
        """Give the disk space back."""
        with self._lock:
            self._file.close()

    def _place(self, level: int, x: int, y: int) -> int:
        if not 0 <= level < len(self._counts):
            raise NotFound("tile_not_found", f"There is no such level; there are {len(self._counts)}, from 0.")
        columns, rows = self._counts[level]
        if not (0 <= x < columns and 0 <= y < rows):
            raise NotFound("tile_not_found", f"There is no such tile; this level has {columns} x {rows}.")
        return sum(c * r for c, r in self._counts[:level]) + y * columns + x
