"""What a TIFF page says besides its pixels, put into a sound TIFF of one pixel that Pillow opens whatever the page is.

So metadata and profile are read in one way for all TIFF files, and Pillow meets no offset that somebody sent.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from PIL import Image

from app.images.tiff_directories import Directory, Entry
from app.images.tiff_pages import TiffPage

ICC_PROFILE = 34675
_EXIF, _GPS, _INTEROPERABILITY = 34665, 34853, 40965
_POINTERS = {_EXIF, _GPS, _INTEROPERABILITY}
# Tags that say how the samples lie in the file; they must not travel. 37724 holds the layers of an image editor.
_LAYOUT = {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, 288, 289, 290, 291}
_LAYOUT |= {292, 293, 297, 301, 317, 318, 319, 320, 322, 323, 324, 325, 330, 332, 333, 334, 338, 339, 340, 341, 347}
_LAYOUT |= {*range(512, 522), 529, 530, 531, 532, 32997, 32998, 37724}
_WIDE = {16: 4, 17: 9, 18: 4}  # 64-bit numbers, which only BigTIFF has, and the type of 32 bits that takes their place
_MAX_BYTES = 64 << 20
_MAX_DEPTH = 3
_PIXEL = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}
_SHORT, _LONG = 3, 4


def metadata_image(page: TiffPage) -> Image.Image:
    """An image of one pixel with the metadata, the profile and the resolution of a page; the caller closes it."""
    return Image.open(io.BytesIO(_Copy(page.directory).content()), formats=("TIFF",))


class _Copy:
    """A TIFF file in the byte order of the original, written directory by directory."""

    def __init__(self, source: Directory) -> None:
        self._order = source.reader.order
        self._left = _MAX_BYTES
        self._data = bytearray((b"II" if self._order == "<" else b"MM") + struct.pack(f"{self._order}HI", 42, 0))
        self._data += bytes(2)  # the one pixel, at 8
        start = self._write(source, dict(self._pixel()), _LAYOUT, 0)
        struct.pack_into(f"{self._order}I", self._data, 4, start)

    def content(self) -> bytes:
        """The whole file."""
        return bytes(self._data)

    def _pixel(self) -> Iterator[tuple[int, bytes]]:
        for tag, value in _PIXEL.items():
            if tag in (273, 279):
                yield tag, struct.pack(f"{self._order}HHII", tag, _LONG, 1, value)
            else:
                yield tag, struct.pack(f"{self._order}HHIHH", tag, _SHORT, 1, value, 0)

    def _write(self, source: Directory, table: dict[int, bytes], left_out: set[int], depth: int) -> int:
        """Append what a directory holds, then the directory; returns where it stands."""
        for tag, entry in source.entries.items():
            if tag in left_out:
                continue
            row = self._pointer(source, tag, depth) if tag in _POINTERS else self._row(source, tag, entry)
            if row is not None:
                table[tag] = row
        position = self._put(struct.pack(f"{self._order}H", len(table)))
        for tag in sorted(table):
            self._data += table[tag]
        self._data += bytes(4)
        return position

    def _pointer(self, source: Directory, tag: int, depth: int) -> bytes | None:
        """The entry of a directory below, with that directory; None where it cannot be read."""
        if depth >= _MAX_DEPTH:
            return None
        try:
            below = source.reader.directory(source.number(tag, 0))
        except ValueError:
            return None
        return struct.pack(f"{self._order}HHII", tag, _LONG, 1, self._write(below, {}, set(), depth + 1))

    def _row(self, source: Directory, tag: int, entry: Entry) -> bytes | None:
        """The entry with its values copied; None where they lie outside the file or there is no room left."""
        kind, values = entry.type, source.block(tag)
        self._left -= len(values)
        if not values or self._left < 0:
            return None
        if kind in _WIDE:
            kind, numbers = _WIDE[kind], source.numbers(tag)
            try:
                values = struct.pack(f"{self._order}{len(numbers)}{'i' if kind == 9 else 'I'}", *numbers)
            except struct.error:
                return None
        count = entry.count if entry.type not in _WIDE else len(values) // 4
        place = values.ljust(4, b"\0") if len(values) <= 4 else struct.pack(f"{self._order}I", self._put(values))
        return struct.pack(f"{self._order}HHI", tag, kind, count) + place

    def _put(self, values: bytes) -> int:
        """Append bytes on an even position, which is returned."""
        self._data += bytes(len(self._data) % 2)
        position = len(self._data)
        self._data += values
        return position
