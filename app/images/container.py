"""A file as it is shown to the plugins, looked through by ourselves first.

Where something beside its pixels would fail the photo, they get a cleaned copy in memory; notes say what was left out
and what else the file holds.
"""

from __future__ import annotations

import dataclasses
import io
import mmap
from typing import BinaryIO

from app.errors import Unprocessable
from app.images import isobmff, jpeg_segments, png_chunks, riff_chunks
from app.images.bmp_header import embedded_profile
from app.images.colour_encoding import ColourEncoding, from_code_points
from app.images.isobmff import BoxFile
from app.images.jpeg_segments import JpegFile
from app.images.png_chunks import MAX_PROFILE_BYTES, PROFILE_LEFT_OUT, PngFile
from app.images.riff_chunks import WebpFile
from app.notices import NoticeKind, say

Data = mmap.mmap | bytes

_BITS = 8
_READABLE_PROCESSES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # sequential and progressive, Huffman or arithmetic coding
_GAIN_MAP_NOTE = say(
    NoticeKind.GAIN_MAP_LEFT_OUT,
    "The photo's gain map for HDR displays was left out; its ordinary picture was restored.",
)
_DEPTH_MAP_NOTE = say(NoticeKind.DEPTH_MAP_LEFT_OUT, "The photo's depth map was left out.")
_METADATA_CUT_OFF = say(
    NoticeKind.METADATA_CUT_OFF, "The file is cut off behind the photo's pixels, and metadata is missing."
)
LEFT_OUT_NOTE = say(NoticeKind.SIDE_DATA_BROKEN, "Data beside the photo's pixels is broken and was left out.")


@dataclasses.dataclass(frozen=True)
class Container:
    """A file looked through.

    Attributes:
        data: its bytes, mapped; None for a TIFF, which has a reader of its own.
        file: what a plugin may read: the file itself, or a cleaned copy in memory.
        encoding: what the file says its numbers mean; it goes before a profile. None: nothing, or a profile says it.
        notes: what was left out, and what else the file holds.
        parts: the chunks, segments or boxes, where the format has a reader of ours.
    """

    data: mmap.mmap | None
    file: BinaryIO
    encoding: ColourEncoding | None = None
    notes: tuple[str, ...] = ()
    parts: PngFile | JpegFile | WebpFile | BoxFile | None = None

    def bare(self) -> Container | None:
        """The file as a copy without what may fail a plugin beside the pixels, and a note; None where none is known."""
        parts, bare = self.parts, b""
        if self.data is not None and isinstance(parts, PngFile | JpegFile):
            bare = parts.bare(self.data)
        elif self.data is not None and isinstance(parts, BoxFile):
            parts = parts.bare()
            bare = b"" if parts is None else parts.filled(self.data, 0)
        if not bare:
            return None
        notes = (*self.notes, LEFT_OUT_NOTE)
        return dataclasses.replace(self, file=io.BytesIO(bare), parts=parts, notes=notes)

    def close(self) -> None:
        """Unmap the file."""
        if self.data is not None:
            self.data.close()


def frames_note(count: int) -> tuple[str, ...]:
    """The note for an animation, of which the first frame is restored."""
    if count <= 1:
        return ()
    return (
        say(NoticeKind.FRAMES_LEFT_OUT, "The file has {frames} frames; only the first was restored.", frames=count),
    )


def pictures_note(count: int) -> tuple[str, ...]:
    """The note for a file of several pictures, of which the first is restored."""
    if count <= 1:
        return ()
    words = "The file has {pictures} pictures; only the first was restored."
    return (say(NoticeKind.PICTURES_LEFT_OUT, words, pictures=count),)


def inspect(file: BinaryIO, name: str, *, max_scans: int, whole: bool) -> Container:
    """Look through a file of a format; `whole` also looks behind the pixels, which a header check need not.

    Scans of a JPEG are counted up to one above `max_scans`.

    Raises:
        ValueError: the file's structure is broken.
    """
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if name == "PNG":
        return _inspect_png(data, file, whole=whole)
    if name == "JPEG":
        return _inspect_jpeg(data, file, max_scans)
    if name == "WEBP":
        return _inspect_webp(data, file)
    if name in ("AVIF", "HEIF"):
        return _inspect_boxes(data, file)
    notes = (PROFILE_LEFT_OUT,) if embedded_profile(file, MAX_PROFILE_BYTES) == b"" else ()
    return Container(data, file, notes=notes)


def _inspect_png(data: mmap.mmap, file: BinaryIO, *, whole: bool) -> Container:
    png = png_chunks.inspect(data, whole=whole)
    source = file if png.is_plain else io.BytesIO(png.cleaned(data))
    notes = png.notes + frames_note(png.frames)
    return Container(data, source, png.encoding, notes, png)


def _inspect_jpeg(data: mmap.mmap, file: BinaryIO, max_scans: int) -> Container:
    jpeg = jpeg_segments.inspect(data, max_scans)
    _check_kind(jpeg)
    source = file if jpeg.is_plain else io.BytesIO(jpeg.cleaned(data))
    notes = jpeg.notes + _map_notes(jpeg.gain_map, jpeg.depth_map) + pictures_note(jpeg.frames)
    return Container(data, source, None, notes, jpeg)


def _inspect_webp(data: mmap.mmap, file: BinaryIO) -> Container:
    webp = riff_chunks.inspect(data)
    if webp.is_whole:
        return Container(data, file)
    notes = (_METADATA_CUT_OFF,) if webp.lacks_metadata else ()
    return Container(data, io.BytesIO(webp.closed(data, 0)), None, notes, webp)


def _inspect_boxes(data: mmap.mmap, file: BinaryIO) -> Container:
    found = isobmff.inspect(data)
    encoding = None if found.code_points is None else from_code_points(*found.code_points)
    if found.has_profile and not (encoding is not None and encoding.is_hdr):
        encoding = None
    source = io.BytesIO(found.filled(data, 0)) if found.is_cut(len(data)) else file
    return Container(data, source, encoding, _map_notes(found.gain_map, found.depth_map), found)


def _map_notes(gain_map: bool, depth_map: bool) -> tuple[str, ...]:
    return ((_GAIN_MAP_NOTE,) if gain_map else ()) + ((_DEPTH_MAP_NOTE,) if depth_map else ())


def _check_kind(jpeg: JpegFile) -> None:
    if jpeg.precision != _BITS:
        raise Unprocessable(
            "unsupported_depth",
            f"This JPEG has {jpeg.precision} bits a channel, which cannot be read; save it as a PNG or TIFF and retry.",
        )
    if jpeg.process not in _READABLE_PROCESSES:
        raise Unprocessable(
            "unsupported_depth",
            "This JPEG is of a lossless or hierarchical kind, which cannot be read; save it as an ordinary JPEG.",
        )
