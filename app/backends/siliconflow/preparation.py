"""A `Picture` made ready to leave the machine: sRGB, 8 bits, bounded, JPEG, and no metadata whatever."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.images import Picture, alpha, samples
from app.images.srgb_table import rgb_to_srgb

MAX_SIDE_PIXELS = 3584
JPEG_QUALITY = 95
_BAND_ROWS = 256


@dataclasses.dataclass(frozen=True)
class Submission:
    """What is sent of a photo.

    Attributes:
        jpeg: the file.
        facts: for the record: resized, original_dimensions and submitted_dimensions ([width, height]),
            format_converted and original_format.
    """

    jpeg: bytes
    facts: dict[str, Any]


def prepare(picture: Picture) -> Submission:
    """Make a photo ready to be sent: at most 3584 pixels a side, Lanczos, JPEG quality 95 with full colour."""
    image = Image.fromarray(_visible_colours(picture))
    size = _bounded(*image.size)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    target = io.BytesIO()
    image.save(target, "JPEG", quality=JPEG_QUALITY, subsampling="4:4:4")  # a fresh image: no EXIF, ICC or XMP
    facts = {
        "resized": size != (picture.width, picture.height),
        "original_dimensions": [picture.width, picture.height],
        "submitted_dimensions": list(size),
        "format_converted": picture.source_format != "JPEG",
        "original_format": picture.source_format,
    }
    return Submission(target.getvalue(), facts)


def to_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Integer pixels of 8 or 16 bits as 8 bits, rounded; in bands, since the arithmetic needs four bytes a sample."""
    if pixels.dtype == np.uint8:
        return pixels
    rounded = np.empty(pixels.shape, np.uint8)
    for top in range(0, len(pixels), _BAND_ROWS):
        rounded[top : top + _BAND_ROWS] = samples.eight_bit(pixels[top : top + _BAND_ROWS])
    return rounded


def srgb_bytes(picture: Picture) -> NDArray[np.uint8]:
    """A picture's colours in sRGB, (H, W, 3) uint8."""
    return rgb_to_srgb(to_bytes(picture.rgb), picture)


def _visible_colours(picture: Picture) -> NDArray[np.uint8]:
    """Colours without what transparency hides: a cut-out background is nobody's business but the owner's."""
    rgb = srgb_bytes(picture)
    if picture.alpha is None:
        return rgb
    shown = rgb.copy()
    shown[picture.alpha == 0] = 255
    alpha.bleed(shown, to_bytes(picture.alpha))
    return shown


def _bounded(width: int, height: int) -> tuple[int, int]:
    factor = min(1.0, MAX_SIDE_PIXELS / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))
