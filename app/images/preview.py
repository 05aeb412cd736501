"""Small JPEG previews: of a file (inside the child, with as little decoding as the format allows) or of a `Picture`.

A preview is upright, in sRGB, at most so large, on white, and carries no metadata.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.images import colour, samples
from app.images.decode import guard, plain_channels, turn
from app.images.header import ImageLimits, open_picture
from app.images.metadata import rewriting
from app.images.picture import Picture

PREVIEW_SIDE_PIXELS = 400
_QUALITY = 85
_DISPLAY_QUALITY = 95  # of pictures that are looked at closely, beside each other
_ANY_MEGAPIXELS = 10_000.0
_DIRECT_MODES = ("L", "RGB", "RGBA", "LA", "CMYK", "LAB")


def preview_file(path: Path, limits: ImageLimits, max_side: int = PREVIEW_SIDE_PIXELS) -> bytes:
    """JPEG bytes of a file's first picture; same errors as `decode_file`. A JPEG is decoded at an eighth, if it may."""
    with path.open("rb") as file, guard(), open_picture(file, limits) as photo:
        image = photo.image
        image.draft(None, (2 * max_side, 2 * max_side))
        image.load()
        channels = plain_channels(_shrunk(image, max_side))
        profile = image.info.get("icc_profile")
        settled = colour.normalize_color(channels.colour.astype(np.uint8), channels.mode, profile)
        orientation = rewriting.collect(image).orientation
        pixels = turn(settled.pixels, orientation)
        rgb: Any = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
        alpha = None if channels.alpha is None else turn(channels.alpha, orientation)
        return encode_preview(Picture(rgb, alpha, icc_profile=settled.icc_profile), max_side)


def read_profile(path: Path) -> bytes | None:
    """The colour profile in the header of a result of our own; no pixel is decoded. Same errors as `read_header`."""
    with path.open("rb") as file, open_picture(file, preview_limits(ImageLimits(), _ANY_MEGAPIXELS)) as photo:
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


def _shrunk(image: Image.Image, max_side: int) -> Image.Image:
    """The image in an 8-bit mode and, where that is cheap, already near the size of the preview."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image).astype(np.float32)
        peak = 1.0 if image.mode == "F" else 65535.0
        image = Image.fromarray((np.clip(values / peak, 0, 1) * 255).round().astype(np.uint8))
    elif image.mode not in _DIRECT_MODES or "transparency" in image.info:
        channels = plain_channels(image)
        image = _rejoined(channels.colour.astype(np.uint8), channels.alpha)
    factor = max(image.size) // (2 * max_side)
    return image.reduce(factor) if factor > 1 else image


def _rejoined(pixels: NDArray[np.uint8], alpha: object) -> Image.Image:
    image = Image.fromarray(pixels)
    if isinstance(alpha, np.ndarray):
        image.putalpha(Image.fromarray(alpha))
    return image


def preview_limits(limits: ImageLimits, max_megapixels: float | None) -> ImageLimits:
    """Limits for a file of our own making, which may be larger than an upload."""
    if max_megapixels is None:
        return limits
    return dataclasses.replace(limits, max_input_megapixels=max_megapixels, max_side_pixels=1 << 20)
