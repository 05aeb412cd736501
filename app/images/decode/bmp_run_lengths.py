"""The pixels of a BMP of run lengths.

Read here, since rows without a run and an early end are refused by Pillow, and jumps of 4-bit indexes are read wrongly
by OpenCV.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from app.images.decode.channels import Channels
from app.images.decode.missing import Missing

_FILE_HEADER_BYTES = 14
_END_OF_ROW, _END, _JUMP = 0, 1, 2
_NIBBLES = [bytes([value >> 4, value & 15]) for value in range(256)]
_BYTES = [bytes([value]) for value in range(256)]


def run_length_channels(file: BinaryIO) -> tuple[Channels, Missing | None]:
    """Grey or RGB of a BMP that `bmp_header.has_run_lengths`, whose size was checked, and the rows that it lacks."""
    file.seek(0)
    data = file.read()
    start, size, width, height, _, bits, _, _, _, _, count = struct.unpack_from("<IIiiHHIIiiI", data, 10)
    height = abs(height)
    indexes, rows = _indexes(data[start:], bits, width, height)
    entries = min(count or 1 << bits, 1 << bits)
    table = data[_FILE_HEADER_BYTES + size :][: 4 * entries].ljust(4 << 8, b"\0")
    palette = np.frombuffer(table, np.uint8, 4 << 8).reshape(256, 4)[:, 2::-1]  # of blue, green, red and nothing
    is_grey = bool((palette == palette[:, :1]).all())
    colour: Any = palette[indexes, 0] if is_grey else palette[indexes]
    missing = Missing(height, rows, from_bottom=True) if rows < height else None
    return Channels(colour, "L" if is_grey else "RGB"), missing


def _indexes(data: bytes, bits: int, width: int, height: int) -> tuple[NDArray[np.uint8], int]:
    """(H, W) the indexes from top to bottom, 0 where no run tells them, and how many rows, the lowest first, are there.

    All of them are where an end is said, however early.
    """
    pixels = bytearray(width * height)
    at = x = y = 0
    while y < height:
        head = data[at : at + 2]
        at += 2
        if len(head) < 2:
            break
        count, value = head
        if count:
            run = (_BYTES if bits == 8 else _NIBBLES)[value] * count
        elif value == _END_OF_ROW:
            x, y = 0, y + 1
            continue
        elif value == _END:
            y = height
            break
        elif value == _JUMP:
            right, up = data[at : at + 2].ljust(2, b"\0")
            at, x, y = at + 2, x + right, y + up
            continue
        else:
            count, size = value, (value * bits + 7) // 8
            run = data[at : at + size]
            if len(run) < size:
                break
            run = run if bits == 8 else b"".join(_NIBBLES[pair] for pair in run)
            at += size + size % 2
        there = min(count, max(0, width - x))
        pixels[y * width + x : y * width + x + there] = run[:there]
        x += count
    rows = height if y >= height - 1 and x >= width else min(y, height)
    return np.frombuffer(pixels, np.uint8).reshape(height, width)[::-1], rows
