"""An EXIF block written anew from its parsed directories, in one canonical order.

A maker note is put where it stood, for the offsets in it (of Canon, Sony, Panasonic and others) count from the start of
the block; everything else is laid out around it.
"""

from __future__ import annotations

import struct

from app.images.metadata import exif_tags as tags
from app.images.metadata.exif import LONG, Directory, Exif, Value

# Beyond it a gap would cost more than the note is worth; a JPEG's block never reaches further.
MAX_MAKER_NOTE_START = 65_535
_ENTRY_BYTES = 12
_HEADER_BYTES = 8
_INLINE_BYTES = 4


def serialized(block: Exif, base: int = 0) -> bytes | None:
    """The bytes of a block (TIFF header first), or None when it holds nothing.

    `base` is where in a file the bytes will stand when offsets shall count from the file's start; a maker note is then
    no longer where it stood.
    """
    main, photo, interop, gps = (dict(one) for one in (block.main, block.photo, block.interop, block.gps))
    place_holder = Value(LONG, bytes(4))
    for child, parent, tag in _pointers(main, photo, interop, gps):
        if child:
            parent[tag] = place_holder
    directories = [directory for directory in (main, photo, interop, gps) if directory]
    if not directories:
        return None
    space = _Space(None if base else _reserved(block), base)
    starts = {id(directory): space.take(_table_bytes(directory)) for directory in directories}
    for child, parent, tag in _pointers(main, photo, interop, gps):
        if child:
            parent[tag] = Value(LONG, struct.pack(block.order + "I", starts[id(child)]))
    parts: list[tuple[int, bytes]] = []
    for directory in directories:
        cells = [_cell(block, tag, directory[tag], space, parts) for tag in sorted(directory)]
        table = struct.pack(block.order + "H", len(cells)) + b"".join(cells) + bytes(4)
        parts.append((starts[id(directory)], table))
    return _assembled(block.order, starts[id(main)], parts, base)


def _pointers(
    main: Directory, photo: Directory, interop: Directory, gps: Directory
) -> tuple[tuple[Directory, Directory, int], ...]:
    """Each directory with its parent and the tag that points to it, the deepest first."""
    return (
        (interop, photo, tags.INTEROP_POINTER),
        (photo, main, tags.EXIF_POINTER),
        (gps, main, tags.GPS_POINTER),
    )


def _assembled(order: str, first: int, parts: list[tuple[int, bytes]], base: int) -> bytes:
    data = bytearray(max(start + len(part) for start, part in parts) - base)
    data[:_HEADER_BYTES] = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, first)
    for start, part in parts:
        data[start - base : start - base + len(part)] = part
    return bytes(data)


def _reserved(block: Exif) -> tuple[int, int] | None:
    note, start = block.photo.get(tags.MAKER_NOTE), block.maker_note_start
    if note is None or len(note.data) <= _INLINE_BYTES or start is None:
        return None
    return (start, len(note.data)) if _HEADER_BYTES <= start <= MAX_MAKER_NOTE_START else None


def _table_bytes(directory: Directory) -> int:
    return 2 + _ENTRY_BYTES * len(directory) + 4


class _Space:
    """Hands out even positions one after another, around the place that is reserved for the maker note."""

    def __init__(self, reserved: tuple[int, int] | None, base: int) -> None:
        self._next = base + _HEADER_BYTES
        self.reserved = reserved

    def take(self, size: int) -> int:
        """An even position with `size` bytes free behind it."""
        if self.reserved:
            start, length = self.reserved
            if self._next < start + length and self._next + size > start:
                self._next = start + length + (start + length) % 2
        position = self._next
        self._next += size + size % 2
        return position


def _cell(block: Exif, tag: int, value: Value, space: _Space, parts: list[tuple[int, bytes]]) -> bytes:
    """The 12 bytes of an entry; values that do not fit into it are added to `parts`."""
    field = value.data.ljust(_INLINE_BYTES, b"\0")
    if len(value.data) > _INLINE_BYTES:
        in_place = space.reserved if value is block.photo.get(tags.MAKER_NOTE) else None
        start = in_place[0] if in_place else space.take(len(value.data))
        parts.append((start, value.data))
        field = struct.pack(block.order + "I", start)
    return struct.pack(block.order + "HHI", tag, value.type, value.count) + field
