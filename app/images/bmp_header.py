"""The header of a BMP file: kinds that cannot be read are named; its masks of colours and its profile are read."""

from __future__ import annotations

import dataclasses
import io
import struct
from typing import BinaryIO

from app.errors import Unprocessable

_FILE_HEADER_BYTES, _MASKS_AT = 14, 54
_OLDEST_BYTES, _WITH_ALPHA_MASK_BYTES = 12, 56
_PLAIN, _BITFIELDS, _ALPHA_BITFIELDS = 0, 3, 6
_RUN_LENGTHS = {1: 8, 2: 4}  # methods, and the bits of the indexes that they repeat
_READ = {_PLAIN, *_RUN_LENGTHS, _BITFIELDS, _ALPHA_BITFIELDS}
_NAMES = {4: "JPEG", 5: "PNG", 11: "CMYK", 12: "CMYK run lengths", 13: "CMYK run lengths"}
_DEPTHS = (1, 4, 8, 16, 24, 32)
_MASKED_DEPTHS = (16, 32)
_WITH_PROFILE_BYTES, _COLOUR_SPACE_AT, _PROFILE_AT = 124, 70, 126  # a header of version 5, and places in the file
_EMBEDDED = b"DEBM"  # a linked profile, which names a file, is never looked for


@dataclasses.dataclass(frozen=True)
class MaskedBmp:
    """A BMP whose pixels are numbers of `bits` (16 or 32), of which masks cut out red, green, blue and alpha."""

    width: int
    height: int
    bits: int
    top_down: bool
    start: int
    masks: tuple[int, int, int, int]


def read_masked(file: BinaryIO) -> MaskedBmp | None:
    """The masks of a BMP that has them, else None.

    Raises:
        Unprocessable: `unsupported_compression` or `unsupported_depth`, with the name of the kind.
    """
    file.seek(0)
    head = file.read(_MASKS_AT + 16).ljust(_MASKS_AT + 16, b"\0")
    start, size, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", head, 10)
    if size <= _OLDEST_BYTES:
        return None
    if compression not in _READ:
        name = _NAMES.get(compression, f"number {compression}")
        raise Unprocessable(
            "unsupported_compression",
            f"This BMP is compressed with the method {name}, which cannot be read; save it as PNG.",
        )
    if bits not in _DEPTHS:
        raise Unprocessable(
            "unsupported_depth", f"This BMP has {bits} bits a pixel, which cannot be read; save it as PNG."
        )
    if compression not in (_BITFIELDS, _ALPHA_BITFIELDS) or bits not in _MASKED_DEPTHS:
        return None
    red, green, blue, alpha = struct.unpack_from("<4I", head, _MASKS_AT)
    if compression != _ALPHA_BITFIELDS and size < _WITH_ALPHA_MASK_BYTES:
        alpha = 0
    return MaskedBmp(width, abs(height), bits, height < 0, start, (red, green, blue, alpha))


def has_run_lengths(file: BinaryIO) -> bool:
    """Whether the pixels of a BMP are compressed as run lengths."""
    file.seek(0)
    head = file.read(_MASKS_AT).ljust(_MASKS_AT, b"\0")
    size, bits, compression = struct.unpack_from("<I10xHI", head, _FILE_HEADER_BYTES)
    return bool(size > _OLDEST_BYTES and _RUN_LENGTHS.get(compression) == bits)


def without_masks(file: BinaryIO) -> BinaryIO:
    """The header alone, saying that there are no masks: Pillow reads size and resolution from it, and no pixel."""
    file.seek(0)
    head = bytearray(file.read(_FILE_HEADER_BYTES + 124))
    struct.pack_into("<I", head, _FILE_HEADER_BYTES + 16, _PLAIN)
    return io.BytesIO(bytes(head))


def embedded_profile(file: BinaryIO, most_bytes: int) -> bytes | None:
    """The ICC profile that a BMP of version 5 holds; None for one without it.

    Nothing where it is not whole, or larger than `most_bytes`.
    """
    file.seek(0)
    head = file.read(_FILE_HEADER_BYTES + _WITH_PROFILE_BYTES)
    if len(head) < _FILE_HEADER_BYTES + _WITH_PROFILE_BYTES:
        return None
    if struct.unpack_from("<I", head, 14)[0] < _WITH_PROFILE_BYTES or head[_COLOUR_SPACE_AT:][:4] != _EMBEDDED:
        return None
    start, size = struct.unpack_from("<II", head, _PROFILE_AT)
    if size > most_bytes:
        return b""
    file.seek(_FILE_HEADER_BYTES + start)
    profile = file.read(size)
    return profile if len(profile) == size else b""
