"""Small JPEG previews of a `Picture`; those of files are made in the decoder's child (`file_preview`).

A preview is upright, in sRGB, at most so large, on white, and carries no metadata.
"""

from __future__ import annotations

import io

import cv2
from PIL import Image

from app.images import samples
from app.images.picture import Picture
from app.images.srgb_table import rgb_to_srgb

PREVIEW_SIDE_PIXELS = 400
_QUALITY = 85
_DISPLAY_QUALITY = 95  # of pictures that are looked at closely, beside each other


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
