"""The strips and tiles of a TIFF page, found in the file and decompressed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.images import deflate
from app.images.decode import tiff_wrapping as wrapping
from app.images.decode.tiff_layout import (
    BLACK_IS_ZERO,
    CMYK,
    COLOURS,
    DEFLATE,
    EXTRA_SAMPLES,
    FAX,
    JPEG,
    NO_COMPRESSION,
    RGB,
    YCBCR,
    Layout,
    unsupported,
)
from app.images.decode.tiff_ycbcr import SUBSAMPLING, subsampling
from app.images.tiff_directories import Directory
from app.images.tiff_pages import PHOTOMETRIC

_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS = 273, 279, 324, 325
_FAX_OPTIONS, _FAX4_OPTIONS, _JPEG_TABLES = 292, 293, 347
_JPEG_BITS = 8
_UNASSOCIATED_ALPHA = 2
_BATCH_BYTES = 16 << 20
_MAX_REPEATS = 4
_MAX_WASTE = 4  # tiles may reach over the edges of the page, but not by more than this many times its size
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)).reshape(256, 8)[:, ::-1]).tobytes()


class MissingPixels(Exception):
    """A strip or tile is not in the file, or not whole."""


class Segments:
    """Where the strips or tiles of a page stand; counts that are missing or zero are worked out."""

    def __init__(self, tags: Directory, layout: Layout) -> None:
        self._tags, self.layout = tags, layout
        names = (_TILE_OFFSETS, _TILE_COUNTS) if _TILE_OFFSETS in tags.entries else (_STRIP_OFFSETS, _STRIP_COUNTS)
        self.offsets = tags.array(names[0]).astype(np.int64)
        counts = tags.array(names[1]).astype(np.int64)
        if layout.across * layout.segment_width * layout.down * layout.segment_height > (
            _MAX_WASTE * layout.width * layout.height + (1 << 20)
        ):
            raise ValueError("tiles far larger than the page")
        self.expected = layout.across * layout.down * layout.planes
        if self.offsets.size > self.expected:
            self.offsets = self.offsets[: self.expected]
        self.counts = self._counts(counts)
        self._bytes_left = _MAX_REPEATS * tags.reader.size + _BATCH_BYTES

    def _counts(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The stated sizes, or up to the next segment or the end of the file where there are none."""
        size = self._tags.reader.size
        ends = np.append(np.sort(self.offsets), size)
        following = ends[np.searchsorted(ends, self.offsets, side="right").clip(max=len(ends) - 1)]
        result: NDArray[np.int64] = following - self.offsets
        known = min(counts.size, result.size)
        stated = counts[:known]
        result[:known] = np.where(stated > 0, stated, result[:known])
        return np.clip(result, 0, size)

    def data(self, index: int, needed: int | None = None) -> bytes:
        """The bytes of one segment as they stand; `needed` overrules what the file says of its size."""
        if index >= self.offsets.size or self.offsets[index] <= 0:
            raise MissingPixels
        count = int(self.counts[index]) if needed is None else needed
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise ValueError("strips or tiles that share their bytes again and again")
        data = self._tags.reader.bytes_at(int(self.offsets[index]), count)
        if not data or (needed is not None and len(data) < needed):
            raise MissingPixels
        if self.layout.reversed_bits and self.layout.compression not in (JPEG, *FAX):
            data = data.translate(_REVERSED)
        return data

    def batches(self) -> Iterator[range]:
        """Runs of segments of one plane that are decoded together, about 16 MiB at a time."""
        layout = self.layout
        each = max(1, _BATCH_BYTES // max(1, layout.row_bytes * layout.segment_height))
        in_plane = layout.across * layout.down
        for start in range(0, self.expected, in_plane):
            for first in range(start, start + in_plane, each):
                yield range(first, min(first + each, start + in_plane))

    def bytes_of(self, batch: range) -> NDArray[np.uint8]:
        """(rows, row_bytes) the plain bytes of a batch, its segments below each other. Raises `MissingPixels`."""
        layout = self.layout
        rows = [layout.segment_rows(index) for index in batch]
        if layout.compression == NO_COMPRESSION:
            data = b"".join(self.data(i, n * layout.row_bytes) for i, n in zip(batch, rows, strict=True))
            return np.frombuffer(data, np.uint8).reshape(-1, layout.row_bytes)
        if layout.compression in DEFLATE:
            data = b"".join(_inflated(self.data(i), n * layout.row_bytes) for i, n in zip(batch, rows, strict=True))
            return np.frombuffer(data, np.uint8).reshape(-1, layout.row_bytes)
        tags = wrapping.page_tags(layout.row_bytes, sum(rows), 1, layout.compression, BLACK_IS_ZERO, rows[0])
        return _decoded(tags, [self.data(index) for index in batch])

    def rows_there(self, index: int) -> NDArray[np.uint8]:
        """(rows, row_bytes) the whole rows that are left of a segment that is not whole; none for most compressions."""
        layout = self.layout
        most = layout.segment_rows(index) * layout.row_bytes
        data = b""
        if layout.compression in (NO_COMPRESSION, *DEFLATE):
            with contextlib.suppress(MissingPixels, ValueError):
                data = self.data(index)
                data = deflate.expand(data, most) if layout.compression in DEFLATE else data[:most]
        rows = len(data) // layout.row_bytes
        return np.frombuffer(data[: rows * layout.row_bytes], np.uint8).reshape(rows, layout.row_bytes)

    def samples_of(self, batch: range) -> NDArray[np.uint8]:
        """(rows, W, C) the samples of a batch whose compression gives samples: fax (0 and 1) and JPEG (8 bits)."""
        layout, tags = self.layout, self._tags
        rows = [layout.segment_rows(index) for index in batch]
        data = [self.data(index) for index in batch]
        samples = layout.samples_together
        page = wrapping.page_tags(layout.segment_width, sum(rows), samples, layout.compression, 1, rows[0])
        if layout.compression in FAX:
            if layout.bits != 1 or samples != 1:
                raise unsupported(f"{FAX[layout.compression]} data that is not black and white")
            page |= {258: wrapping.shorts(1), 266: wrapping.shorts(2 if layout.reversed_bits else 1)}
            page |= {tag: wrapping.longs(tags.number(tag, 0)) for tag in (_FAX_OPTIONS, _FAX4_OPTIONS)}
            return _decoded(page, data)[..., None].astype(np.uint8)
        if layout.bits != _JPEG_BITS:
            raise unsupported(f"JPEG data of {layout.bits} bits")
        page |= _jpeg_tags(tags, layout)
        values = _decoded(page, data)
        return values[..., None] if values.ndim == 2 else values


def _inflated(data: bytes, needed: int) -> bytes:
    """The first `needed` bytes that Deflate packed. Raises `MissingPixels` where there are fewer."""
    try:
        plain = deflate.expand(data, needed)
    except ValueError as error:
        raise MissingPixels from error
    if len(plain) < needed:
        raise MissingPixels
    return plain


def _jpeg_tags(tags: Directory, layout: Layout) -> dict[int, Any]:
    """What libtiff must know to decode JPEG segments: the tables they share, and how their colours are stored."""
    if layout.separate and layout.photometric == YCBCR:
        raise unsupported("JPEG data of YCbCr colours in separate planes")
    samples, grey = layout.samples_together, layout.samples_together < COLOURS[RGB]
    colours = BLACK_IS_ZERO if grey else layout.photometric if layout.photometric in (YCBCR, CMYK) else RGB
    page: dict[int, Any] = {PHOTOMETRIC: wrapping.shorts(colours)}
    if samples > COLOURS[colours]:
        if colours == CMYK or samples > COLOURS[colours] + 1:
            raise unsupported(f"JPEG data of {samples} channels")
        page[EXTRA_SAMPLES] = wrapping.shorts(_UNASSOCIATED_ALPHA)  # so that Pillow gives the channel whatever it is
    if colours == YCBCR:
        page[SUBSAMPLING] = wrapping.shorts(*subsampling(tags))
    tables = tags.block(_JPEG_TABLES)
    if tables:
        page[_JPEG_TABLES] = wrapping.undefined(tables)
    return page


def _decoded(page: dict[int, Any], data: list[bytes]) -> NDArray[np.uint8]:
    """The pixels of a wrapped page. Raises `MissingPixels` where a segment is broken."""
    try:
        return wrapping.decode(page, data)
    except (OSError, SyntaxError) as error:
        raise MissingPixels from error
