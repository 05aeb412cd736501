"""A PNG whose packed pixels may end too early or be damaged: how many rows are there, and a PNG made whole of them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from app.images.decode.missing import Completed, Fault, Missing
from app.images.png_chunks import SIGNATURE, Data, PngFile

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_LAST_FILTER = 4
_PIECE_BYTES = 1 << 20
_RAW_DEFLATE = -15
_FAST = 1


def looks_cut(image: Image.Image) -> bool:
    """Whether one of the last two rows of a loaded PNG is all zero, as rows are that its file does not bring."""
    top = max(0, image.height - 2)
    rows = (image.crop((0, row, image.width, row + 1)).tobytes() for row in range(top, image.height))
    return not all(any(row) for row in rows)


def complete(png: PngFile, data: Data) -> Completed | None:
    """Inflate what is there and pack it again with right checksums; None where not even a row is there.

    Wrong checksums of the chunks do not matter: what inflates to the size of the photo and meets the checksum of the
    whole is right.
    """
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    sizes = list(_row_sizes(width, height, depth * _SAMPLES[kind], interlaced=bool(interlaced)))
    expected = sum(count * size for count, size in sizes)
    pixels, fault = _inflated(png, data, expected)
    whole = len(pixels)
    if not interlaced:
        whole = _sound_rows(pixels, sizes[0][1]) * sizes[0][1]
        fault = Fault.DAMAGED if fault is None and whole < len(pixels) == expected else fault
    if whole == 0:
        return None
    missing = None
    if whole < expected:
        first = None if interlaced else whole // sizes[0][1]
        missing = Missing(height, first, fault or Fault.CUT_OFF)
    elif fault is not None:
        missing = Missing(height, None, fault)
    del pixels[whole:]
    pixels += bytes(expected - whole)
    return Completed(_packed(png, data, pixels), missing)


def _inflated(png: PngFile, data: Data, expected: int) -> tuple[bytearray, Fault | None]:
    """At most `expected` bytes, and what is wrong with them: without one they meet their checksum, if it is there."""
    packed = b"".join(data[c.start + 8 : min(c.end - 4, len(data))] for c in png.kept if c.name == b"IDAT")
    inflater = zlib.decompressobj(_RAW_DEFLATE)
    pixels = bytearray()
    rest = packed[2:]
    try:
        while rest and len(pixels) < expected and not inflater.eof:
            pixels += inflater.decompress(rest, min(_PIECE_BYTES, expected - len(pixels)))
            rest = inflater.unconsumed_tail
        while not inflater.eof and rest:  # the end mark of the data, and nothing more
            if inflater.decompress(rest, _PIECE_BYTES):
                # More pixels than the photo has: its own are there, unless its size is what is wrong.
                return pixels, Fault.DAMAGED if png.is_header_doubtful else None
            rest = inflater.unconsumed_tail
    except zlib.error:
        return pixels, Fault.DAMAGED
    if not inflater.eof:
        return pixels, None
    checksum = inflater.unused_data[:4]
    is_right = len(checksum) < 4 or int.from_bytes(checksum, "big") == zlib.adler32(pixels)
    return pixels, None if is_right and len(pixels) == expected else Fault.DAMAGED


def _sound_rows(pixels: bytearray, size: int) -> int:
    """Whole rows before the first one whose filter does not exist."""
    count = len(pixels) // size
    filters = np.frombuffer(pixels, np.uint8, count * size)[::size]
    unknown = filters > _LAST_FILTER
    return int(unknown.argmax()) if unknown.any() else count


def _row_sizes(width: int, height: int, bits: int, *, interlaced: bool) -> Iterator[tuple[int, int]]:
    """How many rows of how many bytes, their filter included: once, or for each pass of Adam7."""
    if not interlaced:
        yield height, 1 + (width * bits + 7) // 8
        return
    for left, top, across, down in _PASSES:
        columns, rows = (width - left + across - 1) // across, (height - top + down - 1) // down
        if columns > 0 and rows > 0:
            yield rows, 1 + (columns * bits + 7) // 8


def _packed(png: PngFile, data: Data, pixels: bytearray) -> bytes:
    """A PNG of the pixels and the other chunks of the file, where they stood."""
    parts = [SIGNATURE]
    names = [chunk.name for chunk in png.kept]
    for index, chunk in enumerate(png.kept):
        if index == names.index(b"IDAT"):
            parts.append(_chunk(b"IDAT", zlib.compress(pixels, _FAST)))
        elif chunk.name not in (b"IDAT", b"IEND"):
            parts.append(chunk.content(data))
    return b"".join((*parts, _chunk(b"IEND", b"")))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))
