"""An uncompressed BMP whose file ends before its pixels do, filled up to its full length.

Most of these files begin with the lowest row, so that it is the upper rows which are missing.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from app.images.decode.missing import Completed, Missing

_UNCOMPRESSED = (0, 3, 6)  # plain, and with masks of colours
_OLDEST_BYTES = 12
_HEAD_BYTES = 34


def complete(file: BinaryIO) -> Completed | None:
    """The file with zeros for the rows that it lacks; None where none are missing, or nobody can say which."""
    file.seek(0)
    data = file.read()
    if len(data) < _HEAD_BYTES:
        return None
    start, size, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    if size <= _OLDEST_BYTES or compression not in _UNCOMPRESSED or width < 1:
        return None
    row_bytes, rows = (width * bits + 31) // 32 * 4, abs(height)
    lacking = start + row_bytes * rows - len(data)
    if lacking <= 0 or not row_bytes:
        return None
    there = max(0, len(data) - start) // row_bytes
    return Completed(data + bytes(lacking), Missing(rows, there, from_bottom=height > 0))
