"""The old way of JPEG in TIFF (compression 6): one whole JPEG, or strips and tiles of coded data without their tables.

The tables stand in a JPEG without pixels (JPEGInterchangeFormat), in front of the first strip, or each by itself in the
file (JPEGQTables and its like). Of these and the bytes of one segment a whole JPEG of that segment is built; libtiff
never sees the file.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.errors import Unprocessable
from app.images.decode import cut_jpeg
from app.images.decode.jpeg_streams import (
    ADOBE,
    HUFFMAN,
    QUANTIZATION,
    RESTART_INTERVAL,
    TABLES,
    Frame,
    Part,
    build,
    colours_part,
    frame_of,
    head,
    pixels,
)
from app.images.decode.missing import Completed
from app.images.decode.tiff_layout import COLOURS, RGB, YCBCR, Layout
from app.images.decode.tiff_ycbcr import SUBSAMPLING, differs_from_jpeg, subsampling
from app.images.jpeg_segments import START_OF_SCAN, scans
from app.images.tiff_directories import Directory
from app.images.tiff_pages import PHOTOMETRIC

_PROCESS, _STREAM, _STREAM_BYTES, _INTERVAL = 512, 513, 514, 515
_QUANTIZATION_TABLES, _DC_TABLES, _AC_TABLES = 519, 520, 521
_BASELINE_PROCESS = 1
_SEQUENTIAL_FRAMES = (0xC0, 0xC1)
_JFIF = 0xE0
_BITS = 8
_TABLE_BYTES, _CODE_LENGTHS = 64, 16
_MAX_HEAD_BYTES = 1 << 20
_START_MARKER, _SCAN_MARKER = b"\xff\xd8", b"\xff\xda"
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_RESTART_BYTES = 2
_MAX_INTERVAL = 65535


def whole_jpeg(tags: Directory, layout: Layout, first: bytes, max_scans: int) -> Completed | None:
    """The whole JPEG that stands inside, and what it lacks; None where each segment must be decoded by itself.

    `first` are the bytes of the page's first strip or tile.

    Raises:
        ValueError: it has another size than the page, or more than `max_scans` scans.
    """
    start, length = tags.number(_STREAM, 0), tags.number(_STREAM_BYTES, 0)
    named = tags.reader.bytes_at(start, length or tags.reader.size) if start > 0 else b""
    is_only = layout.across * layout.down * layout.planes == 1
    if named.startswith(_START_MARKER) and _holds_page(named, first, is_only=is_only):
        return _checked(named, layout, max_scans)
    if is_only and first.startswith(_START_MARKER) and _holds_page(first, b"", is_only=True):
        return _checked(first, layout, max_scans)
    return None


def _holds_page(data: bytes, first: bytes, *, is_only: bool) -> bool:
    """Whether a stream is more than tables: coded data stands in it, and not that of one strip beside others."""
    found = scans(data)
    if not found.count or head(data)[1] >= len(data):
        return False
    if is_only:
        return found.is_ended or not first or first.startswith(_START_MARKER)
    return bool(found.restart_interval) or not first.startswith(_SCAN_MARKER)


def _checked(data: bytes, layout: Layout, max_scans: int) -> Completed:
    if scans(data, max_scans).count > max_scans:
        raise ValueError("the JPEG inside has more scans than a photo has")
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if image.size != (layout.width, layout.height):
            raise ValueError("the JPEG inside has another size than the page")
        try:
            image.load()
            is_whole = not cut_jpeg.looks_cut(image)
        except OSError:
            is_whole = False
    completed = Completed(data) if is_whole else cut_jpeg.complete(data)
    if completed is None:
        raise ValueError("nothing of the JPEG inside can be decoded")
    return completed


@dataclasses.dataclass(frozen=True)
class OldJpegSegments:
    """What the segments of a page share, and how they are decoded with it.

    Attributes:
        width: of a segment, in pixels.
        tables: for quantization and Huffman codes, and what is said of the colours.
        frame: how the components are sampled, for a segment of any size.
        scan: which component uses which tables.
        interval: MCUs between the restart markers of a segment, where it has some.
        gives_ycbcr: the samples are YCbCr as stored, since the page gives it a meaning of its own.
    """

    width: int
    tables: tuple[Part, ...]
    frame: Frame
    scan: Part
    interval: int
    gives_ycbcr: bool

    def stream(self, data: bytes, rows: int) -> bytes:
        """The JPEG of the bytes of one segment of so many rows; what it brings itself goes before what is shared."""
        parts, start = head(data)
        own = [part for part in parts if part.marker in TABLES]
        scan = next((part for part in parts if part.marker == START_OF_SCAN), self.scan)
        restarts, coded = self._with_restarts(data[start:])
        return build([*self.tables, *own, *restarts, self.frame.sized(self.width, rows), scan], coded)

    def decoded(self, streams: Sequence[bytes], rows: Sequence[int]) -> NDArray[np.uint8]:
        """(rows, W, C) the samples of segments below each other. Raises `MissingPixels` where one is broken."""
        return np.concatenate([pixels(each, self.width, count) for each, count in zip(streams, rows, strict=True)])

    def _with_restarts(self, coded: bytes) -> tuple[list[Part], bytes]:
        """Coded data whose restart markers, which count through the whole page, begin at 0, and the part for them."""
        coded = coded[_RESTART_BYTES:] if _RESTART.match(coded) else coded
        if not self.interval or not _RESTART.search(coded, 0, len(coded) - _RESTART_BYTES):
            return [], coded
        numbers = itertools.cycle(range(0xD0, 0xD8))
        counted = _RESTART.sub(lambda _: bytes([0xFF, next(numbers)]), coded)
        return [Part(RESTART_INTERVAL, self.interval.to_bytes(2, "big"))], counted


def read_shared(tags: Directory, layout: Layout, first: bytes) -> OldJpegSegments:
    """What the segments of a page share; `first` are the bytes of the first one.

    Raises:
        Unprocessable: `unsupported_compression` where it is missing, or not of the ordinary kind.
        ValueError: a table lies outside the file, or the sizes contradict each other.
    """
    if layout.samples not in (1, COLOURS[RGB]) or layout.samples != layout.colours or layout.separate:
        raise _unreadable()
    start, length = tags.number(_STREAM, 0), tags.number(_STREAM_BYTES, 0)
    named = tags.reader.bytes_at(start, min(length or _MAX_HEAD_BYTES, _MAX_HEAD_BYTES)) if start > 0 else b""
    parts = [*head(named)[0], *head(first)[0]]
    stated = frame_of(parts)
    frame = _frame_by_tags(tags, layout) if stated is None else _checked_frame(stated, layout)
    scan = next((part for part in parts if part.marker == START_OF_SCAN), None)
    colours, gives_ycbcr = _colours(parts, tags, frame)
    return OldJpegSegments(
        width=layout.segment_width,
        tables=(*colours, *_tables(parts, tags, layout.samples)),
        frame=frame,
        scan=scan or _usual_scan(frame, by_tags=stated is None),
        interval=_interval(parts, tags),
        gives_ycbcr=gives_ycbcr,
    )


def _checked_frame(frame: Frame, layout: Layout) -> Frame:
    if frame.part.marker not in _SEQUENTIAL_FRAMES or frame.bits != _BITS or len(frame.samplings) != layout.samples:
        raise _unreadable()
    if frame.width not in (layout.width, layout.segment_width) or frame.height < layout.segment_rows(0):
        raise ValueError("the JPEG inside has another size than the page")
    return frame


def _frame_by_tags(tags: Directory, layout: Layout) -> Frame:
    """The frame of the ordinary process: the first component sampled as the page says, the others once a block."""
    if tags.number(_PROCESS, _BASELINE_PROCESS) != _BASELINE_PROCESS or _QUANTIZATION_TABLES not in tags.entries:
        raise _unreadable()
    across, down = (1, 1) if layout.samples == 1 or _says_rgb(tags) else subsampling(tags)
    codes = [across << 4 | down, 0x11, 0x11][: layout.samples]
    body = bytes([_BITS, 0, 0, 0, 0, len(codes)])
    body += b"".join(bytes([number + 1, code, number]) for number, code in enumerate(codes))
    frame = frame_of([Part(_SEQUENTIAL_FRAMES[0], body)])
    assert frame is not None
    return frame


def _says_rgb(tags: Directory) -> bool:
    """Whether the page says that it is RGB, and nothing that only YCbCr has."""
    return tags.number(PHOTOMETRIC, YCBCR) == RGB and SUBSAMPLING not in tags.entries


def _colours(parts: Sequence[Part], tags: Directory, frame: Frame) -> tuple[list[Part], bool]:
    """What a stream must say of its colours, and whether it gives YCbCr as stored; its own marks go before the page."""
    said = [part for part in parts if part.marker == ADOBE or (part.marker == _JFIF and part.body[:4] == b"JFIF")]
    if said or len(frame.samplings) != COLOURS[RGB]:
        return said, False
    # Samples of which some are coarser than others are no RGB, whatever the page says.
    are_rgb = _says_rgb(tags) and len(set(frame.samplings)) == 1
    gives_ycbcr = not are_rgb and differs_from_jpeg(tags)
    return [colours_part(are_rgb=are_rgb or gives_ycbcr)], gives_ycbcr


def _tables(parts: Sequence[Part], tags: Directory, count: int) -> list[Part]:
    """The tables of the streams, or else those that stand by themselves in the file."""
    tables = [part for part in parts if part.marker in TABLES]
    if not any(part.marker == QUANTIZATION for part in tables):
        tables += _quantization(tags, count)
    if not any(part.marker == HUFFMAN for part in tables):
        tables += _huffman(tags, count)
    return tables


def _quantization(tags: Directory, count: int) -> list[Part]:
    """A table for each component, numbered like it."""
    places = _places(tags, _QUANTIZATION_TABLES, count)
    return [Part(QUANTIZATION, bytes([n]) + _exactly(tags, place, _TABLE_BYTES)) for n, place in enumerate(places)]


def _huffman(tags: Directory, count: int) -> list[Part]:
    """Two tables for each component, numbered like it: how many codes of each length there are, and their values."""
    found = []
    for kind, tag in enumerate((_DC_TABLES, _AC_TABLES)):
        for number, place in enumerate(_places(tags, tag, count)):
            lengths = _exactly(tags, place, _CODE_LENGTHS)
            values = _exactly(tags, place + _CODE_LENGTHS, sum(lengths))
            found.append(Part(HUFFMAN, bytes([kind << 4 | number]) + lengths + values))
    return found


def _places(tags: Directory, tag: int, count: int) -> list[int]:
    """Where the tables of the components stand; one that has none of its own uses that of the one before."""
    places = [int(place) for place in tags.numbers(tag)[:count]]
    if not places:
        raise _unreadable()
    for number in range(1, count):
        if number == len(places):
            places.append(0)
        places[number] = places[number] or places[number - 1]
    return places


def _exactly(tags: Directory, place: int, count: int) -> bytes:
    data = tags.reader.bytes_at(place, count)
    if place <= 0 or len(data) < count:
        raise ValueError("a table of the JPEG inside lies outside the file")
    return data


def _usual_scan(frame: Frame, *, by_tags: bool) -> Part:
    """The scan header of all components: each uses the tables of its own number, or both colours share the second."""
    names = frame.part.body[6::3]
    uses = b"".join(bytes([name, (n if by_tags else min(n, 1)) * 0x11]) for n, name in enumerate(names))
    return Part(START_OF_SCAN, bytes([len(names)]) + uses + b"\0\x3f\0")


def _interval(parts: Sequence[Part], tags: Directory) -> int:
    stated = next((part.body for part in parts if part.marker == RESTART_INTERVAL), b"")
    interval = int.from_bytes(stated[:2], "big") or tags.number(_INTERVAL, 0)
    return interval if 0 <= interval <= _MAX_INTERVAL else 0


def _unreadable() -> Unprocessable:
    return Unprocessable(
        "unsupported_compression",
        "This TIFF is compressed with old-style JPEG of a kind which cannot be read; save it with LZW or without "
        "compression.",
    )
