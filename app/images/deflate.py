"""Deflate for PNG and TIFF: ISA-L's, or zlib's at its fastest where that is missing (a machine with only torch)."""

from __future__ import annotations

import zlib
from typing import Any

_packer: Any
try:
    from isal import isal_zlib
except ImportError:  # where only torch and the model packages are; slower, and the files are as good
    _packer = zlib
else:
    _packer = isal_zlib

_LEVEL = 1


def stream() -> Any:
    """An object with `compress(data)` and `flush()`, both bytes; together they give one zlib stream."""
    return _packer.compressobj(_LEVEL)


def compress(data: Any) -> bytes:
    """One zlib stream of anything with a buffer."""
    packed: bytes = _packer.compress(data, _LEVEL)
    return packed


def expand(data: bytes, most: int) -> bytes:
    """Up to the first `most` bytes that a zlib stream holds. Raises ValueError where it is broken."""
    try:
        plain: bytes = _packer.decompressobj().decompress(data, most)
    except (zlib.error, _packer.error) as error:
        raise ValueError("a broken zlib stream") from error
    return plain


def crc32(*pieces: bytes) -> int:
    """PNG's checksum over all pieces."""
    value = 0
    for piece in pieces:
        value = _packer.crc32(piece, value)
    return value
