"""The segments of a JPEG, bounded in number, looked through before any plugin sees them.

They say what other pictures the file holds, which scans there are and where they end. No pixel is decoded here.
"""

from __future__ import annotations

import dataclasses
import itertools
import mmap
import re
import struct
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from app.notices import NoticeKind, say

Data = mmap.mmap | bytes

# A marker: FF and a code. FF00 is a stuffed data byte, D0..D7 and 01 stand alone and have no length.
# It begins with a fixed byte, which is looked for ten times as fast as one that may be repeated.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_HAS_LENGTH = [code not in (0x00, 0x01, *range(0xD0, 0xD9), 0xFF) for code in range(256)]
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
_RESTART_INTERVAL = 0xDD
_TABLES = (0xC4, 0xCC, 0xDB, 0xDD)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TOLD_BY = _FRAMES | {START_OF_SCAN, _RESTART_INTERVAL}
_PROGRESSIVE = (0xC2, 0xCA)
_APP0, _APP1, _APP2, _APP13, _APP14, _COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
_MAX_SEGMENTS = 40_000
_MAX_HEAD_SEGMENTS = 10_000  # before the first scan; 64 KB each, where they carry anything
_MAX_JUNK_BYTES = 4096
_MAX_KEPT_SEGMENTS = 400  # a profile takes up to 255
_MAX_KEPT_TABLES = 64  # of a kind, the last ones: each stands in for an earlier one of its number, and 4 are in use
_MAX_KEPT_OF_A_KIND = {_APP0: 2, _APP1: 40, _APP2: 256, _APP13: 20, _APP14: 1, _COMMENT: 4}
_PROFILE_INCOMPLETE = say(NoticeKind.PROFILE_INCOMPLETE, "The photo's colour profile is incomplete and was left out.")
_PROFILE = b"ICC_PROFILE\0"
_ADOBE_BYTES = 12
_MULTI_PICTURE = b"MPF\0"
_ENTRIES_TAG, _ENTRY_BYTES = 0xB002, 16
_MAX_PICTURES = 32
_THUMBNAIL_TYPES = (0x010001, 0x010002)
_SEARCHED_BYTES = 64 * 1024
_MAX_SHORT_BYTES = 1024  # of frame and scan headers
_GAIN_MAP = re.compile(
    rb"hdrgm:Version|HDRGainMap|hdrgainmap|urn:iso:std:iso:ts:21496|Semantic(?:=[\"']|>)(?:GainMap|RecoveryMap)"
)
_DEPTH_MAP = re.compile(rb"depthBlurEffect|AuxiliaryImageType(?:=[\"']|>)(?:urn:mpeg:hevc:2015:auxid:2|.{0,40}depth)")


class Segment(NamedTuple):
    """One marker segment: its code, where its marker begins and where its body ends."""

    marker: int
    start: int
    end: int

    def body(self, data: Data) -> bytes:
        """What stands behind the length."""
        return data[self.start + 4 : self.end]


@dataclasses.dataclass(frozen=True)
class Scans:
    """The scans of the first picture.

    Attributes:
        count: how many there are.
        end: where the coded data of the last one ends.
        is_ended: an end-of-image marker stands there.
        is_complete: together they bring every coefficient of every component to its full precision.
        starts_picture: the last scan brings the first bits of all colours, so that rows it lacks are not there at all.
        restart_interval: MCUs between restart markers, or 0.
    """

    count: int
    end: int
    is_ended: bool
    is_complete: bool
    starts_picture: bool
    restart_interval: int


@dataclasses.dataclass(frozen=True)
class JpegFile:
    """What `inspect` found.

    Attributes:
        kept: the segments that a plugin may see, up to the first scan.
        process: the code of the frame's marker, which names the kind of coding.
        precision: bits a channel.
        is_plain: these are all of them, and next to nothing lies between.
        notes: what was left out.
        frames: pictures of the file, without thumbnails and maps; the first one is the photo.
        gain_map: a map for HDR displays lies beside the photo.
        depth_map: a map of distances lies beside the photo.
        scans: the scans.
    """

    kept: list[Segment]
    is_plain: bool
    scans: Scans
    process: int
    precision: int
    notes: tuple[str, ...] = ()
    frames: int = 1
    gain_map: bool = False
    depth_map: bool = False

    def cleaned(self, data: Data) -> bytes:
        """A JPEG of the kept segments and everything from the first scan on."""
        head = b"".join(data[segment.start : segment.end] for segment in self.kept[:-1])
        return b"\xff\xd8" + head + data[self.kept[-1].start :]

    def bare(self, data: Data) -> bytes:
        """A JPEG without anything but what its pixels and their colours need."""
        needed = [s for s in self.kept if s.marker in _TABLES or s.marker in _FRAMES or _tells_colours(data, s)]
        head = b"".join(data[segment.start : segment.end] for segment in needed)
        return b"\xff\xd8" + head + data[self.kept[-1].start :]


def _tells_colours(data: Data, segment: Segment) -> bool:
    """Whether a segment is a piece of the profile, or Adobe's mark, and as long as every reader takes it to be."""
    if segment.marker == _APP14:
        return segment.end - segment.start - 4 >= _ADOBE_BYTES
    return segment.marker == _APP2 and data[segment.start + 4 : segment.start + 16] == _PROFILE


def segments(data: Data, position: int = 2) -> Iterator[Segment]:
    """Marker segments from a position on, up to the end-of-image marker; scan data and junk between is skipped.

    Raises:
        ValueError: there are absurdly many.
    """
    size = len(data)
    for _ in range(_MAX_SEGMENTS):
        head = data[position : position + 4]
        if len(head) < 4 or head[0] != 0xFF or not _HAS_LENGTH[head[1]]:  # not the next one at once
            found = _MARKER.search(data, position)
            if found is None:
                return
            position = found.end() - 2
            head = data[position : position + 4]
        marker = head[1]
        if marker == END_OF_IMAGE or len(head) < 4:
            yield Segment(marker, position, min(position + 2, size))
            return
        start, position = position, position + 2 + max(head[2] << 8 | head[3], 2)
        yield Segment(marker, start, position)
    raise ValueError("more segments than any JPEG has")


def inspect(data: Data, max_scans: int) -> JpegFile:
    """Look through the segments before the first scan, and count the scans up to one above `max_scans`.

    Raises:
        ValueError: there is no frame or no scan, or there are absurdly many segments.
    """
    head: list[Segment] = []
    for segment in itertools.islice(segments(data), _MAX_HEAD_SEGMENTS):
        head.append(segment)
        if segment.marker == START_OF_SCAN:
            break
    else:
        raise ValueError("a JPEG without a scan, or with more segments before it than any JPEG has")
    if not any(segment.marker in _FRAMES for segment in head):
        raise ValueError("a JPEG without a frame")
    thinned = head if len(head) <= _MAX_KEPT_SEGMENTS else list(_thinned_out(head))
    kept, profile_notes = _with_one_profile(data, thinned)
    is_plain = len(kept) == len(head) and _junk_bytes(head) <= _MAX_JUNK_BYTES
    multi = next((s for s in kept if s.marker == _APP2 and data[s.start + 4 : s.start + 8] == _MULTI_PICTURE), None)
    others = [] if multi is None else _other_pictures(data, multi)
    descriptions = [s.body(data) for s in kept if s.marker == _APP1]
    descriptions += [data[start : start + _SEARCHED_BYTES] for start in others]
    gain_map = any(_GAIN_MAP.search(text) for text in descriptions)
    depth_map = any(_DEPTH_MAP.search(text) for text in descriptions)
    frames = 1 + sum(not _is_map(data[start : start + _SEARCHED_BYTES]) for start in others)
    frame = next(segment for segment in head if segment.marker in _FRAMES)
    process, precision = frame.marker, data[frame.start + 4]
    return JpegFile(
        kept,
        is_plain,
        scans(data, max_scans),
        process,
        precision,
        profile_notes,
        frames,
        gain_map,
        depth_map,
    )


def _junk_bytes(head: list[Segment]) -> int:
    """Bytes before the first scan that belong to no segment; Pillow steps over them one by one."""
    return sum(later.start - earlier.end for earlier, later in itertools.pairwise([Segment(0, 0, 2), *head]))


def scans(data: Data, stop_above: int = 1_000) -> Scans:
    """Follow the scans of the first picture up to its end; more than `stop_above` of them are not looked at.

    Raises:
        ValueError: there are absurdly many segments.
    """
    script = _ScanScript()
    last = Segment(0, len(data), len(data))
    for last in segments(data):
        if last.marker in _TOLD_BY:
            script.note(last.marker, last.body(data) if last.end - last.start <= _MAX_SHORT_BYTES else b"")
        if script.count > stop_above:
            break
    is_ended = last.marker == END_OF_IMAGE
    end = last.start if is_ended or last.end > len(data) else len(data)
    return Scans(script.count, end, is_ended, script.is_complete(), script.starts_picture, script.interval)


class _ScanScript:
    """What the scans so far brought: which coefficients of which components, up to which bit."""

    def __init__(self) -> None:
        self.count = 0
        self.interval = 0
        self.starts_picture = False
        self._is_progressive = False
        self._components = b""
        self._low_bits: dict[tuple[int, int], int] = {}

    def note(self, marker: int, body: bytes) -> None:
        """Take a segment into account."""
        if marker in _FRAMES and not self._components:
            self._components = body[6::3]
            self._is_progressive = marker in _PROGRESSIVE
        elif marker == _RESTART_INTERVAL and len(body) >= 2:
            self.interval = int.from_bytes(body[:2], "big")
        elif marker == START_OF_SCAN:
            self.count += 1
            self._note_scan(body)

    def is_complete(self) -> bool:
        """Whether every coefficient has all its bits."""
        return all(self._low_bits.get((c, k), 1) == 0 for c in self._components for k in range(64))

    def _note_scan(self, body: bytes) -> None:
        count = body[0] if body else 0
        if len(body) < 4 + 2 * count:
            return
        components = body[1 : 1 + 2 * count : 2]
        # What an ordinary JPEG says here means nothing, and some cameras write nonsense.
        first, last, precision = body[1 + 2 * count : 4 + 2 * count] if self._is_progressive else (0, 63, 0)
        for component in components:
            for coefficient in range(first, min(last, 63) + 1):
                self._low_bits[component, coefficient] = precision & 15
        self.starts_picture = first == 0 and precision >> 4 == 0 and set(components) == set(self._components)


def _with_one_profile(data: Data, head: list[Segment]) -> tuple[list[Segment], tuple[str, ...]]:
    """The segments with each piece of the colour profile once; a profile that lacks pieces is left out with a note."""
    pieces = [s for s in head if s.marker == _APP2 and data[s.start + 4 : s.start + 16] == _PROFILE]
    if not pieces:
        return head, ()
    numbered = {segment.body(data)[12:13]: segment for segment in reversed(pieces)}
    total = pieces[0].body(data)[13:14]
    is_whole = bool(total) and set(numbered) == {bytes([number]) for number in range(1, total[0] + 1)}
    if is_whole and len(numbered) == len(pieces):
        return head, ()
    unwanted = set(pieces) - set(numbered.values() if is_whole else ())
    return [segment for segment in head if segment not in unwanted], () if is_whole else (_PROFILE_INCOMPLETE,)


def _thinned_out(head: list[Segment]) -> Iterator[Segment]:
    """Frame and scan, the last tables, and of everything else the first few; `metadata` reads the others itself."""
    seen: Counter[int] = Counter()
    total = Counter(segment.marker for segment in head)
    for segment in head:
        marker = segment.marker
        seen[marker] += 1
        needed = marker in _FRAMES or marker == START_OF_SCAN
        is_late_table = marker in _TABLES and total[marker] - seen[marker] < _MAX_KEPT_TABLES
        if needed or is_late_table or seen[marker] <= _MAX_KEPT_OF_A_KIND.get(marker, 0):
            yield segment


def _other_pictures(data: Data, segment: Segment) -> list[int]:
    """Where the other pictures of a multi-picture file begin, without thumbnails (CIPA DC-007)."""
    body = segment.body(data)[len(_MULTI_PICTURE) :]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(body[:4])
    if order is None:
        return []
    base = segment.start + 4 + len(_MULTI_PICTURE)
    starts = []
    try:
        for entry in _picture_entries(body, order):
            attributes, _, offset = struct.unpack_from(order + "III", entry)
            start = base + offset
            if offset and attributes & 0xFFFFFF not in _THUMBNAIL_TYPES and data[start : start + 2] == b"\xff\xd8":
                starts.append(start)
    except struct.error:
        return []
    return starts


def _picture_entries(body: bytes, order: str) -> Iterator[bytes]:
    directory = struct.unpack_from(order + "I", body, 4)[0]
    for index in range(min(16, struct.unpack_from(order + "H", body, directory)[0])):
        tag, _, count, value = struct.unpack_from(order + "HHII", body, directory + 2 + 12 * index)
        if tag == _ENTRIES_TAG:
            for number in range(min(count // _ENTRY_BYTES, _MAX_PICTURES)):
                yield body[value + number * _ENTRY_BYTES : value + (number + 1) * _ENTRY_BYTES]


def _is_map(text: bytes) -> bool:
    return bool(_GAIN_MAP.search(text) or _DEPTH_MAP.search(text))
