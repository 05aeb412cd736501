"""Small JPEG previews: of a file (inside the child, with as little decoding as the format allows) or of a `Picture`.

A preview is upright, in sRGB, at most so large, on white, and carries no metadata.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.images import colour, samples
from app.images.decode import DecodeOptions, decode_file
from app.images.header import ImageLimits, open_picture, undecodable
from app.images.picture import Picture

PREVIEW_SIDE_PIXELS = 400
_QUALITY = 85
_DISPLAY_QUALITY = 95  # of pictures that are looked at closely, beside each other
_ANY_RESULT = ImageLimits(max_input_megapixels=10_000.0, max_side_pixels=1 << 20)


def preview_file(path: Path, limits: ImageLimits, max_side: int = PREVIEW_SIDE_PIXELS, rotate: int = 0) -> bytes:
    """JPEG bytes of a file's first picture, whatever of it is there, turned clockwise; same errors as `decode_file`.

    It is decoded as the photo is, only smaller: a JPEG at an eighth, if it may.
    """
    options = DecodeOptions(keep_partial=True, shrink_to=2 * max_side, rotate=rotate)
    return encode_preview(decode_file(path, limits, options), max_side)


def preview_tiles(tiles: Sequence[Sequence[bytes]], max_side: int) -> bytes:
    """JPEG bytes of a picture that comes in JPEG tiles of ours, row by row; same errors as `decode_file`."""
    try:
        rows = [np.concatenate([_tile_pixels(tile) for tile in row], axis=1) for row in tiles]
        return encode_preview(Picture(np.concatenate(rows)), max_side)
    except (OSError, ValueError):
        raise undecodable() from None


def _tile_pixels(tile: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(tile), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB"))


def read_profile(path: Path) -> bytes | None:
    """The colour profile in the header of a result of our own; no pixel is decoded. Same errors as `read_header`."""
    with path.open("rb") as file, open_picture(file, _ANY_RESULT) as photo:
        profile = photo.image.info.get("icc_profile")
        return profile if isinstance(profile, bytes) and profile else None


def encode_preview(picture: Picture, max_side: int = PREVIEW_SIDE_PIXELS) -> bytes:
    """JPEG bytes of a picture, at most `max_side` pixels a side; a smaller picture keeps its size."""
    scale = min(1.0, max_side / max(picture.width, picture.height))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = samples.eight_bit(cv2.resize(picture.rgb, size, interpolation=cv2.INTER_AREA))
    small = colour.to_srgb(small, picture.icc_profile)
    if picture.alpha is not None:
        alpha = samples.eight_bit(cv2.resize(picture.alpha, size, interpolation=cv2.INTER_AREA))
        small = samples.on_white(small, alpha)
    buffer = io.BytesIO()
    if max_side > PREVIEW_SIDE_PIXELS:
        Image.fromarray(small).save(buffer, "JPEG", quality=_DISPLAY_QUALITY, subsampling=0)
    else:
        Image.fromarray(small).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
