"""What a decoding child answered, as the types of this side.

Every number is checked, for the child may have been taken over by a hostile photo.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from app import errors
from app.errors import RestoreError, Unprocessable
from app.images.header import Header, ImageLimits
from app.images.patches import Overview
from app.images.picture import Picture
from app.images.pyramid import Pyramid
from app.images.sniffing import MIME_TYPES
from app.images.srgb_table import table_of
from app.notices import PHOTO_CHANGED, notices_of

_ERRORS = (errors.NotFound, errors.TooLarge, errors.UnsupportedFormat, errors.Unprocessable, errors.Unavailable)
_PICTURE_BLOCKS = 8
_COPIED_BYTES = 8 * 1024 * 1024


class ChildDied(Exception):
    """The child ended, or said something that is no answer."""


def as_error(said: dict[str, Any]) -> RestoreError:
    """A failure that the child told."""
    kind = next((kind for kind in _ERRORS if kind.status == said["status"]), Unprocessable)
    return kind(str(said["code"]), str(said["detail"]))


def read_preview(answer: dict[str, Any], file: BinaryIO, limits: ImageLimits) -> bytes:
    """One block of bytes: a JPEG. Raises `ChildDied`, as all of these do."""
    return _read_blocks(answer["sizes"], 1, 0, file)[0]


def read_header(answer: dict[str, Any], file: BinaryIO, limits: ImageLimits) -> Header:
    """What a file's header says."""
    width, height, name = int(answer["width"]), int(answer["height"]), str(answer["format"])
    if not 0 < width * height <= limits.max_input_megapixels * 1e6 or min(width, height) < 1:
        raise ChildDied
    page_sizes = tuple((int(page_width), int(page_height)) for page_width, page_height in answer["page_sizes"])
    if page_sizes[:1] != ((width, height),) or min(map(min, page_sizes)) < 1:
        raise ChildDied
    return Header(name, MIME_TYPES[name], width, height, page_sizes)


def read_pyramid(answer: dict[str, Any], file: BinaryIO, limits: ImageLimits, folder: Path | None) -> Pyramid:
    """A copy of the pyramid in a nameless file of its own in `folder`; the child's file is used again."""
    width, height = int(answer["width"]), int(answer["height"])
    if not 0 < width * height <= limits.max_input_megapixels * 1e6 or min(width, height) < 1:
        raise ChildDied
    kept = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the pyramid closes it
    try:
        file.seek(0)
        shutil.copyfileobj(file, kept, _COPIED_BYTES)
        kept.flush()
        return Pyramid(kept, width, height, int(answer["index_at"]))
    except BaseException:
        kept.close()
        raise


def read_picture(answer: dict[str, Any], file: BinaryIO, limits: ImageLimits) -> Picture:
    """A whole picture, rebuilt from the file."""
    width, height = int(answer["width"]), int(answer["height"])
    depth = np.dtype(np.uint16 if answer["deep"] else np.uint8)
    area = width * height
    if not 0 < area <= limits.max_input_megapixels * 1e6 or answer["source_format"] not in MIME_TYPES:
        raise ChildDied
    sizes = [int(size) for size in answer["sizes"]]
    if sizes[0] != area * 3 * depth.itemsize or sizes[1] not in (0, area * depth.itemsize):
        raise ChildDied
    rgb = np.empty((height, width, 3), depth)
    alpha = np.empty((height, width), depth) if sizes[1] else None
    _fill(rgb, file, 0)
    if alpha is not None:
        _fill(alpha, file, sizes[0])
    icc, exif, xmp, iptc, texts, table = _read_blocks(sizes[2:], _PICTURE_BLOCKS - 2, sizes[0] + sizes[1], file)
    dpi = tuple(float(part) for part in answer["dpi"]) if answer["dpi"] else None
    return Picture(
        rgb=rgb,
        alpha=alpha,
        grey=bool(answer["grey"]),
        icc_profile=icc or None,
        exif=exif or None,
        xmp=xmp or None,
        dpi=(dpi[0], dpi[1]) if dpi else None,
        iptc=iptc or None,
        texts=tuple((str(keyword), str(text)) for keyword, text in json.loads(texts or b"[]")),
        source_format=answer["source_format"],
        notes=notices_of(PHOTO_CHANGED, (str(note) for note in answer["notes"])),
        pages=int(answer["pages"]),
        srgb_table=table_of(table) if table else None,
    )


def read_overview(answer: dict[str, Any], file: BinaryIO, limits: ImageLimits) -> Overview:
    """A photo reduced, and its own size."""
    width, height = (int(side) for side in answer["photo"])
    small = read_picture(answer, file, limits)
    if not (small.width <= width and small.height <= height and width * height <= limits.max_input_megapixels * 1e6):
        raise ChildDied
    return Overview(small, width, height, bool(answer["colourless"]))


def _fill(target: Any, file: BinaryIO, position: int) -> None:
    """Read straight into an array, without a copy between."""
    file.seek(position)
    view = memoryview(target).cast("B")
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise ChildDied
        view = view[count:]


def _read_blocks(sizes: list[int], expected: int, position: int, file: BinaryIO) -> list[bytes]:
    if len(sizes) != expected or sum(sizes) > os.fstat(file.fileno()).st_size or min(sizes) < 0:
        raise ChildDied
    file.seek(position)
    return [file.read(size) for size in sizes]
