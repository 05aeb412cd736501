"""Small previews of our own results, which may be ten times larger than any upload, in bands of rows.

Results are upright, and in few modes; what they need of memory is told beforehand, so that the child can allow it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.images import colour, samples
from app.images.decode import guard
from app.images.header import quiet_pillow
from app.images.picture import Picture
from app.images.preview import encode_preview

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
# What decoding takes a pixel at most: AVIF's four planes, the samples it gives, and Pillow's own four bytes.
_BYTES_PER_PIXEL = 12
_BAND_PIXELS = 1 << 20


def result_memory(path: Path) -> int:
    """Bytes that the preview of a result may take, by its header."""
    with guard(), _open(path) as image:
        return image.width * image.height * _BYTES_PER_PIXEL


def preview_result(path: Path, max_side: int) -> bytes:
    """JPEG bytes of a result; `undecodable_image` or `decode_memory` where it cannot be decoded."""
    with guard(), _open(path) as image:
        image.draft(None, (2 * max_side, 2 * max_side))
        image.load()
        small = _shrunk(image, max(1, max(image.size) // (2 * max_side)))  # (h, w, 1 to 4) uint8
        alpha = small[..., -1].copy() if small.shape[2] in (2, 4) else None
        pixels = small[..., 0] if small.shape[2] < 3 else small[..., :3]
        profile = image.info.get("icc_profile")
        plain = colour.normalize_color(np.ascontiguousarray(pixels), "L" if pixels.ndim == 2 else "RGB", profile)
        rgb = plain.pixels if plain.pixels.ndim == 3 else np.repeat(plain.pixels[..., None], 3, axis=2)
        return encode_preview(Picture(rgb, alpha, icc_profile=plain.icc_profile), max_side)


def _open(path: Path) -> Image.Image:
    quiet_pillow()
    Image.MAX_IMAGE_PIXELS = None  # the size was judged when the result was asked for
    return Image.open(path, formats=_FORMATS)


def _shrunk(image: Image.Image, factor: int) -> NDArray[np.uint8]:
    """(H / factor, W / factor, C) uint8, rounded up: means of squares, taken from bands of whole squares."""
    rows = factor * max(1, _BAND_PIXELS // (image.width * factor))
    parts = []
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(image.height, top + rows)))
        if band.mode.startswith("I;16"):
            band = Image.fromarray(samples.eight_bit(np.asarray(band)))
        parts.append(np.atleast_3d(np.asarray(band.reduce(factor))))
    return np.concatenate(parts)
