"""ICC profiles, opened: what one can do, and colours through it in 8 and in 16 bits.

lcms reads bytes that somebody made up here, so only the decoder's child may import this.
"""

from __future__ import annotations

import dataclasses
import functools
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from app.images.icc_writing import window_profile
from app.images.primaries import Primaries
from app.images.samples import row_slices
from app.images.srgb_table import Bytes8, profile_space, table_grid

FAILURES = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
_SAME_STEPS = 2
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
_EXACT_FLAGS = ImageCms.Flags.NOOPTIMIZE | ImageCms.Flags.NOCACHE
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_REMEMBERED_PROFILES = 8
_WINDOWS = 16  # each gives 8 bits of its sixteenth of the range, 12 bits together


@dataclasses.dataclass(frozen=True)
class Profile:
    """What a profile can do.

    Attributes:
        space: the colour space of its device side (RGB, GRAY, CMYK, Lab).
        usable: colours can be brought from it to sRGB.
        reversible: colours can be brought back into it, so that a result can be kept in it.
        is_srgb: it does what sRGB does, judged by colours and not by its name.
    """

    space: str
    usable: bool = False
    reversible: bool = False
    is_srgb: bool = False


@functools.lru_cache(_REMEMBERED_PROFILES)
def judge(icc_profile: bytes) -> Profile:
    """Try what a profile can do; a broken one is not usable."""
    space = profile_space(icc_profile)
    mode = _MODES.get(space, "")
    try:
        there = transform(icc_profile, srgb_profile(), mode)
    except FAILURES:
        return Profile(space)
    try:
        reversible = transform(srgb_profile(), icc_profile, "RGB", mode) is not None
    except FAILURES:
        reversible = False
    return Profile(space, True, reversible, mode == "RGB" and _changes_nothing(there))


def transform(
    source: bytes, target: bytes, mode_in: str, mode_out: str = "RGB", flags: ImageCms.Flags = _FLAGS
) -> ImageCms.ImageCmsTransform:
    """The way from one profile to another; raises one of `FAILURES` where lcms finds none."""
    return ImageCms.buildTransform(_open(source), _open(target), mode_in, mode_out, _INTENT, flags)


def apply(pixels: Bytes8, way: ImageCms.ImageCmsTransform, mode: str) -> Bytes8:
    """Pixels of a mode, (H, W) or (H, W, C) uint8, to RGB (H, W, 3) uint8, band by band."""
    converted = np.empty((*pixels.shape[:2], 3), np.uint8)
    for band in row_slices(pixels):
        converted[band] = convert(pixels[band], way, mode)
    return converted


def convert(pixels: Bytes8, way: ImageCms.ImageCmsTransform, mode: str) -> Bytes8:
    """`apply` of one band: (H, W) or (H, W, C) uint8 to (H, W, 3) uint8."""
    height, width = pixels.shape[:2]
    image = Image.frombytes(mode, (width, height), np.ascontiguousarray(pixels).tobytes())
    return np.asarray(ImageCms.applyTransform(image, way))


@functools.cache
def srgb_profile() -> bytes:
    """An sRGB profile, with a fixed date in it, so that equal pictures give equal files."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[24:36] = bytes.fromhex("07e800010001000000000000")
    data[84:100] = bytes(16)
    return bytes(data)


@functools.lru_cache(2)
def table_to(icc_profile: bytes, target: Primaries) -> NDArray[np.float32]:
    """An RGB profile as a dense table (52, 52, 52, 3) float32, from its values to 0..1 of the target (sRGB curve).

    Pillow gives 8 bits only, so the target is opened 16 times, each time with a curve that spreads a sixteenth of the
    range over all 8 bits and saturates outside of it; the mean of the answers is then the value to 12 bits. The black
    point is not compensated for: lcms would take that of such a target for a real one.
    """
    grid = table_grid()
    total = np.zeros(grid.shape, np.uint32)
    for index in range(_WINDOWS):
        way = transform(icc_profile, window_profile(target, index, _WINDOWS), "RGB", flags=_EXACT_FLAGS)
        total += convert(grid, way, "RGB")
    return (total / (255 * _WINDOWS)).astype(np.float32).reshape(len(grid), len(grid), len(grid), 3)


def _changes_nothing(way: ImageCms.ImageCmsTransform) -> bool:
    steps = np.linspace(0, 255, 17).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(17, -1, 3)
    converted = convert(grid, way, "RGB").astype(np.int16)
    return int(np.abs(converted - grid).max()) <= _SAME_STEPS


def _open(icc_profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
