"""Segments of a TIFF, put into a small sound TIFF of our own and decoded by libtiff through Pillow.

So libtiff never sees the directories of a file that somebody sent, and a file whose directories Pillow refuses can
still be decoded.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SHORT, _LONG, _UNDEFINED = 3, 4, 7
_CODES = {_SHORT: "H", _LONG: "I", _UNDEFINED: "B"}
_HEADER_BYTES = 8

Tags = Mapping[int, tuple[int, Sequence[int]]]


def shorts(*values: int) -> tuple[int, Sequence[int]]:
    """The value of a tag as 16-bit numbers."""
    return _SHORT, values


def longs(*values: int) -> tuple[int, Sequence[int]]:
    """The value of a tag as 32-bit numbers."""
    return _LONG, values


def undefined(data: bytes) -> tuple[int, Sequence[int]]:
    """The value of a tag as bytes without a meaning of their own."""
    return _UNDEFINED, data


def wrap(tags: Tags, segments: Sequence[bytes]) -> bytes:
    """A little-endian TIFF of one page: the tags given, and those that say where the segments stand."""
    positions, position = [], _HEADER_BYTES
    for segment in segments:
        positions.append(position)
        position += len(segment)
    every = {**tags, 273: longs(*positions), 279: longs(*(len(segment) for segment in segments))}
    start = position + position % 2
    table, values = b"", b""
    values_at = start + 2 + 12 * len(every) + 4
    for tag in sorted(every):
        kind, numbers = every[tag]
        packed = struct.pack(f"<{len(numbers)}{_CODES[kind]}", *numbers)
        table += struct.pack("<HHI", tag, kind, len(numbers))
        if len(packed) <= 4:
            table += packed.ljust(4, b"\0")
        else:
            table += struct.pack("<I", values_at + len(values))
            values += packed + bytes(len(packed) % 2)
    head = b"II*\0" + struct.pack("<I", start)
    directory = struct.pack("<H", len(every)) + table + bytes(4)
    return b"".join((head, *segments, bytes(position % 2), directory, values))


def decode(tags: Tags, segments: Sequence[bytes]) -> NDArray[Any]:
    """(H, W) or (H, W, C) the pixels of such a page, as Pillow gives them. Raises OSError for broken segments."""
    Image.MAX_IMAGE_PIXELS = None  # the page's size was checked, and a row of ours is counted in bytes
    with Image.open(io.BytesIO(wrap(tags, segments)), formats=("TIFF",)) as image:
        image.load()
        return np.asarray(image)


def page_tags(width: int, height: int, samples: int, compression: int, photometric: int, rows: int) -> dict[int, Any]:
    """The plain tags of a page of 8-bit samples side by side, in strips of `rows`."""
    return {
        256: longs(width),
        257: longs(height),
        258: shorts(*[8] * samples),
        259: shorts(compression),
        262: shorts(photometric),
        277: shorts(samples),
        278: longs(rows),
        284: shorts(1),
    }
