"""JPEG segments of a TIFF: libtiff decodes them, told how their own frames are sampled, or we do as plain JPEGs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.images.decode import tiff_wrapping as wrapping
from app.images.decode.jpeg_streams import (
    RESTART_INTERVAL,
    TABLES,
    Frame,
    build,
    colours_part,
    frame_of,
    head,
    pixels,
)
from app.images.decode.missing import MissingPixels
from app.images.decode.tiff_layout import (
    BLACK_IS_ZERO,
    CMYK,
    COLOURS,
    EXTRA_SAMPLES,
    JPEG,
    RGB,
    YCBCR,
    Layout,
    unsupported,
)
from app.images.decode.tiff_ycbcr import SUBSAMPLING
from app.images.jpeg_segments import START_OF_SCAN
from app.images.tiff_directories import Directory
from app.images.tiff_pages import PHOTOMETRIC

_JPEG_TABLES = 347
_BITS = 8
_UNASSOCIATED_ALPHA = 2
_WHOLE = (1, 1)
_SUBSAMPLINGS = {(across, down) for across in (1, 2, 4) for down in (1, 2, 4)}


class JpegSegments:
    """How the JPEG segments of a page are decoded. Raises `unsupported_depth` for samples that JPEG does not hold."""

    gives_ycbcr = False

    def __init__(self, tags: Directory, layout: Layout) -> None:
        if layout.bits != _BITS:
            raise unsupported(f"JPEG data of {layout.bits} bits")
        if layout.separate and layout.photometric == YCBCR:
            raise unsupported("JPEG data of YCbCr colours in separate planes")
        self._layout = layout
        self._tables = tags.block(_JPEG_TABLES)
        self._table_parts, _ = head(self._tables)
        self._page = _page_tags(layout)
        if self._tables:
            self._page[_JPEG_TABLES] = wrapping.undefined(self._tables)

    def stream(self, data: bytes, rows: int) -> bytes:
        """What is decoded of the bytes of a segment of so many rows: these, or where libtiff refuses them a JPEG."""
        frame = self._frame(data)
        if frame is None or self._sampling(frame) is not None:
            return data
        parts, start = head(data)
        is_whole = bool(parts) and parts[-1].marker == START_OF_SCAN
        if not is_whole or frame.width != self._layout.segment_width or frame.height < rows:
            return data
        # Samples of which some are coarser than others are no RGB, whatever the page says.
        are_rgb = self._layout.photometric != YCBCR and len(set(frame.samplings)) == 1
        every = [*self._table_parts, *parts[:-1]]
        tables = [part for part in every if part.marker in (*TABLES, RESTART_INTERVAL)]
        colours = [colours_part(are_rgb=are_rgb)] if len(frame.samplings) == COLOURS[RGB] else []
        sized = frame.sized(self._layout.segment_width, rows)
        return build([*colours, *tables, sized, parts[-1]], data[start:])

    def decoded(self, streams: Sequence[bytes], rows: Sequence[int]) -> NDArray[np.uint8]:
        """(rows, W, C) the samples of segments below each other. Raises `MissingPixels` where one is broken."""
        frames = [self._frame(stream) for stream in streams]
        samplings = {_WHOLE if frame is None else self._sampling(frame) for frame in frames}
        if len(samplings) > 1:
            parts = [self.decoded([each], [count]) for each, count in zip(streams, rows, strict=True)]
            return np.concatenate(parts)
        (sampling,) = samplings
        if sampling is None:
            width = self._layout.segment_width
            return np.concatenate([pixels(each, width, count) for each, count in zip(streams, rows, strict=True)])
        return self._by_libtiff(streams, rows, sampling)

    def _by_libtiff(
        self, streams: Sequence[bytes], rows: Sequence[int], sampling: tuple[int, int]
    ) -> NDArray[np.uint8]:
        width, samples = self._layout.segment_width, self._layout.samples_together
        page = wrapping.page_tags(width, sum(rows), samples, JPEG, BLACK_IS_ZERO, rows[0]) | self._page
        if self._layout.photometric == YCBCR:
            page[SUBSAMPLING] = wrapping.shorts(*sampling)
        try:
            values = wrapping.decode(page, streams)
        except (OSError, SyntaxError) as error:
            raise MissingPixels from error
        return values[..., None] if values.ndim == 2 else values

    def _frame(self, data: bytes) -> Frame | None:
        return frame_of([*head(data)[0], *self._table_parts])

    def _sampling(self, frame: Frame) -> tuple[int, int] | None:
        """How libtiff must be told that a segment is sampled; None for one that it refuses and a JPEG decoder reads.

        What the page says of it is not asked: writers leave it out, or keep the value of another file.
        """
        first, *others = frame.samplings
        readable = _SUBSAMPLINGS if self._layout.photometric == YCBCR else {_WHOLE}
        if first in readable and all(other == _WHOLE for other in others):
            return first
        is_plain = frame.bits == _BITS and len(frame.samplings) in (1, COLOURS[RGB])
        return None if is_plain and len(frame.samplings) == self._layout.samples_together else first


def _page_tags(layout: Layout) -> dict[int, Any]:
    """What libtiff must know of the colours of a page."""
    samples, grey = layout.samples_together, layout.samples_together < COLOURS[RGB]
    colours = BLACK_IS_ZERO if grey else layout.photometric if layout.photometric in (YCBCR, CMYK) else RGB
    page: dict[int, Any] = {PHOTOMETRIC: wrapping.shorts(colours)}
    if samples > COLOURS[colours]:
        if colours == CMYK or samples > COLOURS[colours] + 1:
            raise unsupported(f"JPEG data of {samples} channels")
        page[EXTRA_SAMPLES] = wrapping.shorts(_UNASSOCIATED_ALPHA)  # so that Pillow gives the channel whatever it is
    return page
