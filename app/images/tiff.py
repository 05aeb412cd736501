"""A TIFF writer: 8 and 16 bits, grey to RGBA, deflated band by band, with profile, XMP, DPI and EXIF.

An EXIF block is itself a small TIFF file. It is put first, and a new directory behind the pixels borrows its
entries, so that every offset in it (maker notes included) stays right.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from app.errors import Unprocessable
from app.images import deflate, samples
from app.images.metadata import exif, exif_tags
from app.images.metadata.exif_rules import as_rational, drop_unmovable_note
from app.images.metadata.exif_writing import serialized
from app.images.metadata.rewriting import Metadata
from app.images.picture import Picture, Pixels
from app.images.srgb_table import profile_space
from app.notices import NoticeKind, say

_SHORT, _LONG, _RATIONAL, _BYTE, _UNDEFINED = 3, 4, 5, 1, 7
_ONE_OF_SEVERAL_PAGES = 2
_ROUNDED = say(
    NoticeKind.GREY_ALPHA_ROUNDED,
    "Grey with transparency and a grey profile was rounded to 8 bits, since few programs open more of it.",
)
_DEFLATE, _DIFFERENCES, _UNASSOCIATED_ALPHA, _INCH = 8, 2, 2, 2


def write_tiff(file: BinaryIO, picture: Picture, metadata: Metadata, icc_profile: bytes | None) -> None:
    """Write a whole TIFF; pixels keep their depth. Raises `too_large_for_format` beyond 4 gibibytes."""
    TiffPagesWriter(file, 1).add(picture, metadata, icc_profile)


def readable(picture: Picture) -> tuple[Picture, list[str]]:
    """The picture as other programs open it, with notes: grey with alpha of 16 bits is what many of them do not.

    It is written as RGB with alpha; or with 8 bits where a grey profile, which RGB cannot carry, says how it looks.
    """
    if picture.alpha is None or not _is_deep_grey(picture):
        return picture, []
    if not becomes_eight_bit(picture):
        return dataclasses.replace(picture, grey=False), []
    eight = dataclasses.replace(picture, rgb=samples.eight_bit(picture.rgb), alpha=samples.eight_bit(picture.alpha))
    return eight, [_ROUNDED]


def becomes_eight_bit(picture: Picture) -> bool:
    """Whether `readable` rounds the samples of this picture to 8 bits."""
    has_grey_profile = picture.icc_profile is not None and profile_space(picture.icc_profile) == "GRAY"
    return _is_deep_grey(picture) and picture.alpha is not None and has_grey_profile


def _is_deep_grey(picture: Picture) -> bool:
    return picture.grey and picture.rgb.dtype != np.uint8


class TiffPagesWriter:
    """Writes pages one after another; after each `add` the file is whole."""

    def __init__(self, file: BinaryIO, total: int) -> None:
        self._file, self._total = file, total
        self._writer: _Writer | None = None
        self._written = 0

    def add(self, picture: Picture, metadata: Metadata, icc_profile: bytes | None) -> None:
        """Append a page. Of a page after the first, a camera maker's notes stay only where they may stand anywhere."""
        if self._writer is None:
            self._writer = _Writer(self._file, metadata.exif)
        elif metadata.exif:
            self._writer.add_block(metadata.exif)
        if self._total > 1:
            self._writer.add(254, _LONG, [_ONE_OF_SEVERAL_PAGES])
            self._writer.add(297, _SHORT, [self._written, self._total])
        _write_page(self._writer, picture, metadata, icc_profile)
        self._written += 1


def _write_page(writer: _Writer, picture: Picture, metadata: Metadata, icc_profile: bytes | None) -> None:
    count = samples.channels(picture)
    strips = [
        (writer.append(deflate.compress(_differences(band, writer.order).data)), band.shape[0])
        for band in samples.bands(picture)
    ]
    writer.add(256, _LONG, [picture.width])
    writer.add(257, _LONG, [picture.height])
    writer.add(258, _SHORT, [picture.rgb.dtype.itemsize * 8] * count)
    writer.add(259, _SHORT, [_DEFLATE])
    writer.add(262, _SHORT, [1 if picture.grey else 2])
    writer.add(273, _LONG, [position for (position, _), _ in strips])
    writer.add(274, _SHORT, [1])
    writer.add(277, _SHORT, [count])
    writer.add(278, _LONG, [strips[0][1]])
    writer.add(279, _LONG, [size for (_, size), _ in strips])
    writer.add(284, _SHORT, [1])
    writer.add(317, _SHORT, [_DIFFERENCES])
    if picture.alpha is not None:
        writer.add(338, _SHORT, [_UNASSOCIATED_ALPHA])
    if metadata.dpi:
        for tag, dpi in zip((282, 283), metadata.dpi, strict=True):
            writer.add(tag, _RATIONAL, list(as_rational(dpi)))
        writer.add(296, _SHORT, [_INCH])
    if metadata.xmp:
        writer.add_bytes(700, _BYTE, metadata.xmp)
    if metadata.iptc:
        writer.add_bytes(exif_tags.IPTC, _UNDEFINED, metadata.iptc)
    if icc_profile:
        writer.add_bytes(34675, _UNDEFINED, icc_profile)
    writer.finish()


class _Writer:
    """Appends blocks, gathers directory entries, and at the end writes the directory and points the header to it."""

    def __init__(self, file: BinaryIO, block: bytes | None) -> None:
        self._file = file
        self._entries: dict[int, bytes] = {}
        self.order = "<"
        if block:
            self.order, self._entries = exif.raw_entries(block)
        file.write(block or b"II*\0\0\0\0\0")
        self._pad()
        self._link = 4  # where the position of the next directory goes

    def add_block(self, block: bytes) -> None:
        """Append an EXIF block for the next directory, with offsets that count from the start of the file."""
        parsed = exif.parse(block).in_order(self.order)
        drop_unmovable_note(parsed)
        base = self._file.tell()
        data = serialized(parsed, base)
        if data:
            self.append(data)
            _, self._entries = exif.raw_entries(data, base)

    def _pad(self) -> None:
        if self._file.tell() % 2:
            self._file.write(b"\0")

    def append(self, data: bytes) -> tuple[int, int]:
        """Write a block on an even position; returns position and size."""
        position = self._file.tell()
        if position + len(data) > 0xFFFFFFF0:
            raise Unprocessable(
                "too_large_for_format", "The result is too large for a TIFF file; choose a smaller scale or PNG."
            )
        self._file.write(data)
        self._pad()
        return position, len(data)

    def add(self, tag: int, kind: int, values: list[int]) -> None:
        """Add an entry of numbers; a rational is two of them."""
        code = "H" if kind == _SHORT else "I"
        packed = struct.pack(f"{self.order}{len(values)}{code}", *values)
        self._put(tag, kind, len(values) // (2 if kind == _RATIONAL else 1), packed)

    def add_bytes(self, tag: int, kind: int, data: bytes) -> None:
        """Add an entry of bytes."""
        self._put(tag, kind, len(data), data)

    def _put(self, tag: int, kind: int, count: int, packed: bytes) -> None:
        value = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(f"{self.order}I", self.append(packed)[0])
        self._entries[tag] = struct.pack(f"{self.order}HHI", tag, kind, count) + value

    def finish(self) -> None:
        """Write the directory, sorted by tag, and let the header or the directory before point to it."""
        entries = b"".join(self._entries[tag] for tag in sorted(self._entries))
        table = struct.pack(f"{self.order}H", len(self._entries)) + entries + bytes(4)
        position, _ = self.append(table)
        self._file.seek(self._link)
        self._file.write(struct.pack(f"{self.order}I", position))
        self._file.seek(0, 2)
        self._link = position + len(table) - 4
        self._entries = {}


def _differences(band: Pixels, order: str) -> NDArray[Any]:
    """(rows, W, C), each sample less the one of the pixel to its left, in the file's byte order."""
    result: NDArray[Any] = np.array(band)
    np.subtract(band[:, 1:], band[:, :-1], out=result[:, 1:])
    return result.astype(f"{order}u2") if band.dtype == np.uint16 else result
