"""A JPEG whose coded data may end too early: closed so that it decodes, and how many of its rows are really there.

libjpeg fills what is missing with grey and does not say so. What is missing is found by decoding twice: bits that are
appended change exactly the pixels for which the file has no bits of its own.
"""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.images.decode.missing import WHOLE_WITHOUT_END, Completed, Fault, Missing
from app.images.jpeg_segments import Data, JpegFile, Scans, scans

_END = b"\xff\xd9"
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_MIN_ZERO_TAIL = 16  # zeros at the end of a file are no coded data, but room that was never written
_LOST_SECTOR = bytes(512)
_WRITTEN = re.compile(rb"[^\0]")
_FILLER_BYTES = 96
_RESTARTS = 64
_MAX_INTERVAL_BYTES = 1 << 20
_FILLER_GREY = 128
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


def is_filler(pixel: NDArray[np.uint8]) -> bool:
    """Whether a pixel (C,) is of the grey that stands for missing data, in whatever colours libtiff gives."""
    return bool((abs(pixel.astype(np.int16) - _FILLER_GREY) <= 1).all())


def lost_sectors(jpeg: JpegFile, data: Data) -> bool:
    """Whether whole sectors of a file's coded pixels are zero, as where a disk or a card lost them.

    The decoder finds its way again behind them, so that no bits need be missing. Flat colours may be coded as long runs
    of zeros too, but these do not begin and end at the borders of sectors.
    """
    end = jpeg.scans.end
    position = data.find(_LOST_SECTOR, jpeg.kept[-1].end, end)
    while position >= 0:
        written = _WRITTEN.search(data, position, end)
        stop = written.start() if written else end
        if position % len(_LOST_SECTOR) == 0 and stop % len(_LOST_SECTOR) == 0:
            return True
        position = data.find(_LOST_SECTOR, stop, end)
    return False


def complete(data: bytes) -> Completed | None:
    """Close a JPEG and find out what is missing; None where nothing can be decoded at all.

    Raises:
        Exception: whatever Pillow throws at a file that is more than cut off.
    """
    closed = _close(data, _decoded)
    if closed is None:
        return None
    missing = _missing(closed)
    if missing is not None:
        return Completed(closed.data, missing)
    if not closed.found.is_ended:
        return Completed(closed.data, None, (WHOLE_WITHOUT_END,))
    coarse = Missing(closed.height, 0, Fault.DAMAGED, only_detail=True).note()
    return Completed(closed.data, None, () if closed.found.is_complete else (coarse,))


def rows_there(data: bytes, decode: Callable[[bytes], NDArray[np.uint8]]) -> int:
    """How many rows of a stream that `decode` makes (H, W, C) pixels of have bits of their own: the first ones.

    Raises what `decode` raises.
    """
    closed = _close(data, decode)
    return 0 if closed is None else closed.first


@dataclasses.dataclass(frozen=True)
class _Closed:
    """A stream with its end mark, its scans, its rows, and the first of these that lacks bits (or the height)."""

    data: bytes
    found: Scans
    height: int
    first: int


def _close(data: bytes, decode: Callable[[bytes], NDArray[np.uint8]]) -> _Closed | None:
    found = scans(data)
    if not found.is_ended:
        data = _without_room(data)
        found = scans(data)
    if found.count == 0:
        return None
    body = data[: found.end].rstrip(b"\xff")  # half a marker, or bytes that fill up before one
    closed = body + _END
    pixels = decode(closed)
    first = min(_first_difference(pixels, decode(body + tail + _END)) for tail in _tails(body, found))
    return _Closed(closed, found, len(pixels), first)


def _missing(closed: _Closed) -> Missing | None:
    """The rows that are missing, or lack detail; scans that are not there at all leave every row without it.

    Where the stream has its end mark its bits were lost further up, and nobody knows which rows are right.
    """
    found, first, height = closed.found, closed.first, closed.height
    if first < height and found.is_ended:
        return Missing(height, None, Fault.DAMAGED)
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
