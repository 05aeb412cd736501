"""The chunks of a WebP: whether its first picture is all there, and a file made whole where it is not."""

from __future__ import annotations

import dataclasses
import mmap
import struct
from typing import NamedTuple

Data = mmap.mmap | bytes

_HEAD_BYTES = 12
_MAX_CHUNKS = 5_000
_MAX_MISSING_BYTES = 16 * 1024 * 1024
_PIXELS = (b"VP8 ", b"VP8L", b"ANMF")
_BEFORE_PIXELS = (b"VP8X", b"ICCP", b"ALPH")
_METADATA = {b"EXIF": 0x08, b"XMP ": 0x04}
_ANIMATED_FLAG = 0x02
_FRAME_HEAD_BYTES = 16
_FILLING, _MIN_FILLING_BYTES = 4, 65_536


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
    """

    is_whole: bool
    kept: list[Chunk]
    size: int
    lacks_pixels: bool
    lacks_metadata: bool

    def closed(self, data: Data, filler: int) -> bytes:
        """A still WebP of the first picture alone, what is missing of it filled with one byte.

        Raises:
            ValueError: absurdly much is missing.
        """
        body = b"".join(_chunk_bytes(data, chunk, filler) for chunk in self.kept)
        if body[:4] == b"VP8X":
            body = body[:8] + bytes([body[8] & ~_ANIMATED_FLAG & 0xFF]) + body[9:]
        return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


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
    claimed = 8 + int.from_bytes(data[4:8], "little")
    lacks_pixels = not found or any(chunk.end > size for chunk in kept)
    flags = data[kept[0].start + 8] if kept and kept[0].name == b"VP8X" and size > kept[0].start + 8 else 0
    names = {chunk.name for chunk in kept}
    lacks_metadata = any(flags & flag and name not in names for name, flag in _METADATA.items())
    return WebpFile(claimed <= size and position <= size + 1, kept, size, lacks_pixels, lacks_metadata)


def _chunk_bytes(data: Data, chunk: Chunk, filler: int) -> bytes:
    if chunk.name == b"ANMF":
        return _frame_bytes(data, chunk, filler)
    body = data[chunk.start + 8 : chunk.end]
    missing = chunk.end - chunk.start - 8 - len(body)
    if missing > _MAX_MISSING_BYTES:
        raise ValueError("far more is missing than is there")
    if missing > 0:  # filled with more than is missing, for the filler may take more room than the picture did
        body += bytes([filler]) * (missing * _FILLING + _MIN_FILLING_BYTES)
    return chunk.name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _frame_bytes(data: Data, chunk: Chunk, filler: int) -> bytes:
    """The picture within a frame of an animation."""
    parts, position = b"", chunk.start + 8 + _FRAME_HEAD_BYTES
    while position + 8 <= min(chunk.end, len(data)):
        name, length = struct.unpack_from("<4sI", data, position)
        part = Chunk(name, position, position + 8 + length)
        if name in (b"ALPH", b"VP8 ", b"VP8L"):
            parts += _chunk_bytes(data, part, filler)
        position = part.end + length % 2
    return parts
