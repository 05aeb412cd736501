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
from app.images import jpeg_segments, png_chunks
from app.images.colour_encoding import ColourEncoding
from app.images.jpeg_segments import JpegFile
from app.images.png_chunks import PngFile

Data = mmap.mmap | bytes

_BITS = 8
_READABLE_PROCESSES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # sequential and progressive, Huffman or arithmetic coding
_GAIN_MAP_NOTE = "The photo's gain map for HDR displays was left out; its ordinary picture was restored."
_DEPTH_MAP_NOTE = "The photo's depth map was left out."
LEFT_OUT_NOTE = "Data beside the photo's pixels is broken and was left out."


@dataclasses.dataclass(frozen=True)
class Container:
    """A file looked through.

    Attributes:
        data: its bytes, mapped; None for a TIFF, which has a reader of its own.
        file: what a plugin may read: the file itself, or a cleaned copy in memory.
        encoding: what the file says its numbers mean; it goes before a profile. None: nothing, or a profile says it.
        notes: what was left out, and what else the file holds.
        parts: the chunks or segments of a PNG or JPEG.
    """

    data: mmap.mmap | None
    file: BinaryIO
    encoding: ColourEncoding | None = None
    notes: tuple[str, ...] = ()
    parts: PngFile | JpegFile | None = None

    def bare(self) -> BinaryIO | None:
        """A copy with nothing but what the pixels need, for when a plugin fails; None where no such copy is known."""
        return None if self.parts is None or self.data is None else io.BytesIO(self.parts.bare(self.data))

    def close(self) -> None:
        """Unmap the file."""
        if self.data is not None:
            self.data.close()


def frames_note(count: int, kind: str = "frames") -> tuple[str, ...]:
    """The note for a file of several pictures, of which the first is restored."""
    return (f"The file has {count} {kind}; only the first was restored.",) if count > 1 else ()


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
    return Container(data, file)


def _inspect_png(data: mmap.mmap, file: BinaryIO, *, whole: bool) -> Container:
    png = png_chunks.inspect(data, whole=whole)
    source = file if png.is_plain else io.BytesIO(png.cleaned(data))
    notes = png.notes + frames_note(png.frames)
    return Container(data, source, png.encoding, notes, png)


def _inspect_jpeg(data: mmap.mmap, file: BinaryIO, max_scans: int) -> Container:
    jpeg = jpeg_segments.inspect(data, max_scans)
    _check_kind(jpeg)
    source = file if jpeg.is_plain else io.BytesIO(jpeg.cleaned(data))
    notes = list(jpeg.notes)
    if jpeg.gain_map:
        notes.append(_GAIN_MAP_NOTE)
    if jpeg.depth_map:
        notes.append(_DEPTH_MAP_NOTE)
    return Container(data, source, None, (*notes, *frames_note(jpeg.frames, "pictures")), jpeg)


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
