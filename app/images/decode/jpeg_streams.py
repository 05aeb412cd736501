"""JPEG streams as a TIFF holds them, whole or in parts: their frames, streams built of parts, and their pixels."""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.images.decode.missing import MissingPixels
from app.images.jpeg_segments import END_OF_IMAGE, START_OF_SCAN, segments

QUANTIZATION, HUFFMAN, RESTART_INTERVAL, ADOBE = 0xDB, 0xC4, 0xDD, 0xEE
TABLES = (QUANTIZATION, HUFFMAN, 0xCC)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_RESTARTS = range(0xD0, 0xD8)
_FIRST_MARKER = 0xC0
_MAX_HEAD_PARTS = 100
_START, _END = b"\xff\xd8", b"\xff\xd9"


class Part(NamedTuple):
    """One marker segment: its code, and what stands behind its length."""

    marker: int
    body: bytes

    def content(self) -> bytes:
        """The segment as it stands in a stream."""
        return bytes([0xFF, self.marker]) + (len(self.body) + 2).to_bytes(2, "big") + self.body


@dataclasses.dataclass(frozen=True)
class Frame:
    """The frame header of a stream: kind of coding, size in pixels, and sampling of each component."""

    part: Part
    bits: int
    width: int
    height: int
    samplings: tuple[tuple[int, int], ...]

    def sized(self, width: int, height: int) -> Part:
        """The same header for another size in pixels."""
        body = self.part.body
        return Part(self.part.marker, body[:1] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + body[5:])


def head(data: bytes) -> tuple[list[Part], int]:
    """The parts in front of the coded data, the last one its scan header, and where that data begins.

    Nothing and 0 for data that begins without a marker. Of a stream that holds tables only: these, and its length.
    """
    if len(data) < 2 or data[0] != 0xFF or data[1] < _FIRST_MARKER or data[1] in _RESTARTS:
        return [], 0
    parts: list[Part] = []
    for segment in itertools.islice(segments(data, 0), _MAX_HEAD_PARTS):
        if segment.marker == END_OF_IMAGE or segment.end > len(data):
            break
        parts.append(Part(segment.marker, segment.body(data)))
        if segment.marker == START_OF_SCAN:
            return parts, segment.end
    return parts, len(data)


def frame_of(parts: Iterable[Part]) -> Frame | None:
    """The first frame header among parts, or None where there is none that makes sense."""
    for part in parts:
        body = part.body
        if part.marker in _FRAMES and len(body) >= 9 and len(body) == 6 + 3 * body[5]:
            samplings = tuple((code >> 4, code & 15) for code in body[7::3])
            height, width = (int.from_bytes(body[at : at + 2], "big") for at in (1, 3))
            return Frame(part, body[0], width, height, samplings)
    return None


def colours_part(*, are_rgb: bool) -> Part:
    """Adobe's marker, which says whether three components are RGB or YCbCr."""
    return Part(ADOBE, b"Adobe\0\x64\0\0\0\0" + bytes([not are_rgb]))


def build(parts: Iterable[Part], coded: bytes) -> bytes:
    """A whole stream of its parts, the scan header last, and the coded data."""
    return _START + b"".join(part.content() for part in parts) + coded + _END


def pixels(stream: bytes, width: int, height: int) -> NDArray[np.uint8]:
    """(H, W, 1 or 3) what a whole stream of one or three components holds.

    Raises:
        MissingPixels: it has another size, or nothing can be decoded.
    """
    Image.MAX_IMAGE_PIXELS = None  # the size was checked with the page
    try:
        with Image.open(io.BytesIO(stream), formats=("JPEG",)) as image:
            if image.size != (width, height) or image.mode not in ("L", "RGB"):
                raise MissingPixels
            image.load()
            values = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise MissingPixels from error
    return values[..., None] if values.ndim == 2 else values
