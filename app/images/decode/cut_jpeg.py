"""A JPEG whose coded data may end too early: closed so that it decodes, and how many of its rows are really there.

libjpeg fills what is missing with grey and does not say so. What is missing is found by decoding twice: bits that are
appended change exactly the pixels for which the file has no bits of its own.
"""

from __future__ import annotations

import io
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.images.decode.missing import WHOLE_WITHOUT_END, Completed, Missing
from app.images.jpeg_segments import Scans, scans

_END = b"\xff\xd9"
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_MIN_ZERO_TAIL = 16  # zeros at the end of a file are no coded data, but room that was never written
_FILLER_BYTES = 96
_RESTARTS = 64
_MAX_INTERVAL_BYTES = 1 << 20
_MISSING_GREYS = {"L": (128,), "RGB": (128, 128, 128), "CMYK": (127, 127, 127, 127)}


def looks_cut(image: Image.Image) -> bool:
    """Whether a loaded JPEG ends in the grey that stands for missing data; a photo seldom does so by itself.

    A file that is cut off within its very last block, and has an end mark, is not found: that block is not grey.
    """
    corner = image.getpixel((image.width - 1, image.height - 1))
    values = corner if isinstance(corner, tuple) else (corner,)
    expected = _MISSING_GREYS.get(image.mode, ())
    return len(values) == len(expected) and all(
        value is not None and abs(value - grey) <= 1 for value, grey in zip(values, expected, strict=True)
    )


def complete(data: bytes) -> Completed | None:
    """Close a JPEG and find out what is missing; None where nothing can be decoded at all.

    Raises:
        Exception: whatever Pillow throws at a file that is more than cut off.
    """
    found = scans(data)
    if not found.is_ended:
        data = _without_room(data)
        found = scans(data)
    if found.count == 0:
        return None
    body = data[: found.end].rstrip(b"\xff")  # half a marker, or bytes that fill up before one
    closed = body + _END
    pixels = _decoded(closed)
    first = min(_first_difference(pixels, _decoded(body + tail + _END)) for tail in _tails(body, found))
    missing = _missing(found, first, len(pixels))
    if missing is None:
        is_coarse = found.is_ended and not found.is_complete
        coarse = Missing(len(pixels), 0, only_detail=True).note()
        return Completed(closed, None, (coarse,) if is_coarse else () if found.is_ended else (WHOLE_WITHOUT_END,))
    return Completed(closed, missing)


def _missing(found: Scans, first: int, height: int) -> Missing | None:
    """The rows that are missing, or lack detail; scans that are not there at all leave every row without it."""
    if found.starts_picture and first < height:
        return Missing(height, first)
    if first < height or not (found.is_complete or found.is_ended):
        return Missing(height, first if found.is_complete else 0, only_detail=True)
    return None


def _without_room(body: bytes) -> bytes:
    """Without zeros that fill up the file."""
    written = body.rstrip(b"\0")
    return written if len(body) - len(written) >= _MIN_ZERO_TAIL else body


def _tails(body: bytes, found: Scans) -> list[bytes]:
    """Bits to append: ones, a pattern and noise, for whatever bits are missing, some of these differ from libjpeg's."""
    noise = np.random.default_rng(1).integers(0, 0xFF, _FILLER_BYTES, np.uint8).tobytes()
    if not found.restart_interval:
        return [b"\xfe" * _FILLER_BYTES, b"\x55" * _FILLER_BYTES, noise]
    found_last = _RESTART.findall(body[-_MAX_INTERVAL_BYTES:])[-1:]
    number = found_last[0][0] - 0xD0 + 1 if found_last else 0
    marked = b"".join(b"\xff" + bytes([0xD0 + (number + index) % 8]) + noise for index in range(_RESTARTS))
    return [marked, noise + marked, b"\x55" * _FILLER_BYTES + marked]


def _decoded(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        image.load()
        return np.asarray(image)


def _first_difference(pixels: NDArray[np.uint8], others: NDArray[np.uint8]) -> int:
    """The first row that differs, or the height."""
    differs = (pixels != others).reshape(len(pixels), -1).any(axis=1)
    return int(differs.argmax()) if differs.any() else len(pixels)
