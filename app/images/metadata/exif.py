"""EXIF blocks, and the directories of a TIFF file, parsed into what they say.

Every entry is read by itself: one that leads outside, has an unknown type, or closes a circle costs itself only. Tags
that describe how the source file stores its pixels, and thumbnails, are not read at all.
"""

from __future__ import annotations

import dataclasses
import mmap
import struct
from collections.abc import Iterator

from app.images.metadata import exif_tags as tags

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
SIGNED_RATIONAL, FLOAT, DOUBLE = 10, 11, 12
MAX_BLOCK_BYTES = 4 * 1024 * 1024
_PREFIX = b"Exif\0\0"
_LONG8, _SIGNED_LONG8, _IFD8 = 16, 17, 18
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_MAX_ENTRIES = 1000
_ORDERS = {b"II": "<", b"MM": ">"}
_CLASSIC, _BIG = 42, 43

Buffer = bytes | mmap.mmap


@dataclasses.dataclass(frozen=True)
class Value:
    """What one entry holds: its TIFF type and its bytes, in the byte order of the block."""

    type: int
    data: bytes

    @property
    def count(self) -> int:
        """Number of values of that type."""
        return len(self.data) // _TYPE_BYTES[self.type]

    def integers(self, order: str) -> tuple[int, ...]:
        """The values as integers; none for types that hold no integers."""
        code = _CODES.get(self.type)
        return struct.unpack(f"{order}{self.count}{code}", self.data) if code else ()

    def text(self) -> str:
        """ASCII (in practice UTF-8 or Latin-1) text up to its last zero byte."""
        data = self.data.rstrip(b"\0 ")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode("latin-1")

    def swapped(self) -> Value:
        """The same values in the other byte order."""
        unit = 4 if self.type in (RATIONAL, SIGNED_RATIONAL) else _TYPE_BYTES[self.type]
        return Value(self.type, b"".join(self.data[i : i + unit][::-1] for i in range(0, len(self.data), unit)))


Directory = dict[int, Value]


@dataclasses.dataclass
class Exif:
    """The directories of one block. `maker_note_start` is where the maker note stood: offsets in it count on that.

    Attributes:
        order: "<" or ">", the byte order of every value (and of most maker notes).
        main: IFD0. `photo`: the Exif directory. `gps`, `interop`: as named. Pointers are not among the entries.
        embedded: XMP, IPTC and Photoshop blocks that stood in IFD0, by tag.
        damaged: whether any part could not be read.
    """

    order: str = "<"
    main: Directory = dataclasses.field(default_factory=dict)
    photo: Directory = dataclasses.field(default_factory=dict)
    gps: Directory = dataclasses.field(default_factory=dict)
    interop: Directory = dataclasses.field(default_factory=dict)
    embedded: Directory = dataclasses.field(default_factory=dict)
    maker_note_start: int | None = None
    damaged: bool = False

    def directories(self) -> Iterator[Directory]:
        """All directories that are written."""
        yield from (self.main, self.photo, self.gps, self.interop)

    def merge(self, other: Exif) -> None:
        """Take what this block lacks from another; a maker note only with the place it stood at."""
        for mine, theirs in zip(self.directories(), other.directories(), strict=True):
            for tag, value in theirs.items():
                if tag != tags.MAKER_NOTE:
                    mine.setdefault(tag, value if self.order == other.order else value.swapped())
        for tag, value in other.embedded.items():
            self.embedded.setdefault(tag, value)
        self.damaged |= other.damaged

    def in_order(self, order: str) -> Exif:
        """The same block in a byte order; its maker note is not where it stood."""
        if order == self.order:
            return dataclasses.replace(self, maker_note_start=None)
        main, photo, gps, interop = (
            {tag: value.swapped() for tag, value in directory.items()} for directory in self.directories()
        )
        return Exif(order, main, photo, gps, interop)

    def shorts(self, *values: int) -> Value:
        """Numbers as SHORTs, or as LONGs where 16 bits are too few."""
        wide = any(value > 0xFFFF for value in values)
        return Value(LONG if wide else SHORT, struct.pack(f"{self.order}{len(values)}{'I' if wide else 'H'}", *values))

    def rationals(self, *values: tuple[int, int]) -> Value:
        """Numerators with their denominators."""
        return Value(RATIONAL, b"".join(struct.pack(f"{self.order}II", *value) for value in values))


def parse(data: Buffer, max_bytes: int = MAX_BLOCK_BYTES, first_directory: int | None = None) -> Exif:
    """Parse a block (from its TIFF header on, or with the mark that JPEG puts before it) or a whole TIFF file.

    Args:
        data: the block; a TIFF or BigTIFF file as a memory map.
        max_bytes: how much all values together may take; what is beyond counts as damaged.
        first_directory: offset of the directory to take for IFD0, for another page of a TIFF.

    Raises:
        ValueError: it is no TIFF structure, or its first directory lies outside.
    """
    reader = _Reader(data, max_bytes)
    result = Exif(reader.order)
    reader.read_into(result, reader.first_directory if first_directory is None else first_directory)
    result.damaged |= reader.damaged
    return result


@dataclasses.dataclass(frozen=True)
class _Entry:
    position: int
    tag: int
    type: int
    count: int


class _Reader:
    """Walks directories; every offset is checked, so a hostile block cannot lead outside or cost more than its size."""

    def __init__(self, data: Buffer, max_bytes: int) -> None:
        self.start = len(_PREFIX) if data[: len(_PREFIX)] == _PREFIX else 0
        self.data = data
        order = _ORDERS.get(data[self.start : self.start + 2])
        if order is None:
            raise ValueError("not an EXIF block")
        self.order = order
        magic = self._number("H", 2)
        if magic not in (_CLASSIC, _BIG):
            raise ValueError("not an EXIF block")
        self._big = magic == _BIG
        self._count_code, self._offset_code = ("Q", "Q") if self._big else ("H", "I")
        self._entry_bytes, self._inline_bytes = (20, 8) if self._big else (12, 4)
        self._left = min(max_bytes, 4 * len(data))
        self._visited: set[int] = set()
        self.damaged = False

    @property
    def first_directory(self) -> int:
        """Offset of IFD0."""
        return self._number("Q", 8) if self._big else self._number("I", 4)

    def _number(self, code: str, position: int) -> int:
        try:
            return int(struct.unpack_from(self.order + code, self.data, self.start + position)[0])
        except struct.error:
            raise ValueError("an offset leads outside the EXIF block") from None

    def entries(self, directory: int) -> Iterator[_Entry]:
        """The entries of the directory at an offset, as far as they are there."""
        first = directory + struct.calcsize("<" + self._count_code)
        claimed = self._number(self._count_code, directory)
        there = (len(self.data) - self.start - first) // self._entry_bytes
        count = min(claimed, there, _MAX_ENTRIES)
        self.damaged |= count < claimed
        for position in range(first, first + count * self._entry_bytes, self._entry_bytes):
            tag, kind = self._number("H", position), self._number("H", position + 2)
            yield _Entry(position, tag, kind, self._number("Q" if self._big else "I", position + 4))

    def where(self, entry: _Entry) -> tuple[int, int]:
        """Offset and size in bytes of the values; raises ValueError where there are none."""
        size = _TYPE_BYTES.get(entry.type, 0) * entry.count
        field = entry.position + self._entry_bytes - self._inline_bytes
        offset = field if size <= self._inline_bytes else self._number(self._offset_code, field)
        if not size or self.start + offset + size > len(self.data):
            raise ValueError("an entry leads outside the EXIF block")
        return offset, size

    def value(self, entry: _Entry) -> Value:
        """The values of an entry; raises ValueError like `where`, and when all values together are too many."""
        offset, size = self.where(entry)
        self._left -= size
        if self._left < 0:
            raise ValueError("the values of the EXIF block are larger than it")
        start = self.start + offset
        return _narrowed(Value(entry.type, self.data[start : start + size]), self.order)

    def read_into(self, result: Exif, first_directory: int) -> None:
        """Fill the directories of `result`, following the pointers wherever they stand, each at most once."""
        waiting: list[tuple[int, Directory]] = [(first_directory, result.main)]
        self._number(self._count_code, first_directory)
        targets = {tags.EXIF_POINTER: result.photo, tags.GPS_POINTER: result.gps, tags.INTEROP_POINTER: result.interop}
        while waiting:
            offset, directory = waiting.pop(0)
            if offset in self._visited:
                self.damaged = True
                continue
            self._visited.add(offset)
            try:
                pointers = self._read_directory(offset, directory, result)
            except ValueError:
                self.damaged = True
                continue
            waiting += [(pointer, targets[tag]) for tag, pointer in pointers]

    def _read_directory(self, offset: int, directory: Directory, result: Exif) -> list[tuple[int, int]]:
        pointers = []
        for entry in self.entries(offset):
            if entry.tag in tags.STRUCTURE or entry.count == 0:
                continue
            try:
                value = self.value(entry)
            except ValueError:
                self.damaged = True
                continue
            if entry.tag in tags.POINTERS:
                pointers += [(entry.tag, number) for number in value.integers(self.order)[:1] if number]
            elif entry.tag in tags.EMBEDDED_BLOCKS:
                result.embedded.setdefault(entry.tag, value)
            else:
                if entry.tag == tags.MAKER_NOTE and tags.MAKER_NOTE not in directory:
                    result.maker_note_start = self.where(entry)[0]
                directory.setdefault(entry.tag, value)
        return pointers


def _narrowed(value: Value, order: str) -> Value:
    """64-bit integers, which only BigTIFF knows, as 32-bit ones; raises ValueError where they do not fit."""
    if value.type not in (_LONG8, _SIGNED_LONG8, _IFD8):
        return value
    numbers = value.integers(order)
    if any(not 0 <= number <= 0xFFFFFFFF for number in numbers):
        raise ValueError("a number of a BigTIFF does not fit")
    return Value(LONG, struct.pack(f"{order}{len(numbers)}I", *numbers))


def stated_orientation(data: bytes) -> int | None:
    """The orientation, 1 to 8, where the block states one; 1 for a number that means none. Reads IFD0 only.

    None where the tag is missing, or the block or the entry cannot be read.
    """
    try:
        reader = _Reader(data, MAX_BLOCK_BYTES)
        for entry in reader.entries(reader.first_directory):
            if entry.tag == tags.ORIENTATION:
                value = reader.value(entry).integers(reader.order)[:1]
                return value[0] if value and 1 <= value[0] <= 8 else 1
    except ValueError:
        pass
    return None


def first_directory(data: Buffer) -> int:
    """Offset of IFD0; raises ValueError where `data` is no TIFF structure."""
    return _Reader(data, 0).first_directory


def raw_entries(data: bytes, base: int = 0) -> tuple[str, dict[int, bytes]]:
    """Byte order and IFD0's 12-byte entries, by tag, of a block that `exif_writing` wrote for a place in a file."""
    reader = _Reader(data, MAX_BLOCK_BYTES)
    first = reader.first_directory
    reader.start = -base
    positions = {entry.tag: entry.position - base for entry in reader.entries(first)}
    return reader.order, {tag: data[start : start + 12] for tag, start in positions.items()}
