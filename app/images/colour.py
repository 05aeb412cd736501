"""Colour: ICC profiles, CMYK, Lab and grey, brought to the RGB that the network sees, and what to tag it with.

A result must look as the photo looked. What a file says without a profile is `colour_encoding`'s. Profiles are opened
here, so only the decoder's child may import this.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import ImageCms

from app.images import icc
from app.images.icc import srgb_profile
from app.images.icc_writing import wide_profile
from app.images.picture import NormalizedColor, Pixels
from app.images.primaries import SRGB_PRIMARIES, WIDE_PRIMARIES
from app.images.samples import row_slices
from app.images.srgb_table import GREYS, POINTS, Bytes8, table_grid

__all__ = ["BROKEN_PROFILE", "normalize_color", "normalize_deep", "srgb_profile", "srgb_table"]

# A photo is put into sRGB when nearly all its pixels survive the way there and back; else its own space is kept.
_FAITHFUL_SHARE = 0.999
_FAITHFUL_STEPS = 3
_SAMPLED_PIXELS = 250_000
BROKEN_PROFILE = "The photo's colour profile is broken or does not fit the photo, and was left out."


def normalize_color(pixels: Bytes8, mode: str, icc_profile: bytes | None) -> NormalizedColor:
    """Pixels of a mode (L, RGB, CMYK, LAB), (H, W) or (H, W, C) uint8, to grey or RGB; no profile makes it fail.

    Grey, CMYK and Lab become sRGB. RGB in another space becomes sRGB if that is faithful, and stays as it is, with its
    own profile, if colours would be clipped. A profile that leads one way only (a scanner's) cannot be kept: such a
    photo becomes sRGB, or the wide working space where sRGB would clip.
    """
    if icc_profile is not None:
        try:
            return _normalize_with(pixels, mode, icc_profile)
        except icc.FAILURES:
            normalized = normalize_color(pixels, mode, None)
            return dataclasses.replace(normalized, notes=(BROKEN_PROFILE,))
    if mode in ("L", "RGB"):
        return NormalizedColor(pixels)
    if mode == "CMYK":
        return NormalizedColor(_cmyk_to_rgb(pixels))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    return NormalizedColor(icc.apply(pixels, icc.transform(lab, srgb_profile(), "LAB"), "LAB"))


def normalize_deep(pixels: Pixels, mode: str, icc_profile: bytes | None) -> NormalizedColor:
    """Grey (H, W) or RGB (H, W, 3) uint16: numbers and profile stay, unless the profile leads one way only.

    A grey photo with an RGB profile is brought to sRGB, for its file cannot carry that profile.
    """
    if icc_profile is None:
        return NormalizedColor(pixels)
    profile = icc.judge(icc_profile)
    if profile.usable and profile.space == ("GRAY" if mode == "L" else "RGB") and profile.reversible:
        return NormalizedColor(pixels, icc_profile)
    if not profile.usable or profile.space != "RGB":
        return NormalizedColor(pixels, None, (BROKEN_PROFILE,))
    if mode == "L":
        return NormalizedColor(pixels if profile.is_srgb else _grey_through(pixels, icc_profile))
    step = max(1, int((pixels.shape[0] * pixels.shape[1] / _SAMPLED_PIXELS) ** 0.5))
    sample = (pixels[::step, ::step] >> 8).astype(np.uint8)
    if _normalize_one_way(sample, icc_profile).icc_profile == srgb_profile():
        return NormalizedColor(_through_table(pixels, icc.table_to(icc_profile, SRGB_PRIMARIES)), srgb_profile())
    return NormalizedColor(_through_table(pixels, icc.table_to(icc_profile, WIDE_PRIMARIES)), wide_profile())


def srgb_table(icc_profile: bytes | None, *, grey: bool) -> Bytes8 | None:
    """What the colours of a profile are in sRGB, clipped to it: (256,) uint8 for greys, else (52, 52, 52, 3) uint8 RGB.

    None for a profile that is unusable, or that does what sRGB does.
    """
    if icc_profile is None or icc.judge(icc_profile).is_srgb:
        return None
    try:
        if grey:
            ramp = np.arange(GREYS, dtype=np.uint8)[None]
            return np.array(_normalize_with(ramp, "L", icc_profile).pixels[0], np.uint8)  # a copy, in one piece
        colours = icc.apply(table_grid(), icc.transform(icc_profile, srgb_profile(), "RGB"), "RGB")
    except icc.FAILURES:
        return None
    return colours.reshape(POINTS, POINTS, POINTS, 3)


def _normalize_with(pixels: Bytes8, mode: str, icc_profile: bytes) -> NormalizedColor:
    profile = icc.judge(icc_profile)
    if mode == "LAB":
        return dataclasses.replace(normalize_color(pixels, mode, None), icc_profile=srgb_profile())
    if not profile.usable:
        raise ValueError("the profile is broken")
    if mode == "RGB" and profile.space == "RGB":
        if profile.is_srgb:
            return NormalizedColor(pixels, icc_profile if profile.reversible else srgb_profile())
        return (_normalize_rgb if profile.reversible else _normalize_one_way)(pixels, icc_profile)
    if mode == "L" and profile.space == "GRAY":
        return NormalizedColor(icc.apply(pixels, icc.transform(icc_profile, srgb_profile(), "L"), "L")[..., 1])
    if mode == "L" and profile.space == "RGB":
        # Common: a grey JPEG tagged as RGB. Its greys are the equal triples of that space.
        return NormalizedColor(pixels if profile.is_srgb else _grey_table(icc_profile)[pixels])
    if mode == "CMYK" and profile.space == "CMYK":
        way = icc.transform(icc_profile, srgb_profile(), "CMYK")
        return NormalizedColor(icc.apply(pixels, way, "CMYK"), srgb_profile())
    raise ValueError("the profile is for another kind of picture")


def _normalize_rgb(rgb: Bytes8, icc_profile: bytes) -> NormalizedColor:
    there = icc.transform(icc_profile, srgb_profile(), "RGB")
    back = icc.transform(srgb_profile(), icc_profile, "RGB")
    converted = np.empty_like(rgb)
    faithful = 0
    for band in row_slices(rgb):
        converted[band] = icc.convert(rgb[band], there, "RGB")
        returned = icc.convert(converted[band], back, "RGB").astype(np.int16)
        faithful += int((np.abs(returned - rgb[band]).max(axis=2) <= _FAITHFUL_STEPS).sum())
    if faithful >= _FAITHFUL_SHARE * rgb.shape[0] * rgb.shape[1]:
        return NormalizedColor(converted, srgb_profile())
    return NormalizedColor(rgb, icc_profile)


def _normalize_one_way(rgb: Bytes8, icc_profile: bytes) -> NormalizedColor:
    """What sRGB clips can be told only from a space that leads both ways, so that is gone to first."""
    wide = icc.apply(rgb, icc.transform(icc_profile, wide_profile(), "RGB"), "RGB")
    settled = _normalize_rgb(wide, wide_profile())
    if settled.icc_profile != srgb_profile():
        return settled
    return NormalizedColor(icc.apply(rgb, icc.transform(icc_profile, srgb_profile(), "RGB"), "RGB"), srgb_profile())


def _grey_table(icc_profile: bytes) -> Bytes8:
    """What each of the 256 greys of an RGB profile is in sRGB."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    return icc.apply(ramp, icc.transform(icc_profile, srgb_profile(), "RGB"), "RGB")[0, :, 1]


def _grey_through(grey: Pixels, icc_profile: bytes) -> Pixels:
    table = icc.table_to(icc_profile, SRGB_PRIMARIES)
    diagonal = np.arange(len(table))
    ramp = table[diagonal, diagonal, diagonal, 1]
    curve = np.interp(np.arange(65536), np.linspace(0, 65535, len(ramp)), ramp)
    converted: Pixels = (curve * 65535 + 0.5).astype(np.uint16)[grey]
    return converted


def _through_table(rgb: Pixels, table: np.typing.NDArray[np.float32]) -> Pixels:
    """RGB (H, W, 3) uint16 through a dense table (N, N, N, 3) of 0..1, trilinear between its points."""
    count = len(table)
    points = table.reshape(-1, 3)
    result = np.empty_like(rgb)
    for band in row_slices(rgb):
        place = rgb[band].astype(np.float32) * np.float32((count - 1) / 65535)
        corner = np.minimum(place.astype(np.int32), count - 2)
        part = place - corner
        start = (corner[..., 0] * count + corner[..., 1]) * count + corner[..., 2]
        mixed = np.zeros(place.shape, np.float32)
        for index in range(8):
            steps = (index >> 2, index >> 1 & 1, index & 1)
            weights = [part[..., axis] if step else 1 - part[..., axis] for axis, step in enumerate(steps)]
            offset = (steps[0] * count + steps[1]) * count + steps[2]
            mixed += points[start + offset] * (weights[0] * weights[1] * weights[2])[..., None]
        result[band] = (mixed * 65535 + 0.5).astype(np.uint16)
    return result


def _cmyk_to_rgb(cmyk: Bytes8) -> Bytes8:
    """CMYK without a profile: each ink takes its share of the light away, as all viewers do it."""
    rgb = np.empty((*cmyk.shape[:2], 3), np.uint8)
    for band in row_slices(cmyk):
        light = (255 - cmyk[band]).astype(np.uint16)
        rgb[band] = (light[..., :3] * light[..., 3:] + 127) // 255
    return rgb
