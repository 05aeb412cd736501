"""The boxes of AVIF and HEIF files (ISO/IEC 14496-12 and 23008-12), read only as far as the plugins keep them silent.

That is: what the numbers of the main picture mean, how deep they are, which part of it is shown, whether a box turns
it, which maps lie beside it, and whether its data is all there. The entries that are looked at are bounded all
together, since tables within tables multiply; what cannot be understood counts as not said.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fractions
import itertools
import mmap
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

Data = mmap.mmap | bytes

_MAX_BOXES = 4_000
_MAX_ENTRIES = 20_000  # of all tables together; a photo of 100 megapixels in small tiles has hundreds
_MAX_MISSING_BYTES = 64 * 1024 * 1024
_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0}
_GAIN_MAP_ITEM = b"tmap"
_EXIF_ITEM, _NO_ITEM = b"Exif", b"free"  # the latter is a type that no reader knows, so it passes the item over
_TURNS = (b"irot", b"imir")
_HIGH_BIT_DEPTH, _TWELVE_BITS = 0x40, 0x20  # in the third byte of `av1C`
_GAIN_MAP = b"hdrgainmap"
_DEPTH_MAPS = (b"urn:mpeg:hevc:2015:auxid:2", b"urn:mpeg:mpegb:cicp:systems:auxiliary:depth")


class Box(NamedTuple):
    """One box: its type, and where its body begins and ends."""

    name: bytes
    start: int
    end: int


class CleanAperture(NamedTuple):
    """The part of a picture that is shown (`clap`): its size, and how far its middle lies from that of the picture.

    Each is a numerator and its denominator, in pixels.
    """

    width: tuple[int, int]
    height: tuple[int, int]
    right: tuple[int, int]
    down: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class BoxFile:
    """What the boxes say.

    Attributes:
        code_points: primaries and transfer of the main picture (ITU-T H.273), or None.
        has_profile: an ICC profile describes it.
        bits: bits a channel, or 0 where nothing is said.
        gain_map: a map for HDR displays lies beside the picture.
        depth_map: a map of distances lies beside it.
        end: where the coded data of the items ends; beyond the end of the file when the file is cut off.
        is_turned: a box says how the main picture is turned or mirrored, if only that it is not.
        exif_types: where in the file the types of its EXIF items stand.
        without_exif: copies of the file shall have no EXIF.
        aperture: which part of the main picture is shown, or None for all of it.
    """

    code_points: tuple[int, int] | None = None
    has_profile: bool = False
    bits: int = 0
    gain_map: bool = False
    depth_map: bool = False
    end: int = 0
    is_turned: bool = False
    exif_types: tuple[int, ...] = ()
    without_exif: bool = False
    aperture: CleanAperture | None = None

    def shown(self, width: int, height: int) -> tuple[slice, slice]:
        """The rows and columns that are shown of a picture of this size, as it is stored; all where nothing says it.

        An aperture that does not end at whole pixels within the picture counts as not said, as in libavif.
        """
        whole = slice(0, height), slice(0, width)
        if self.aperture is None:
            return whole
        rows = _span(self.aperture.height, self.aperture.down, height)
        columns = _span(self.aperture.width, self.aperture.right, width)
        return whole if rows is None or columns is None else (rows, columns)

    def bare(self) -> BoxFile | None:
        """The same file, of which copies have no EXIF; None where it has none, or copies lack it already."""
        return dataclasses.replace(self, without_exif=True) if self.exif_types and not self.without_exif else None

    def is_cut(self, size: int) -> bool:
        """Whether coded data lies beyond the end of a file of this size."""
        return self.end > size

    def filled(self, data: Data, filler: int) -> bytes:
        """A copy of the file, with one byte in the place of all that are missing.

        EXIF that it shall not have stays in it, as an item of a type that is passed over: no offset changes so.

        Raises:
            ValueError: absurdly many are missing.
        """
        if self.end - len(data) > _MAX_MISSING_BYTES:
            raise ValueError("far more is missing than is there")
        whole = data[:] + bytes([filler]) * (self.end - len(data))
        if not self.without_exif:
            return whole
        copy = bytearray(whole)
        for position in self.exif_types:
            copy[position : position + len(_NO_ITEM)] = _NO_ITEM
        return bytes(copy)


def inspect(data: Data) -> BoxFile:
    """Read the boxes of a file; a broken one gives what could be read up to there."""
    reader = _Reader(data)
    with contextlib.suppress(struct.error, ValueError, IndexError):
        reader.read(0, len(data))
    try:
        return reader.facts()
    except (struct.error, ValueError, IndexError):
        return BoxFile()


def boxes(data: Data, start: int, end: int) -> Iterator[Box]:
    """The boxes of a range; the last one may reach beyond it."""
    while start + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        elif size == 0:
            size = end - start
        if size < head:
            return
        yield Box(name, start + head, start + size)
        start += size


def _span(size: tuple[int, int], offset: tuple[int, int], whole: int) -> slice | None:
    """The pixels of one side that an aperture leaves, or None where it makes no sense."""
    if not size[1] or not offset[1]:
        return None
    length = fractions.Fraction(*size)
    start = fractions.Fraction(*offset) + (whole - length) / 2
    if length.denominator != 1 or start.denominator != 1 or length < 1 or start < 0 or start + length > whole:
        return None
    return slice(int(start), int(start + length))


class _Reader:
    def __init__(self, data: Data) -> None:
        self._data = data
        self._left, self._entries_left = _MAX_BOXES, _MAX_ENTRIES
        self._primary = 0
        self._items: dict[int, bytes] = {}
        self._exif_types: list[int] = []
        self._properties: list[Box] = []
        self._owned: dict[int, list[int]] = {}
        self._references: list[tuple[bytes, int, list[int]]] = []
        self._end = 0

    def read(self, start: int, end: int) -> None:
        """Read the boxes of a range, and those within."""
        for box in boxes(self._data, start, end):
            self._left -= 1
            if self._left < 0:
                raise ValueError("more boxes than any photo has")
            if box.name in _CONTAINERS:
                if box.name == b"ipco":
                    self._properties = list(
                        itertools.islice(boxes(self._data, box.start, min(box.end, end)), _MAX_BOXES)
                    )
                else:
                    self.read(box.start + _CONTAINERS[box.name], min(box.end, end))
            elif box.name in _READERS and box.end <= end:
                _READERS[box.name](self, box)

    def facts(self) -> BoxFile:
        """What was read, for the main picture."""
        mine = self._properties_of(self._primary)
        is_turned = any(box.name in _TURNS for box in mine)
        aperture = self._aperture(mine)
        if self._items.get(self._primary) == b"grid":  # what is not said of the whole is said of its tiles
            tiles = [to for kind, source, to in self._references if kind == b"dimg" and source == self._primary]
            mine += self._properties_of(tiles[0][0]) if tiles and tiles[0] else []
        owned = dict.fromkeys(index for item in self._maps() for index in self._owned.get(item, ()))  # each once
        maps = [self._text(box) for box in self._properties_at(owned) if box.name == b"auxC"]
        return BoxFile(
            self._code_points(mine),
            any(box.name == b"colr" and self._data[box.start : box.start + 4] in (b"prof", b"rICC") for box in mine),
            self._bits(mine),
            _GAIN_MAP_ITEM in self._items.values() or any(_GAIN_MAP in text for text in maps),
            any(text.startswith(_DEPTH_MAPS) for text in maps),
            self._end,
            is_turned,
            tuple(self._exif_types),
            aperture=aperture,
        )

    def _properties_of(self, item: int) -> list[Box]:
        return self._properties_at(self._owned.get(item, ()))

    def _properties_at(self, indexes: Iterable[int]) -> list[Box]:
        return [self._properties[index - 1] for index in indexes if 0 < index <= len(self._properties)]

    def _maps(self) -> set[int]:
        """Items that are auxiliary to the main picture."""
        return {source for kind, source, to in self._references if kind == b"auxl" and self._primary in to}

    def _spend(self, entries: int = 1) -> None:
        self._entries_left -= entries
        if self._entries_left < 0:
            raise ValueError("more entries than any photo has")

    def _text(self, box: Box) -> bytes:
        return self._data[box.start + 4 : min(box.end, box.start + 100)].lower()

    def _code_points(self, properties: list[Box]) -> tuple[int, int] | None:
        for box in properties:
            if box.name == b"colr" and self._data[box.start : box.start + 4] == b"nclx":
                primaries, transfer = struct.unpack_from(">HH", self._data, box.start + 4)
                return primaries, transfer
        return None

    def _bits(self, properties: list[Box]) -> int:
        """Bits a channel: older writers leave `pixi` out, and then the settings of the AV1 decoder say it."""
        for box in properties:
            if box.name == b"pixi" and box.end - box.start > 5:
                return self._data[box.start + 5]
        settings = next((self._data[box.start + 2] for box in properties if box.name == b"av1C"), None)
        if settings is None:
            return 0
        return 8 if not settings & _HIGH_BIT_DEPTH else 12 if settings & _TWELVE_BITS else 10

    def _aperture(self, properties: list[Box]) -> CleanAperture | None:
        for box in properties:
            if box.name == b"clap":
                numbers = struct.unpack_from(">IIIIiIiI", self._data, box.start)
                return CleanAperture(numbers[:2], numbers[2:4], numbers[4:6], numbers[6:])
        return None

    def _primary_item(self, box: Box) -> None:
        version = self._data[box.start]
        self._primary = struct.unpack_from(">I" if version else ">H", self._data, box.start + 4)[0]

    def _item_information(self, box: Box) -> None:
        version = self._data[box.start]
        for entry in boxes(self._data, box.start + (8 if version else 6), box.end):
            self._spend()
            if entry.name == b"infe":
                wide = self._data[entry.start] >= 3
                identity = struct.unpack_from(">I" if wide else ">H", self._data, entry.start + 4)[0]
                kind = entry.start + (10 if wide else 8)
                self._items[identity] = self._data[kind : kind + 4]
                if self._items[identity] == _EXIF_ITEM:
                    self._exif_types.append(kind)

    def _associations(self, box: Box) -> None:
        version, wide_index = self._data[box.start], self._data[box.start + 3] & 1
        count, position = struct.unpack_from(">I", self._data, box.start + 4)[0], box.start + 8
        for _ in range(count):
            item = struct.unpack_from(">I" if version else ">H", self._data, position)[0]
            position += 4 if version else 2
            owned = self._data[position]
            self._spend(1 + owned)
            code, size = (">H", 2) if wide_index else (">B", 1)
            values = struct.unpack_from(f">{owned}{code[1]}", self._data, position + 1)
            self._owned.setdefault(item, []).extend(value & (0x7FFF if wide_index else 0x7F) for value in values)
            position += 1 + owned * size

    def _item_references(self, box: Box) -> None:
        wide = self._data[box.start] > 0
        code, size = ("I", 4) if wide else ("H", 2)
        for entry in boxes(self._data, box.start + 4, box.end):
            source, count = struct.unpack_from(f">{code}H", self._data, entry.start)
            self._spend(1 + count)
            to = struct.unpack_from(f">{count}{code}", self._data, entry.start + size + 2)
            self._references.append((entry.name, source, list(to)))

    def _item_locations(self, box: Box) -> None:
        """Where the coded data ends; only plain offsets into the file are followed."""
        version, sizes = self._data[box.start], struct.unpack_from(">H", self._data, box.start + 4)[0]
        offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
        index_size = sizes & 15 if version in (1, 2) else 0
        identity = 4 if version == 2 else 2
        position = box.start + 6
        count = self._number(position, identity)
        position += identity
        for _ in range(count):
            self._spend()
            position += identity
            method = self._number(position, 2) & 15 if version in (1, 2) else 0
            position += (2 if version in (1, 2) else 0) + 2
            base = self._number(position, base_size)
            extents = self._number(position + base_size, 2)
            position += base_size + 2
            for _ in range(extents):
                self._spend()
                offset = self._number(position + index_size, offset_size)
                length = self._number(position + index_size + offset_size, length_size)
                position += index_size + offset_size + length_size
                if method == 0:
                    self._end = max(self._end, base + offset + length)

    def _number(self, position: int, size: int) -> int:
        part = self._data[position : position + size]
        if len(part) < size:
            raise ValueError("a number leads outside the file")
        return int.from_bytes(part, "big")


_READERS = {
    b"pitm": _Reader._primary_item,
    b"iinf": _Reader._item_information,
    b"ipma": _Reader._associations,
    b"iref": _Reader._item_references,
    b"iloc": _Reader._item_locations,
}
