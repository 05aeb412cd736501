"""Writes pyramids (`pyramid`) with libvips, in the decoder's child: of a result in one pass from top to bottom, with a
few hundred megabytes at 400 megapixels; of a photo from its decoded pixels.

libvips writes Deep Zoom into an uncompressed ZIP; the index behind it makes one look enough for a tile.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

from app.errors import RestoreError, Unavailable
from app.images import samples
from app.images.confinement import DECODE_THREADS, MEBIBYTE
from app.images.decode import DecodeOptions, decode_file
from app.images.header import ImageLimits, undecodable
from app.images.picture import Picture
from app.images.pyramid import ENTRY, TILE_PIXELS, tile_counts
from app.images.result_preview import in_bands, result_memory
from app.images.srgb_table import to_srgb

_QUALITY = 90  # from here on libvips keeps the colours of every pixel
_STREAM_BYTES = 768 * MEBIBYTE
_ZIP_HEADER_BYTES, _NAME_LENGTH_AT = 30, 26
_FULL_DISK = ("No space left", "File too large", "Disk quota")

Index = dict[str, int]


def pyramid_memory(path: Path) -> int:
    """Bytes that the pyramid of a result may take: WebP and AVIF are decoded whole, others band by band."""
    return _STREAM_BYTES + (0 if in_bands(path) else result_memory(path))


def write_result_pyramid(path: Path, file: int) -> Index:
    """The pyramid of a result of our own, upright as it is, in sRGB on white, into an open file.

    Returns its width and height in pixels, and where the index begins. Raises `undecodable_image` or `no_space`.
    """
    vips = _vips()
    try:
        return _write(_plain(vips.Image.new_from_file(str(path), access="sequential")), file)
    except vips.Error as error:
        raise _failure(error) from None


def write_photo_pyramid(path: Path, limits: ImageLimits, file: int) -> Index:
    """The same of a photo's first picture, whatever of it is there; also raises what `decode_file` does."""
    picture = decode_file(path, limits, DecodeOptions(keep_partial=True))
    vips = _vips()
    try:
        pixels = _shown(picture)
        image = vips.Image.new_from_memory(memoryview(pixels).cast("B"), picture.width, picture.height, 3, "uchar")
        return _write(image.copy(interpretation="srgb"), file)
    except vips.Error as error:
        raise _failure(error) from None


def _vips() -> Any:
    """libvips, loaded for the first pyramid of a child, with as many threads as a child may use."""
    os.environ["VIPS_CONCURRENCY"] = str(DECODE_THREADS)
    try:
        import pyvips  # type: ignore[import-untyped]
    except (ImportError, OSError):
        raise Unavailable("no_tiles", "Tiles need libvips; install requirements.txt.") from None
    pyvips.cache_set_max(0)
    return pyvips


def _plain(image: Any) -> Any:
    """A result as grey or sRGB of 8 bits, laid on white."""
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb", embedded=True, intent="relative", depth=8)
    else:
        image = image.colourspace("b-w" if image.bands < 3 else "srgb")
    return image.flatten(background=255) if image.hasalpha() else image


def _shown(picture: Picture) -> Any:
    """(H, W, 3) uint8 in sRGB, laid on white."""
    rgb = to_srgb(picture)
    if picture.alpha is None:
        return rgb
    band = max(1, MEBIBYTE // picture.width)
    for top in range(0, picture.height, band):
        alpha = samples.eight_bit(picture.alpha[top : top + band])
        rgb[top : top + band] = samples.on_white(rgb[top : top + band], alpha)
    return rgb


def _write(image: Any, file: int) -> Index:
    os.lseek(file, 0, os.SEEK_SET)
    os.ftruncate(file, 0)
    image.dzsave_target(
        _vips().Target.new_to_descriptor(file),
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


def _failure(error: Exception) -> RestoreError:
    if any(words in str(error) for words in _FULL_DISK):
        return Unavailable("no_space", "There is no room to make tiles now; try again later.")
    return undecodable()
