"""Cuts pictures into pyramids (`pyramid`) with libvips, in one pass from top to bottom; beside the pixels that takes
8.5 KB for each of the width.

libvips writes Deep Zoom into an uncompressed ZIP; the index behind it makes one look enough for a tile. Colour
profiles are not opened here: that is for the decoder's child (`pyramid_writing`).
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import RestoreError, Unavailable
from app.images.confinement import DECODE_THREADS
from app.images.header import undecodable
from app.images.picture import Picture
from app.images.pyramid import ENTRY, TILE_PIXELS, Pyramid, tile_counts

_QUALITY = 90  # from here on libvips keeps the colours of every pixel
_ZIP_HEADER_BYTES, _NAME_LENGTH_AT = 30, 26
_FULL_DISK = ("No space left", "File too large", "Disk quota")

Index = dict[str, int]


def cut_picture(picture: Picture, folder: Path) -> Pyramid:
    """The pyramid of pixels in hand, in a nameless file in the folder; the tiles are as those of the encoded result.

    The picture is one that needs no other colours on a screen (`srgb_table` is None). Raises `Unavailable`: `no_tiles`
    without libvips, or `no_space`.
    """
    kept = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the pyramid closes it
    try:
        index = _write_picture(picture, kept.fileno())
        return Pyramid(kept, picture.width, picture.height, index["index_at"])
    except BaseException:
        kept.close()
        raise


def _write_picture(picture: Picture, file: int) -> Index:
    vips = load_vips()
    try:
        return write_pyramid(flattened(_image_of(picture)), file)
    except vips.Error as error:
        raise failure(error) from None


def load_vips() -> Any:
    """libvips, loaded for the first pyramid of a process, with as many threads as a decoder's child may use."""
    try:
        import pyvips  # type: ignore[import-untyped]
    except (ImportError, OSError):
        raise Unavailable("no_tiles", "Tiles need libvips; install requirements.txt.") from None
    pyvips.concurrency_set(DECODE_THREADS)
    pyvips.cache_set_max(0)
    return pyvips


def _image_of(picture: Picture) -> Any:
    """A picture as libvips reads it from a file; its pixels are not copied."""
    image = _plane(picture.rgb, 3)
    deep = picture.rgb.dtype == np.uint16
    if picture.grey:
        image = image[0].copy(interpretation="grey16" if deep else "b-w")
    if picture.alpha is not None:
        image = image.bandjoin(_plane(picture.alpha, 1))
    return image


def _plane(values: Any, bands: int) -> Any:
    """(H, W) or (H, W, 3), uint8 or uint16, as an image over the same memory."""
    deep, (height, width) = values.dtype == np.uint16, values.shape[:2]
    whole: Any = np.ascontiguousarray(values)
    kind = "ushort" if deep else "uchar"
    image = load_vips().Image.new_from_memory(memoryview(whole).cast("B"), width, height, bands, kind)
    kinds = ("grey16", "b-w") if bands == 1 else ("rgb16", "srgb")
    return image.copy(interpretation=kinds[0 if deep else 1])


def flattened(image: Any) -> Any:
    """An image without a profile as grey or sRGB of 8 bits, laid on white."""
    image = image.colourspace("b-w" if image.bands < 3 else "srgb")
    return image.flatten(background=255) if image.hasalpha() else image


def write_pyramid(image: Any, file: int) -> Index:
    """Write it into an open file: its width and height in pixels, and where the index begins."""
    os.lseek(file, 0, os.SEEK_SET)
    os.ftruncate(file, 0)
    image.dzsave_target(
        load_vips().Target.new_to_descriptor(file),
        basename="p",
        layout="dz",
        container="zip",
        depth="onetile",
        tile_size=TILE_PIXELS,
        overlap=0,
        suffix=f".jpg[Q={_QUALITY},keep=none]",
    )
    return {"width": image.width, "height": image.height, "index_at": _append_index(file, image.width, image.height)}


def _append_index(file: int, width: int, height: int) -> int:
    """Write the place of each tile behind the ZIP; returns where."""
    with zipfile.ZipFile(os.fdopen(os.dup(file), "rb")) as archive:
        found = {
            tuple(entry.filename.split("/")[-2:]): entry for entry in archive.infolist() if "_files/" in entry.filename
        }
    counts = tile_counts(width, height)
    index = b""
    for level, (columns, rows) in enumerate(counts):
        folder = str(len(counts) - 1 - level)
        for place in range(columns * rows):
            entry = found[folder, f"{place % columns}_{place // columns}.jpg"]
            index += ENTRY.pack(_start_of(file, entry.header_offset), entry.file_size)
    at = os.fstat(file).st_size
    os.pwrite(file, index, at)
    return at


def _start_of(file: int, header_at: int) -> int:
    """Where an entry's bytes begin, behind its header, name and extra field."""
    header = os.pread(file, _ZIP_HEADER_BYTES, header_at)
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (_NAME_LENGTH_AT, _NAME_LENGTH_AT + 2))
    return header_at + _ZIP_HEADER_BYTES + name + extra


def failure(error: Exception) -> RestoreError:
    """What an error of libvips means."""
    if any(words in str(error) for words in _FULL_DISK):
        return Unavailable("no_space", "There is no room to make tiles now; try again later.")
    return undecodable()
