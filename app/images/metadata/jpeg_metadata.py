"""The metadata segments of a JPEG: read up to the first scan, and built for a new file.

Segments of one kind are joined as their standards say: EXIF that goes on, Photoshop resources, extended XMP.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import struct
from collections.abc import Iterator

from app.images.jpeg_segments import END_OF_IMAGE, START_OF_SCAN, segments
from app.images.metadata.exif import Buffer

MAX_SEGMENT_BYTES = 65_533
EXIF_MARK = b"Exif\0\0"
XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"
PHOTOSHOP_MARK = b"Photoshop 3.0\0"
_EXTENDED_MARK = b"http://ns.adobe.com/xmp/extension/\0"
_GUID_BYTES = 32
_APP0, _APP1, _APP11, _APP13, _COMMENT = 0xE0, 0xE1, 0xEB, 0xED, 0xFE
_READ = frozenset({*range(0xE0, 0xF0), _COMMENT})
# What describes the file or its colours, or is a small copy of the picture; of no interest once it is another file.
_SILENT = (
    *(b"JFIF\0", b"JFXX\0", b"ICC_PROFILE\0", b"MPF\0", b"urn:iso:std:iso:ts:21496:", b"Adobe", b"Ducky", b"QVCI"),
)
_MAX_LABEL = 12
_DENSITY_UNITS = {1: 1.0, 2: 2.54}  # dots an inch, dots a centimetre
_MAX_SEGMENTS = 2000
_MAX_TOTAL_BYTES = 16 * 1024 * 1024
_TIFF_MARKS = (b"II", b"MM")


@dataclasses.dataclass
class Segments:
    """What a JPEG carries beside its picture.

    Attributes:
        exif: each EXIF block, from its TIFF header on. xmp: each plain packet.
        extended: parts of extended XMP as (guid, whole size, offset, bytes).
        photoshop: the joined resources. comments: each comment's bytes.
        dpi: JFIF's pixels per inch in x and y.
        signed: whether there are content credentials (C2PA), a signature of the file.
        others: names of segments that a camera or program made for itself.
        complete: False when there were more segments than are read.
    """

    exif: list[bytes] = dataclasses.field(default_factory=list)
    xmp: list[bytes] = dataclasses.field(default_factory=list)
    extended: list[tuple[bytes, int, int, bytes]] = dataclasses.field(default_factory=list)
    photoshop: bytes = b""
    comments: list[bytes] = dataclasses.field(default_factory=list)
    dpi: tuple[float, float] | None = None
    signed: bool = False
    others: list[str] = dataclasses.field(default_factory=list)
    complete: bool = True


def read_segments(data: Buffer) -> Segments:
    """Gather the segments of the first picture of a file."""
    found = Segments()
    total = 0
    for count, (marker, body) in enumerate(_walk(data)):
        total += len(body)
        if count >= _MAX_SEGMENTS or total > _MAX_TOTAL_BYTES:
            found.complete = False
            break
        _sort(found, marker, body)
    return found


def _walk(data: Buffer) -> Iterator[tuple[int, bytes]]:
    """Marker and body of the segments that are read, before the first scan."""
    for segment in segments(data):
        if segment.marker in (START_OF_SCAN, END_OF_IMAGE):
            return
        if segment.marker in _READ:
            yield segment.marker, segment.body(data)


def _sort(found: Segments, marker: int, body: bytes) -> None:
    if marker == _COMMENT:
        found.comments.append(body)
    elif marker == _APP0:
        found.dpi = found.dpi or _density(body)
        _note_other(found, marker, body)
    elif marker == _APP11 and b"jumb" in body[8:16]:
        found.signed = True
    elif marker == _APP13 and body.startswith(PHOTOSHOP_MARK):
        found.photoshop += body[len(PHOTOSHOP_MARK) :]
    elif marker != _APP1 or not _sort_app1(found, body):
        _note_other(found, marker, body)


def _note_other(found: Segments, marker: int, body: bytes) -> None:
    if body.startswith(_SILENT):
        return
    label = re.match(rb"[A-Za-z0-9_.-]*", body)
    name = label[0][:_MAX_LABEL].decode("ascii") if label else ""
    found.others.append(f"APP{marker - _APP0} {name}".rstrip())


def _sort_app1(found: Segments, body: bytes) -> bool:
    """Whether the segment is EXIF or XMP."""
    if body.startswith(EXIF_MARK):
        block = body[len(EXIF_MARK) :]
        if found.exif and not block.startswith(_TIFF_MARKS):
            found.exif[-1] += block  # a block larger than a segment goes on in the next
        else:
            found.exif.append(block)
    elif body.startswith(XMP_MARK):
        found.xmp.append(body[len(XMP_MARK) :])
    elif body.startswith(_EXTENDED_MARK):
        start = len(_EXTENDED_MARK) + _GUID_BYTES
        if len(body) >= start + 8:
            size, offset = struct.unpack_from(">II", body, start)
            found.extended.append((body[len(_EXTENDED_MARK) : start], size, offset, body[start + 8 :]))
    else:
        return False
    return True


def _density(body: bytes) -> tuple[float, float] | None:
    if body[:5] != b"JFIF\0" or len(body) < 12 or body[7] not in _DENSITY_UNITS:
        return None
    x, y = struct.unpack_from(">HH", body, 8)
    return x * _DENSITY_UNITS[body[7]], y * _DENSITY_UNITS[body[7]]


def extended_packet(segments: Segments, guid: str, max_bytes: int) -> bytes | None:
    """The extended packet of a GUID, put together; None when a part is missing, or its checksum is not the GUID."""
    parts = sorted(
        (offset, part) for name, _, offset, part in segments.extended if name == guid.encode("latin-1", "replace")
    )
    joined = b""
    for offset, part in parts:
        if offset != len(joined) or len(joined) + len(part) > max_bytes:
            return None
        joined += part
    whole = hashlib.md5(joined, usedforsecurity=False).hexdigest().upper()
    return joined if joined and whole == guid.upper() else None


def photoshop_segments(resource_bytes: bytes) -> bytes:
    """Photoshop resources, in as many APP13 segments as they need."""
    room = MAX_SEGMENT_BYTES - len(PHOTOSHOP_MARK)
    starts = range(0, len(resource_bytes), room)
    return b"".join(_segment(_APP13, PHOTOSHOP_MARK + resource_bytes[start : start + room]) for start in starts)


def comment_segment(text: str) -> bytes:
    """A comment in UTF-8, which must fit into one segment."""
    return _segment(_COMMENT, text.encode("utf-8", "replace"))


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
