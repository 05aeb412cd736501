"""The strips and tiles of a TIFF page, found in the file and decompressed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.images import deflate
from app.images.decode import cut_jpeg
from app.images.decode import tiff_wrapping as wrapping
from app.images.decode.missing import Fault, MissingPixels
from app.images.decode.tiff_jpeg import JpegSegments
from app.images.decode.tiff_layout import (
    BLACK_IS_ZERO,
    DEFLATE,
    FAX,
    JPEG,
    NO_COMPRESSION,
    OLD_JPEG,
    Layout,
    unsupported,
)
from app.images.decode.tiff_old_jpeg import OldJpegSegments, read_shared
from app.images.tiff_directories import Directory

_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS = 273, 279, 324, 325
_FAX_OPTIONS, _FAX4_OPTIONS = 292, 293
_JPEGS = (JPEG, OLD_JPEG)
_BATCH_BYTES = 16 << 20
_MAX_REPEATS = 4
_MAX_WASTE = 4  # tiles may reach over the edges of the page, but not by more than this many times its size
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)).reshape(256, 8)[:, ::-1]).tobytes()


class Segments:
    """Where the strips or tiles of a page stand; counts that are missing or zero are worked out."""

    def __init__(self, tags: Directory, layout: Layout) -> None:
        self._tags, self.layout = tags, layout
        names = (_TILE_OFFSETS, _TILE_COUNTS) if _TILE_OFFSETS in tags.entries else (_STRIP_OFFSETS, _STRIP_COUNTS)
        self._names = names
        self.offsets = tags.array(names[0]).astype(np.int64)
        counts = tags.array(names[1]).astype(np.int64)
        if layout.across * layout.segment_width * layout.down * layout.segment_height > (
            _MAX_WASTE * layout.width * layout.height + (1 << 20)
        ):
            raise ValueError("tiles far larger than the page")
        self.expected = layout.across * layout.down * layout.planes
        if self.offsets.size > self.expected:
            self.offsets = self.offsets[: self.expected]
        self._stated = counts[: self.offsets.size].tolist()
        self.counts = self._counts(counts)
        self._grey: tuple[bytes, int] | None = None  # the last segment that ends in grey and is whole, with its rows
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
        if self.layout.reversed_bits and self.layout.compression not in (*_JPEGS, *FAX):
            data = data.translate(_REVERSED)
        return data

    def first_bytes(self) -> bytes:
        """The bytes of the first segment, or nothing where they are not in the file."""
        with contextlib.suppress(MissingPixels):
            return self.data(0)
        return b""

    def fault(self) -> Fault:
        """Why segments are missing: the file ends before one does, or else they are damaged."""
        entry = self._tags.entries.get(self._names[0])
        is_cut = entry is not None and entry.position + entry.size > self._tags.reader.size
        is_cut = is_cut or any(self._is_cut(index) for index in range(self.offsets.size))
        return Fault.CUT_OFF if is_cut else Fault.DAMAGED

    def _is_cut(self, index: int) -> bool:
        """Whether a segment reaches beyond the end of the file."""
        count = self._stated[index] if index < len(self._stated) else 0
        if self.layout.compression == NO_COMPRESSION:
            count = self.layout.segment_rows(index) * self.layout.row_bytes
        return int(self.offsets[index]) + max(count, 1) > self._tags.reader.size

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
        if layout.compression in _JPEGS:
            return self._jpeg_rows_there(index)
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
        rows = [self.layout.segment_rows(index) for index in batch]
        data = [self.data(index) for index in batch]
        return self._fax(data, rows) if self.layout.compression in FAX else self._jpegs(batch, data, rows)

    def _fax(self, data: list[bytes], rows: list[int]) -> NDArray[np.uint8]:
        layout = self.layout
        if layout.bits != 1 or layout.samples_together != 1:
            raise unsupported(f"{FAX[layout.compression]} data that is not black and white")
        page = wrapping.page_tags(layout.segment_width, sum(rows), 1, layout.compression, BLACK_IS_ZERO, rows[0])
        page |= {258: wrapping.shorts(1), 266: wrapping.shorts(2 if layout.reversed_bits else 1)}
        page |= {tag: wrapping.longs(self._tags.number(tag, 0)) for tag in (_FAX_OPTIONS, _FAX4_OPTIONS)}
        return _decoded(page, data)[..., None].astype(np.uint8)

    @property
    def give_ycbcr(self) -> bool:
        """Whether the samples, once they were read, are YCbCr to which the page gives a meaning of its own."""
        return self.layout.compression == OLD_JPEG and self._jpeg.gives_ycbcr

    @functools.cached_property
    def _jpeg(self) -> JpegSegments | OldJpegSegments:
        if self.layout.compression == OLD_JPEG:
            return read_shared(self._tags, self.layout, self.first_bytes())
        return JpegSegments(self._tags, self.layout)

    def _jpegs(self, batch: range, data: list[bytes], rows: list[int]) -> NDArray[np.uint8]:
        """As `samples_of`. A decoder fills up with grey what bits are missing for, and is silent about it."""
        streams = [self._jpeg.stream(each, count) for each, count in zip(data, rows, strict=True)]
        values = self._jpeg.decoded(streams, rows)
        bottom = 0
        for index, stream, count in zip(batch, streams, rows, strict=True):
            bottom += count
            is_doubtful = self._is_cut(index) or cut_jpeg.is_filler(values[bottom - 1, -1])
            if is_doubtful and (stream, count) != self._grey:  # empty tiles are all the same
                if self._whole_rows(stream, count) < count:
                    raise MissingPixels
                self._grey = (stream, count)
        return values

    def _whole_rows(self, stream: bytes, rows: int) -> int:
        """How many of its first rows a segment has bits for."""
        return cut_jpeg.rows_there(stream, lambda tried: self._jpeg.decoded([tried], [rows]))

    def _jpeg_rows_there(self, index: int) -> NDArray[np.uint8]:
        row_bytes, rows = self.layout.row_bytes, self.layout.segment_rows(index)
        with contextlib.suppress(MissingPixels):
            stream = self._jpeg.stream(self.data(index), rows)
            there = self._whole_rows(stream, rows)
            return self._jpeg.decoded([stream], [rows])[:there].reshape(there, row_bytes)
        return np.empty((0, row_bytes), np.uint8)


def _inflated(data: bytes, needed: int) -> bytes:
    """The first `needed` bytes that Deflate packed. Raises `MissingPixels` where there are fewer."""
    try:
        plain = deflate.expand(data, needed)
    except ValueError as error:
        raise MissingPixels from error
    if len(plain) < needed:
        raise MissingPixels
    return plain


def _decoded(page: dict[int, Any], data: list[bytes]) -> NDArray[np.uint8]:
    """The pixels of a wrapped page. Raises `MissingPixels` where a segment is broken."""
    try:
        return wrapping.decode(page, data)
    except (OSError, SyntaxError) as error:
        raise MissingPixels from error
