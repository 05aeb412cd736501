"""EXIF blocks, read and edited in place: orientation, sizes, thumbnail and GPS.

Nothing is re-serialised, so maker notes keep their offsets and unknown tags survive. A block that cannot be understood
raises ValueError.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Set

ORIENTATION = 0x0112
EXIF_POINTER = 0x8769
GPS_POINTER = 0x8825
_PREFIX = b"Exif\0\0"
_WIDTH_TAGS = {0x0100, 0xA002}
_HEIGHT_TAGS = {0x0101, 0xA003}
_THUMBNAIL_START, _THUMBNAIL_BYTES = 0x0201, 0x0202
# XMP, IPTC and Photoshop blocks that TIFF-like EXIF may carry: they can repeat the place.
_PLACE_TAGS = {GPS_POINTER, 0x02BC, 0x83BB, 0x8649}
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SHORT, _LONG = 3, 4
_ENTRY_BYTES = 12
_HEADER_BYTES = 8
MAX_BLOCK_BYTES = 4 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Entry:
    """One directory entry: where it stands in the block, its tag, type and count of values."""

    position: int
    tag: int
    type: int
    count: int

    @property
    def value_bytes(self) -> int:
        """Bytes that the values take; up to 4 stand in the entry itself."""
        return _TYPE_BYTES.get(self.type, 1) * self.count


class Block:
    """A mutable EXIF block. Every offset is checked against its length, so a hostile block cannot lead outside."""

    def __init__(self, data: bytes, max_bytes: int = MAX_BLOCK_BYTES) -> None:
        self.data = bytearray(without_prefix(data))
        marks = {b"II*\0": "<", b"MM\0*": ">"}
        order = marks.get(bytes(self.data[:4]))
        if order is None or not _HEADER_BYTES < len(self.data) <= max_bytes:
            raise ValueError("not an EXIF block")
        self.order = order
        # Thousands of entries that all claim the whole block would cost minutes of wiping.
        self._wipe_budget = 4 * len(self.data)

    @property
    def first_directory(self) -> int:
        """Offset of IFD0."""
        return self.long(4)

    def short(self, position: int) -> int:
        """Unsigned 16-bit number at `position`."""
        return int(self._unpack("H", position))

    def long(self, position: int) -> int:
        """Unsigned 32-bit number at `position`."""
        return int(self._unpack("I", position))

    def _unpack(self, code: str, position: int) -> int:
        try:
            return int(struct.unpack_from(self.order + code, self.data, position)[0])
        except struct.error:
            raise ValueError("an offset leads outside the EXIF block") from None

    def entries(self, directory: int) -> Iterator[Entry]:
        """The entries of the directory at an offset."""
        for index in range(self.short(directory)):
            position = directory + 2 + index * _ENTRY_BYTES
            yield Entry(position, self.short(position), self.short(position + 2), self.long(position + 4))

    def find(self, directory: int, tag: int) -> Entry | None:
        """The first entry of a tag."""
        return next((entry for entry in self.entries(directory) if entry.tag == tag), None)

    def number(self, entry: Entry) -> int:
        """The first value of a SHORT or LONG entry."""
        return self.short(entry.position + 8) if entry.type == _SHORT else self.long(entry.position + 8)

    def set_number(self, entry: Entry, value: int) -> None:
        """Write one number into an entry, as a LONG where 16 bits are too few."""
        kind = _SHORT if entry.type == _SHORT and value <= 0xFFFF else _LONG
        packed = struct.pack(
            self.order + ("HH" if kind == _SHORT else "I"), *((value, 0) if kind == _SHORT else (value,))
        )
        struct.pack_into(self.order + "HI", self.data, entry.position + 2, kind, 1)
        self.data[entry.position + 8 : entry.position + 12] = packed

    def next_directory(self, directory: int) -> int:
        """Position of the pointer to the directory after this one."""
        return directory + 2 + self.short(directory) * _ENTRY_BYTES

    def wipe(self, start: int, length: int) -> None:
        """Zero a range; a range at the very end is cut off."""
        stop = min(start + length, len(self.data))
        if stop <= start or start < _HEADER_BYTES:
            return
        self._wipe_budget -= stop - start
        if self._wipe_budget < 0:
            raise ValueError("the values of the EXIF block overlap")
        if stop == len(self.data):
            del self.data[start:]
        else:
            self.data[start:stop] = bytes(stop - start)

    def wipe_values(self, entry: Entry) -> None:
        """Zero the values of an entry that stand outside it."""
        if entry.value_bytes > 4:
            self.wipe(self.long(entry.position + 8), entry.value_bytes)

    def wipe_directory(self, directory: int) -> None:
        """Zero a directory and everything it points to."""
        size = 2 + self.short(directory) * _ENTRY_BYTES + 4
        for entry in list(self.entries(directory)):
            self.wipe_values(entry)
        self.wipe(directory, size)

    def remove(self, directory: int, tags: Set[int]) -> None:
        """Take entries out of a directory, and wipe what they held."""
        entries = list(self.entries(directory))
        kept = b"".join(bytes(self.data[e.position : e.position + _ENTRY_BYTES]) for e in entries if e.tag not in tags)
        following = bytes(self.data[self.next_directory(directory) :][:4])
        for entry in entries:
            if entry.tag in tags:
                self.wipe_values(entry)
        table = struct.pack(self.order + "H", len(kept) // _ENTRY_BYTES) + kept + following
        self.data[directory : directory + len(table)] = table
        self.wipe(directory + len(table), (len(entries) - len(kept) // _ENTRY_BYTES) * _ENTRY_BYTES)


def without_prefix(data: bytes) -> bytes:
    """The block from its TIFF header on, without the mark that JPEG puts before it."""
    return data[len(_PREFIX) :] if data.startswith(_PREFIX) else data


def orientation(data: bytes) -> int:
    """The orientation, 1 to 8; 1 when there is none or the block is broken."""
    try:
        block = Block(data)
        entry = block.find(block.first_directory, ORIENTATION)
        value = block.number(entry) if entry else 1
    except ValueError:
        return 1
    return value if 1 <= value <= 8 else 1


def straightened(data: bytes) -> bytes:
    """A whole TIFF file with its orientation set to 1."""
    block = Block(data, max_bytes=len(data))
    entry = block.find(block.first_directory, ORIENTATION)
    if entry:
        block.set_number(entry, 1)
    return bytes(block.data)


def upright(data: bytes) -> bytes:
    """The block with its orientation reset to 1 and its thumbnail (which would lie sideways) removed."""
    block = Block(data)
    entry = block.find(block.first_directory, ORIENTATION)
    if entry:
        block.set_number(entry, 1)
    _drop_thumbnail(block)
    return bytes(block.data)


def resized(data: bytes, width: int, height: int) -> bytes:
    """The block with its pixel sizes, where it states them, set to `width` and `height`."""
    block = Block(data)
    directories = [block.first_directory]
    pointer = block.find(block.first_directory, EXIF_POINTER)
    if pointer:
        directories.append(block.number(pointer))
    for directory in directories:
        for entry in list(block.entries(directory)):
            if entry.tag in _WIDTH_TAGS | _HEIGHT_TAGS:
                block.set_number(entry, width if entry.tag in _WIDTH_TAGS else height)
    return bytes(block.data)


def without_place(data: bytes) -> bytes:
    """The block without its GPS directory and without embedded XMP, IPTC and Photoshop blocks."""
    block = Block(data)
    pointer = block.find(block.first_directory, GPS_POINTER)
    if pointer and block.number(pointer):
        block.wipe_directory(block.number(pointer))
    block.remove(block.first_directory, _PLACE_TAGS)
    return bytes(block.data)


def _drop_thumbnail(block: Block) -> None:
    pointer = block.next_directory(block.first_directory)
    directory = block.long(pointer)
    if not directory:
        return
    start, length = block.find(directory, _THUMBNAIL_START), block.find(directory, _THUMBNAIL_BYTES)
    if start and length:
        block.wipe(block.number(start), block.number(length))
    block.wipe_directory(directory)
    block.data[pointer : pointer + 4] = bytes(4)
