"""Colour: ICC profiles, CMYK, Lab and grey, brought to the RGB that the network sees, and what to tag it with.

A result must look as the photo looked.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from app.images.picture import Pixels

Bytes8 = NDArray[np.uint8]

_BAND_PIXELS = 1 << 20
# A photo is put into sRGB when nearly all its pixels survive the way there and back; else its own space is kept.
_FAITHFUL_SHARE = 0.999
_FAITHFUL_STEPS = 3
_SAME_STEPS = 2
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
BROKEN_PROFILE = "The photo's colour profile is broken or does not fit the photo, and was left out."


@dataclasses.dataclass(frozen=True)
class NormalizedColor:
    """Colours ready for the network.

    Attributes:
        pixels: (H, W, 3) RGB or (H, W) grey, uint8 or (for 16-bit photos, which keep their own space) uint16.
        icc_profile: what to tag the result with, or None.
        notes: what had to be given up.
    """

    pixels: Pixels
    icc_profile: bytes | None = None
    notes: tuple[str, ...] = ()


@functools.cache
def srgb_profile() -> bytes:
    """An sRGB profile, with a fixed date in it, so that equal pictures give equal files."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[24:36] = bytes.fromhex("07e800010001000000000000")
    data[84:100] = bytes(16)
    return bytes(data)


def normalize_color(pixels: Bytes8, mode: str, icc_profile: bytes | None) -> NormalizedColor:
    """Pixels of a mode (L, RGB, CMYK, LAB), (H, W) or (H, W, C) uint8, to grey or RGB; no profile makes it fail.

    Grey, CMYK and Lab become sRGB. RGB in another space becomes sRGB if that is faithful, and stays as it is, with its
    own profile, if colours would be clipped.
    """
    if icc_profile is not None:
        try:
            return _normalize_with(pixels, mode, icc_profile)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            normalized = normalize_color(pixels, mode, None)
            return dataclasses.replace(normalized, notes=(BROKEN_PROFILE,))
    if mode in ("L", "RGB"):
        return NormalizedColor(pixels)
    if mode == "CMYK":
        return NormalizedColor(_cmyk_to_rgb(pixels))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    return NormalizedColor(_apply(pixels, _transform(lab, _srgb(), "LAB", "RGB"), "LAB"))


def to_srgb(rgb: Bytes8, icc_profile: bytes | None) -> Bytes8:
    """RGB (H, W, 3) uint8 in a profile's space to sRGB, clipped to it; unchanged if the profile is unusable."""
    if icc_profile is None:
        return rgb
    try:
        return _apply(rgb, _transform(_open(icc_profile), _srgb(), "RGB", "RGB"), "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return rgb


def profile_space(icc_profile: bytes) -> str:
    """The colour space that a profile's header names (RGB, GRAY, CMYK, Lab), or an empty text; nothing is parsed."""
    if icc_profile[36:40] != b"acsp":
        return ""
    return icc_profile[16:20].decode("latin-1").strip()


def is_usable(icc_profile: bytes, space: str) -> bool:
    """Whether a profile is whole and for that colour space."""
    try:
        _open(icc_profile)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return False
    return profile_space(icc_profile) == space


def _normalize_with(pixels: Bytes8, mode: str, icc_profile: bytes) -> NormalizedColor:
    source = _open(icc_profile)
    space = str(source.profile.xcolor_space).strip()
    if mode == "RGB" and space == "RGB":
        return _normalize_rgb(pixels, icc_profile, source)
    if mode == "L" and space == "GRAY":
        return NormalizedColor(_apply(pixels, _transform(source, _srgb(), "L", "RGB"), "L")[..., 1])
    if mode == "L" and space == "RGB":
        # Common: a grey JPEG tagged as RGB. Its greys are the equal triples of that space.
        ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
        table = _apply(ramp, _transform(source, _srgb(), "RGB", "RGB"), "RGB")[0, :, 1]
        return NormalizedColor(pixels if _is_srgb(source) else table[pixels])
    if mode == "CMYK" and space == "CMYK":
        return NormalizedColor(_apply(pixels, _transform(source, _srgb(), "CMYK", "RGB"), "CMYK"), srgb_profile())
    if mode == "LAB":
        return dataclasses.replace(normalize_color(pixels, mode, None), icc_profile=srgb_profile())
    raise ValueError("the profile is for another kind of picture")


def _normalize_rgb(rgb: Bytes8, icc_profile: bytes, source: ImageCms.ImageCmsProfile) -> NormalizedColor:
    if _is_srgb(source):
        return NormalizedColor(rgb, icc_profile)
    there = _transform(source, _srgb(), "RGB", "RGB")
    back = _transform(_srgb(), source, "RGB", "RGB")
    converted = np.empty_like(rgb)
    faithful = 0
    for band in _bands(rgb):
        converted[band] = _convert(rgb[band], there, "RGB")
        returned = _convert(converted[band], back, "RGB").astype(np.int16)
        faithful += int((np.abs(returned - rgb[band]).max(axis=2) <= _FAITHFUL_STEPS).sum())
    if faithful >= _FAITHFUL_SHARE * rgb.shape[0] * rgb.shape[1]:
        return NormalizedColor(converted, srgb_profile())
    return NormalizedColor(rgb, icc_profile)


def _is_srgb(source: ImageCms.ImageCmsProfile) -> bool:
    """Whether a profile does what sRGB does, judged by colours and not by its name."""
    steps = np.linspace(0, 255, 17).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(17, -1, 3)
    converted = _convert(grid, _transform(source, _srgb(), "RGB", "RGB"), "RGB").astype(np.int16)
    return int(np.abs(converted - grid).max()) <= _SAME_STEPS


def _cmyk_to_rgb(cmyk: Bytes8) -> Bytes8:
    """CMYK without a profile: each ink takes its share of the light away, as all viewers do it."""
    rgb = np.empty((*cmyk.shape[:2], 3), np.uint8)
    for band in _bands(cmyk):
        light = (255 - cmyk[band]).astype(np.uint16)
        rgb[band] = (light[..., :3] * light[..., 3:] + 127) // 255
    return rgb


def _open(icc_profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))


def _srgb() -> ImageCms.ImageCmsProfile:
    return _open(srgb_profile())


def _transform(
    source: ImageCms.ImageCmsProfile, target: ImageCms.ImageCmsProfile, mode_in: str, mode_out: str
) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(source, target, mode_in, mode_out, _INTENT, _FLAGS)


def _bands(pixels: Bytes8) -> Iterator[slice]:
    """Slices of rows of about a megapixel, so that no step copies a whole photo."""
    rows = max(1, _BAND_PIXELS // pixels.shape[1])
    for start in range(0, pixels.shape[0], rows):
        yield slice(start, start + rows)


def _apply(pixels: Bytes8, transform: ImageCms.ImageCmsTransform, mode: str) -> Bytes8:
    converted = np.empty((*pixels.shape[:2], 3), np.uint8)
    for band in _bands(pixels):
        converted[band] = _convert(pixels[band], transform, mode)
    return converted


def _convert(pixels: Bytes8, transform: ImageCms.ImageCmsTransform, mode: str) -> Bytes8:
    height, width = pixels.shape[:2]
    image = Image.frombytes(mode, (width, height), np.ascontiguousarray(pixels).tobytes())
    return np.asarray(ImageCms.applyTransform(image, transform))
