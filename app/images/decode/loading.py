"""The pixels of an opened photo, and whether they are all there: nothing is grey or black without a word.

A plain photo costs nothing more. Only where its plugin fails, or its last rows look as missing ones do, the file is
looked at more closely.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from typing import BinaryIO

from PIL import Image

from app.errors import RestoreError
from app.images.address_space import lacks_memory
from app.images.decode import cut_bmp, cut_filled, cut_jpeg, cut_png
from app.images.decode.missing import Completed, Fault, Missing
from app.images.header import OpenedPhoto, format_name, open_plugin, undecodable
from app.images.isobmff import BoxFile
from app.images.jpeg_segments import JpegFile
from app.images.png_chunks import PngFile
from app.images.riff_chunks import WebpFile


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A loaded image, the file that it came from or a completed copy, and what is missing."""

    image: Image.Image
    file: BinaryIO
    missing: Missing | None = None
    notes: tuple[str, ...] = ()


def load_pixels(photo: OpenedPhoto, *, keep_partial: bool) -> Loaded:
    """Load an opened photo; one that lacks pixels is refused, unless `keep_partial`.

    Raises:
        RestoreError: `undecodable_image`.
        Exception: whatever a plugin throws at a file of which nothing can be saved.
    """
    try:
        photo.image.load()
    except (MemoryError, RestoreError):
        raise
    except Exception:
        if lacks_memory(photo.image.width * photo.image.height):
            raise MemoryError from None
        completed = _complete(photo)
        if completed is None:
            raise
    else:
        if not _looks_cut(photo):
            return Loaded(photo.image, photo.container.file, notes=_doubts(photo))
        completed = _complete(photo)
        if completed is None:
            raise undecodable(format_name(photo.image))
        if completed.missing is None and not completed.notes:
            return Loaded(photo.image, photo.container.file)
    return _load_completed(completed, format_name(photo.image), keep_partial=keep_partial)


def complete_deep(photo: OpenedPhoto, *, keep_partial: bool) -> Loaded | None:
    """The same for a PNG that the reader of 16 bits refused: packed again it may read it. None: it will not."""
    completed = _complete(photo)
    return None if completed is None else _load_completed(completed, "PNG", keep_partial=keep_partial)


def _load_completed(completed: Completed, name: str, *, keep_partial: bool) -> Loaded:
    missing, notes = completed.missing, completed.notes
    if missing is not None:
        if not keep_partial:
            raise missing.refusal()
        notes = (*notes, missing.note())
    file = io.BytesIO(completed.data)
    image = open_plugin(file, name)
    image.load()
    return Loaded(image, file, missing, notes)


def _looks_cut(photo: OpenedPhoto) -> bool:
    parts, data = photo.container.parts, photo.container.data
    if isinstance(parts, WebpFile):
        return parts.lacks_pixels
    if isinstance(parts, BoxFile):
        return data is not None and parts.is_cut(len(data))
    if isinstance(parts, PngFile):
        return parts.is_header_doubtful or cut_png.looks_cut(photo.image)
    if isinstance(parts, JpegFile):
        return not (parts.scans.is_complete and parts.scans.is_ended) or cut_jpeg.looks_cut(photo.image)
    return False


def _doubts(photo: OpenedPhoto) -> tuple[str, ...]:
    """The note for a photo that decodes as if it were whole, though its file has lost a part."""
    parts, data = photo.container.parts, photo.container.data
    if isinstance(parts, JpegFile) and data is not None and cut_jpeg.lost_sectors(parts, data):
        return (Missing(photo.image.height, None, Fault.DAMAGED).note(),)
    return ()


def _complete(photo: OpenedPhoto) -> Completed | None:
    parts, data = photo.container.parts, photo.container.data
    if data is None:
        return None
    if photo.image.format == "BMP":
        return cut_bmp.complete(photo.container.file)
    if isinstance(parts, PngFile):
        return cut_png.complete(parts, data)
    if isinstance(parts, WebpFile):
        return cut_filled.complete(functools.partial(parts.closed, data), "WEBP")
    if isinstance(parts, BoxFile) and parts.is_cut(len(data)):
        return cut_filled.complete(functools.partial(parts.filled, data), format_name(photo.image))
    if isinstance(parts, JpegFile):
        photo.container.file.seek(0)
        return cut_jpeg.complete(photo.container.file.read())
    return None
