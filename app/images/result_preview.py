"""Small previews of our own results, which may be ten times larger than any upload, in bands of rows.

Results are upright, and in few modes; what they need of memory is told beforehand, so that the child can allow it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.images import colour, samples
from app.images.decode.channels import guard
from app.images.header import quiet_pillow, undecodable
from app.images.picture import Picture
from app.images.preview import encode_preview
from app.images.riff_chunks import webp_size
from app.images.srgb_table import profile_space

_FORMATS = ("JPEG", "PNG", "TIFF", "AVIF")
_WEBP_HEAD_BYTES, _FIRST_CHUNK = 64, 12
# What decoding takes a pixel: Pillow's four bytes and as much beside them; the planes and the samples of an AVIF too.
_BYTES_PER_PIXEL, _AVIF_BYTES_PER_PIXEL = 8, 14
_BAND_PIXELS = 1 << 20

Band = Callable[[int, int], Image.Image]


def result_memory(path: Path) -> int:
    """Bytes that the preview of a result may take, by its header."""
    with guard():
        webp = _webp_facts(path)
        if webp:
            return webp.width * webp.height * _BYTES_PER_PIXEL
        with _open(path) as image:
            pixel_bytes = _AVIF_BYTES_PER_PIXEL if image.format == "AVIF" else _BYTES_PER_PIXEL
            return image.width * image.height * pixel_bytes


def in_bands(path: Path) -> bool:
    """Whether a result is of a format that can be decoded band by band, by its header."""
    with guard():
        if _webp_facts(path):
            return False
        with _open(path) as image:
            return image.format != "AVIF"


def preview_result(path: Path, max_side: int) -> bytes:
    """JPEG bytes of a result; `undecodable_image` or `decode_memory` where it cannot be decoded."""
    with guard():
        webp = _webp_facts(path)
        if webp:
            return _preview(_shrunk(*_by_opencv(path), max_side), webp.profile, max_side)
        with _open(path) as image:
            profile = image.info.get("icc_profile")
            image.draft(None, (2 * max_side, 2 * max_side))
            image.load()
            small = _shrunk(lambda top, bottom: image.crop((0, top, image.width, bottom)), image.size, max_side)
            return _preview(small, profile, max_side)


def _preview(small: NDArray[np.uint8], profile: bytes | None, max_side: int) -> bytes:
    """JPEG bytes of (h, w, 1 to 4) uint8: grey or RGB, and maybe alpha."""
    alpha = small[..., -1].copy() if small.shape[2] in (2, 4) else None
    # Pillow opens a PNG of grey with alpha of 16 bits as colours.
    is_grey = small.shape[2] < 3 or (profile is not None and profile_space(profile) == "GRAY")
    pixels = small[..., 0] if is_grey else small[..., :3]
    plain = colour.normalize_color(np.ascontiguousarray(pixels), "L" if pixels.ndim == 2 else "RGB", profile)
    rgb: Any = plain.pixels if plain.pixels.ndim == 3 else np.repeat(plain.pixels[..., None], 3, axis=2)
    table = colour.srgb_table(plain.icc_profile, grey=False)
    return encode_preview(Picture(rgb, alpha, icc_profile=plain.icc_profile, srgb_table=table), max_side)


class _WebpFacts(NamedTuple):
    """What the header of a WebP says."""

    width: int
    height: int
    profile: bytes | None


def _webp_facts(path: Path) -> _WebpFacts | None:
    """Of a WebP; None for another file. Pillow's plugin would hold two whole canvases to answer, and two to decode."""
    with path.open("rb") as file:
        head = file.read(_WEBP_HEAD_BYTES)
        if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
            return None
        file.seek(_FIRST_CHUNK)
        while len(start := file.read(8)) == 8:
            kind, size = struct.unpack("<4sI", start)
            if kind == b"ICCP":
                return _WebpFacts(*webp_size(head), file.read(size))
            file.seek(size + size % 2, os.SEEK_CUR)
        return _WebpFacts(*webp_size(head), None)


def _open(path: Path) -> Image.Image:
    quiet_pillow()
    Image.MAX_IMAGE_PIXELS = None  # the size was judged when the result was asked for
    return Image.open(path, formats=_FORMATS)


def _by_opencv(path: Path) -> tuple[Band, tuple[int, int]]:
    """Bands of a file in RGB, RGBA or grey, and its (width, height)."""
    pixels: Any = cv2.imdecode(np.memmap(path, np.uint8, "r"), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise undecodable()

    def band(top: int, bottom: int) -> Image.Image:
        rows = pixels[top:bottom]  # (rows, W) or (rows, W, 3 or 4), BGR
        if rows.ndim == 3:
            rows = cv2.cvtColor(rows, cv2.COLOR_BGRA2RGBA if rows.shape[2] == 4 else cv2.COLOR_BGR2RGB)
        return Image.fromarray(rows)

    return band, (pixels.shape[1], pixels.shape[0])


def _shrunk(band_of: Band, size: tuple[int, int], max_side: int) -> NDArray[np.uint8]:
    """(h, w, 1 to 4) uint8 near twice the size of the preview: means of squares, from bands of whole squares."""
    width, height = size
    factor = max(1, max(size) // (2 * max_side))
    rows = factor * max(1, _BAND_PIXELS // (width * factor))
    parts = []
    for top in range(0, height, rows):
        band = band_of(top, min(height, top + rows))
        if band.mode.startswith("I;16"):
            band = Image.fromarray(samples.eight_bit(np.asarray(band)))
        parts.append(np.atleast_3d(np.asarray(band.reduce(factor))))
    return np.concatenate(parts)
