"""The directories of a TIFF file, classic and BigTIFF, read with every offset, count and size bounded.

Nothing here decodes a pixel: the header check of an upload asks only this, and so does the reader of the pixels.
"""

from __future__ import annotations

import dataclasses
import math
import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal

import numpy as np

MAX_DIRECTORIES = 1000
_MAX_ENTRIES_EACH, _MAX_ENTRIES = 4096, 40_000
_MAX_NUMBERS = 1 << 20
_MAX_CHILDREN = 32
_MAX_BLOCK_BYTES = 32 << 20
_SUB_DIRECTORIES = 330
# Codes and bytes of one value by type; texts, UNDEFINED and rationals are read as bytes by whoever needs them.
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a directory: type, count of values, where in the file they stand, and small ones themselves."""

    type: int
    count: int
    position: int
    inline: bytes | None

    @property
    def size(self) -> int:
        """Bytes that the values take."""
        return _VALUE_BYTES.get(self.type, 1) * self.count


class TiffReader:
    """The header of a TIFF and access to its directories. Raises ValueError for what is no TIFF."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        head = self.bytes_at(0, 16)
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        if not self.order or len(head) < 8:
            raise ValueError("not a TIFF file")
        magic, self.first_directory = struct.unpack_from(f"{self.order}HI", head, 2)
        self.is_big = magic == 43
        if self.is_big:
            if len(head) < 16:
                raise ValueError("the header of the BigTIFF is cut off")
            self.first_directory = struct.unpack_from(f"{self.order}Q", head, 8)[0]
        self.complete = True
        self._entries_left, self._directories_left = _MAX_ENTRIES, MAX_DIRECTORIES

    def bytes_at(self, position: int, count: int) -> bytes:
        """Up to `count` bytes from `position`; fewer where the file ends."""
        if not 0 <= position < self.size:
            return b""
        self._file.seek(position)
        return self._file.read(min(count, self.size - position))

    def directory(self, position: int) -> Directory:
        """The directory at a position. Raises ValueError where there is none, or when too many were read already."""
        self._directories_left -= 1
        counter, entry = ("Q", f"{self.order}HHQ8s") if self.is_big else ("H", f"{self.order}HHI4s")
        width = struct.calcsize(f"<{counter}")
        head = self.bytes_at(position, width)
        if len(head) < width or position < 8:
            raise ValueError("a directory lies outside the file")
        count = struct.unpack(f"{self.order}{counter}", head)[0]
        size = struct.calcsize(entry)
        self._entries_left -= min(count, _MAX_ENTRIES_EACH)
        if not 0 < count <= _MAX_ENTRIES_EACH or self._entries_left < 0 or self._directories_left < 0:
            raise ValueError("a directory has no entries, or too many")
        table = self.bytes_at(position + width, count * size + struct.calcsize("<Q" if self.is_big else "<I"))
        if len(table) < count * size:
            raise ValueError("a directory is cut off")
        entries = self._entries(table[: count * size], entry, position + width)
        link = table[count * size :]
        following = int.from_bytes(link, self._byte_order)
        return Directory(self, entries, following, position)

    def _entries(self, table: bytes, layout: str, start: int) -> dict[int, Entry]:
        """Entries by tag; of a repeated tag the first counts. Small values stand in the entry itself."""
        size, inline = (20, 8) if self.is_big else (12, 4)
        found: dict[int, Entry] = {}
        order = self._byte_order
        for index, (tag, kind, count, value) in enumerate(struct.iter_unpack(layout, table)):
            if tag in found or kind not in _VALUE_BYTES:
                continue
            if count * _VALUE_BYTES[kind] > inline:
                found[tag] = Entry(kind, count, int.from_bytes(value, order), None)
            else:
                found[tag] = Entry(kind, count, start + (index + 1) * size - inline, value)
        return found

    @property
    def _byte_order(self) -> Literal["little", "big"]:
        return "little" if self.order == "<" else "big"

    def chain(self) -> Iterator[Directory]:
        """The directories of the file in order, up to one that cannot be read; then `complete` becomes False.

        Raises ValueError where not even the first can be read.
        """
        seen: set[int] = set()
        position = self.first_directory
        while position and position not in seen:
            seen.add(position)
            try:
                directory = self.directory(position)
            except ValueError:
                if len(seen) == 1:
                    raise
                self.complete = False
                return
            yield directory
            position = directory.following


@dataclasses.dataclass(frozen=True)
class Directory:
    """The entries of one directory by tag, its own position, and that of the next directory (0: there is none)."""

    reader: TiffReader
    entries: dict[int, Entry]
    following: int
    position: int

    def numbers(self, tag: int) -> tuple[Any, ...]:
        """All values of an entry of numbers; nothing for another entry, one outside the file or one far too long."""
        values = self.array(tag)
        return tuple(values[: 1 << 12].tolist())

    def array(self, tag: int) -> Any:
        """(N,) the values of an entry of numbers in the machine's byte order; empty where `numbers` would be."""
        entry = self.entries.get(tag)
        code = _CODES.get(entry.type) if entry else None
        if entry is None or code is None or entry.count > _MAX_NUMBERS:
            return np.empty(0, np.uint32)
        data = self.reader.bytes_at(entry.position, entry.size)
        if len(data) < entry.size:
            return np.empty(0, np.uint32)
        values = np.frombuffer(data, f"{self.reader.order}{code}")
        return values.astype(code)

    def number(self, tag: int, default: int) -> int:
        """The first value of an entry of whole numbers, or the default."""
        entry = self.entries.get(tag)
        if entry is None or entry.type not in _CODES:
            return default
        size = _VALUE_BYTES[entry.type]
        data = entry.inline or self.reader.bytes_at(entry.position, size)
        if entry.count < 1 or len(data) < size:
            return default
        value = struct.unpack_from(self.reader.order + _CODES[entry.type], data)[0]
        return int(value) if math.isfinite(value) else default

    def block(self, tag: int) -> bytes:
        """The bytes of an entry, whatever its type; nothing for one outside the file or one far too large."""
        entry = self.entries.get(tag)
        if entry is None or entry.size > _MAX_BLOCK_BYTES:
            return b""
        data = self.reader.bytes_at(entry.position, entry.size)
        return data if len(data) == entry.size else b""

    def children(self) -> Iterator[Directory]:
        """The directories that this one names as belonging to it; broken ones are passed over."""
        for position in self.numbers(_SUB_DIRECTORIES)[:_MAX_CHILDREN]:
            try:
                yield self.reader.directory(int(position))
            except ValueError:
                continue
