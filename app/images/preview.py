"""Small JPEG previews of a `Picture`; those of files are made in the decoder's child (`file_preview`).

A preview is upright, in sRGB, at most so large, on white, and carries no metadata.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.images import samples
from app.images.header import undecodable
from app.images.picture import Picture
from app.images.srgb_table import rgb_to_srgb

PREVIEW_SIDE_PIXELS = 400
_QUALITY = 85
_DISPLAY_QUALITY = 95  # of pictures that are looked at closely, beside each other


def preview_tiles(tiles: Sequence[Sequence[bytes]], max_side: int) -> bytes:
    """JPEG bytes of a picture that comes in JPEG tiles of ours, row by row; raises `undecodable_image`."""
    try:
        rows = [np.concatenate([_tile_pixels(tile) for tile in row], axis=1) for row in tiles]
        return encode_preview(Picture(np.concatenate(rows)), max_side)
    except (OSError, ValueError):
        raise undecodable() from None


def _tile_pixels(tile: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(tile), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB"))


def encode_preview(picture: Picture, max_side: int = PREVIEW_SIDE_PIXELS) -> bytes:
    """JPEG bytes of a picture, at most `max_side` pixels a side; a smaller picture keeps its size."""
    scale = min(1.0, max_side / max(picture.width, picture.height))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = samples.eight_bit(cv2.resize(picture.rgb, size, interpolation=cv2.INTER_AREA))
    small = rgb_to_srgb(small, picture)
    if picture.alpha is not None:
        alpha = samples.eight_bit(cv2.resize(picture.alpha, size, interpolation=cv2.INTER_AREA))
        small = samples.on_white(small, alpha)
    buffer = io.BytesIO()
    if max_side > PREVIEW_SIDE_PIXELS:
        Image.fromarray(small).save(buffer, "JPEG", quality=_DISPLAY_QUALITY, subsampling=0)
    else:
        Image.fromarray(small).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
