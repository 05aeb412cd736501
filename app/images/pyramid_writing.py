"""Writes pyramids (`pyramid`) of files, in the decoder's child: of a result in one pass from top to bottom, with a few
hundred megabytes at 400 megapixels; of a photo from its decoded pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.images import samples
from app.images.confinement import MEBIBYTE
from app.images.decode import DecodeOptions, decode_file
from app.images.header import ImageLimits
from app.images.picture import Picture
from app.images.pyramid_cutting import Index, failure, flattened, load_vips, write_pyramid
from app.images.result_preview import in_bands, result_memory
from app.images.srgb_table import to_srgb

_STREAM_BYTES = 768 * MEBIBYTE


def pyramid_memory(path: Path) -> int:
    """Bytes that the pyramid of a result may take: WebP and AVIF are decoded whole, others band by band."""
    return _STREAM_BYTES + (0 if in_bands(path) else result_memory(path))


def write_result_pyramid(path: Path, file: int) -> Index:
    """The pyramid of a result of our own, upright as it is, in sRGB on white, into an open file.

    Returns its width and height in pixels, and where the index begins. Raises `undecodable_image` or `no_space`.
    """
    vips = load_vips()
    try:
        return write_pyramid(_plain(vips.Image.new_from_file(str(path), access="sequential")), file)
    except vips.Error as error:
        raise failure(error) from None


def write_photo_pyramid(path: Path, limits: ImageLimits, file: int, rotate: int = 0) -> Index:
    """The same of a photo's first picture, whatever of it is there, turned; also raises what `decode_file` does."""
    picture = decode_file(path, limits, DecodeOptions(keep_partial=True, rotate=rotate))
    vips = load_vips()
    try:
        pixels = _shown(picture)
        image = vips.Image.new_from_memory(memoryview(pixels).cast("B"), picture.width, picture.height, 3, "uchar")
        return write_pyramid(image.copy(interpretation="srgb"), file)
    except vips.Error as error:
        raise failure(error) from None


def _plain(image: Any) -> Any:
    """A result as grey or sRGB of 8 bits, laid on white."""
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb", embedded=True, intent="relative", depth=8)
    return flattened(image)


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
