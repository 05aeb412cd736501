"""The chunks of a WebP: whether its first picture is all there, and a file made whole where it is not."""

from __future__ import annotations

import dataclasses
import mmap
import struct
from typing import NamedTuple

Data = mmap.mmap | bytes

_HEAD_BYTES = 12
_SIZE_BYTES = 30
_MAX_CHUNKS = 5_000
_MAX_MISSING_BYTES = 16 * 1024 * 1024
_PIXELS = (b"VP8 ", b"VP8L", b"ANMF")
_BEFORE_PIXELS = (b"VP8X", b"ICCP", b"ALPH")
_METADATA = {b"EXIF": 0x08, b"XMP ": 0x04}
_ANIMATED_FLAG = 0x02
_FRAME_HEAD_BYTES = 16
_FILLING, _MIN_FILLING_BYTES, _MOST_BYTES_PER_PIXEL = 4, 65_536, 5


class _Fill(NamedTuple):
    """What missing data is filled with, and the most that any picture of the file's size takes."""

    byte: int
    most_bytes: int


class Chunk(NamedTuple):
    """One chunk: its name, where it begins and where it should end, without the byte that makes its size even."""

    name: bytes
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class WebpFile:
    """What `inspect` found.

    Attributes:
        is_whole: the file is as long as its parts say.
        kept: the chunks up to the first picture, and whole metadata behind it.
        size: the length of the file.
        lacks_pixels: the data of the first picture reaches beyond the file.
        lacks_metadata: the header speaks of metadata that is not there.
        flags: what the header says of the file; 0 for a file that begins with its picture.
    """

    is_whole: bool
    kept: list[Chunk]
    size: int
    lacks_pixels: bool
    lacks_metadata: bool
    flags: int = 0

    @property
    def has_picture(self) -> bool:
        """A first picture is there, whole or not."""
        return any(chunk.name in _PIXELS for chunk in self.kept)

    def metadata(self, data: Data, name: bytes) -> bytes | None:
        """The body of a whole metadata chunk, `EXIF` or `XMP `, whether or not the header speaks of it."""
        return next((data[chunk.start + 8 : chunk.end] for chunk in self.kept if chunk.name == name), None)

    def shown_metadata(self, data: Data, name: bytes) -> bytes | None:
        """The same of a chunk that the file's header speaks of; for libwebp, and so for browsers, no other is there."""
        end = _claimed_bytes(data)
        chunk = next((chunk for chunk in self.kept if chunk.name == name and chunk.end <= end), None)
        is_shown = chunk is not None and self.flags & _METADATA[name]
        return data[chunk.start + 8 : chunk.end] if chunk is not None and is_shown else None

    def closed(self, data: Data, filler: int) -> bytes:
        """A still WebP of the first picture alone, what is missing of it filled with one byte.

        Raises:
            ValueError: absurdly much is missing.
        """
        width, height = webp_size(data)
        fill = _Fill(filler, width * height * _MOST_BYTES_PER_PIXEL + _MIN_FILLING_BYTES)
        body = b"".join(_chunk_bytes(data, chunk, fill) for chunk in self.kept)
        if body[:4] == b"VP8X":
            body = body[:8] + bytes([body[8] & ~_ANIMATED_FLAG & 0xFF]) + body[9:]
        return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def webp_size(data: Data) -> tuple[int, int]:
    """Width and height of a WebP by its first bytes.

    Raises:
        ValueError: it begins with no chunk that tells them.
    """
    head = data[:_SIZE_BYTES].ljust(_SIZE_BYTES, b"\0")
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("a WebP that begins with no picture")


def inspect(data: Data) -> WebpFile:
    """Step over the chunks of a WebP up to its first picture."""
    size = len(data)
    position, kept, found = _HEAD_BYTES, list[Chunk](), False
    for _ in range(_MAX_CHUNKS):
        if position + 8 > size:
            break
        name, length = struct.unpack_from("<4sI", data, position)
        chunk = Chunk(name, position, position + 8 + length)
        is_first = not found and (name in _PIXELS or name in _BEFORE_PIXELS)
        if is_first or (name in _METADATA and chunk.end <= size):
            kept.append(chunk)
        found = found or name in _PIXELS
        position = chunk.end + length % 2
    lacks_pixels = not found or any(chunk.end > size for chunk in kept)
    flags = data[kept[0].start + 8] if kept and kept[0].name == b"VP8X" and size > kept[0].start + 8 else 0
    names = {chunk.name for chunk in kept}
    lacks_metadata = any(flags & flag and name not in names for name, flag in _METADATA.items())
    is_whole = _claimed_bytes(data) <= size and position <= size + 1
    return WebpFile(is_whole, kept, size, lacks_pixels, lacks_metadata, flags)


def _claimed_bytes(data: Data) -> int:
    """How long the file should be."""
    return 8 + int.from_bytes(data[4:8], "little")


def _chunk_bytes(data: Data, chunk: Chunk, fill: _Fill) -> bytes:
    if chunk.name == b"ANMF":
        return _frame_bytes(data, chunk, fill)
    body = data[chunk.start + 8 : chunk.end]
    missing = chunk.end - chunk.start - 8 - len(body)
    if missing > _MAX_MISSING_BYTES:
        raise ValueError("far more is missing than is there")
    if missing > 0:  # filled with more than is missing, for the filler may take more room than the picture did
        body += bytes([fill.byte]) * min(missing * _FILLING + _MIN_FILLING_BYTES, fill.most_bytes)
    return chunk.name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _frame_bytes(data: Data, chunk: Chunk, fill: _Fill) -> bytes:
    """The picture within a frame of an animation."""
    parts, position = b"", chunk.start + 8 + _FRAME_HEAD_BYTES
    while position + 8 <= min(chunk.end, len(data)):
        name, length = struct.unpack_from("<4sI", data, position)
        part = Chunk(name, position, position + 8 + length)
        if name in (b"ALPH", b"VP8 ", b"VP8L"):
            parts += _chunk_bytes(data, part, fill)
        position = part.end + length % 2
    return parts
