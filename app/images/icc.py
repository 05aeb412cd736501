"""ICC profiles: what one can do, colours through it in 8 and in 16 bits, and profiles of our own."""

from __future__ import annotations

import dataclasses
import functools
import io
import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from app.images.picture import Pixels
from app.images.primaries import WIDE_PRIMARIES, Primaries

Bytes8 = NDArray[np.uint8]

FAILURES = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
_BAND_PIXELS = 1 << 20
_SAME_STEPS = 2
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
_EXACT_FLAGS = ImageCms.Flags.NOOPTIMIZE | ImageCms.Flags.NOCACHE
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_REMEMBERED_PROFILES = 8
# The sRGB curve as a parametric curve of type 3: gamma, and a, b, c, d of the specification.
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_FULL_CURVE, _GENERAL_CURVE = 3, 4
_TABLE_STEP = 5  # of 255: 52 points an axis, each of them exact in 8 bits
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


def profile_space(icc_profile: bytes) -> str:
    """The colour space that a profile's header names (RGB, GRAY, CMYK, Lab), or an empty text; nothing is parsed."""
    if icc_profile[36:40] != b"acsp":
        return ""
    return icc_profile[16:20].decode("latin-1").strip()


def transform(
    source: bytes, target: bytes, mode_in: str, mode_out: str = "RGB", flags: ImageCms.Flags = _FLAGS
) -> ImageCms.ImageCmsTransform:
    """The way from one profile to another; raises one of `FAILURES` where lcms finds none."""
    return ImageCms.buildTransform(_open(source), _open(target), mode_in, mode_out, _INTENT, flags)


def apply(pixels: Bytes8, way: ImageCms.ImageCmsTransform, mode: str) -> Bytes8:
    """Pixels of a mode, (H, W) or (H, W, C) uint8, to RGB (H, W, 3) uint8, band by band."""
    converted = np.empty((*pixels.shape[:2], 3), np.uint8)
    for band in bands(pixels):
        converted[band] = convert(pixels[band], way, mode)
    return converted


def convert(pixels: Bytes8, way: ImageCms.ImageCmsTransform, mode: str) -> Bytes8:
    """`apply` of one band: (H, W) or (H, W, C) uint8 to (H, W, 3) uint8."""
    height, width = pixels.shape[:2]
    image = Image.frombytes(mode, (width, height), np.ascontiguousarray(pixels).tobytes())
    return np.asarray(ImageCms.applyTransform(image, way))


def bands(pixels: Pixels) -> Iterator[slice]:
    """Slices of rows of (H, W) or (H, W, C) pixels, about a megapixel each, so that no step copies a whole photo."""
    rows = max(1, _BAND_PIXELS // pixels.shape[1])
    for start in range(0, pixels.shape[0], rows):
        yield slice(start, start + rows)


@functools.cache
def srgb_profile() -> bytes:
    """An sRGB profile, with a fixed date in it, so that equal pictures give equal files."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[24:36] = bytes.fromhex("07e800010001000000000000")
    data[84:100] = bytes(16)
    return bytes(data)


@functools.cache
def wide_profile() -> bytes:
    """The working space for colours that sRGB would clip."""
    return matrix_profile(WIDE_PRIMARIES, "BT.2020 primaries with the sRGB curve")


def matrix_profile(primaries: Primaries, name: str) -> bytes:
    """A profile of these primaries with the curve of sRGB, to tag a result with."""
    return _assemble(primaries, name, _parametric(_FULL_CURVE, *_SRGB_CURVE))


@functools.lru_cache(2)
def table_to(icc_profile: bytes, target: Primaries) -> NDArray[np.float32]:
    """An RGB profile as a dense table (52, 52, 52, 3) float32, from its values to 0..1 of the target (sRGB curve).

    Pillow gives 8 bits only, so the target is opened 16 times, each time with a curve that spreads a sixteenth of the
    range over all 8 bits and saturates outside of it; the mean of the answers is then the value to 12 bits. The black
    point is not compensated for: lcms would take that of such a target for a real one.
    """
    steps = np.arange(0, 256, _TABLE_STEP, dtype=np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(len(steps), -1, 3)
    total = np.zeros(grid.shape, np.uint32)
    for index in range(_WINDOWS):
        way = transform(icc_profile, _window_profile(target, index / _WINDOWS), "RGB", flags=_EXACT_FLAGS)
        total += convert(grid, way, "RGB")
    return (total / (255 * _WINDOWS)).astype(np.float32).reshape(len(steps), len(steps), len(steps), 3)


def _window_profile(primaries: Primaries, low: float) -> bytes:
    """Primaries with the part of the sRGB curve that begins at `low` and is a sixteenth of the range wide."""
    gamma, a, b, c, d = _SRGB_CURVE
    wide = 1 / _WINDOWS
    curve = (gamma, a * wide, a * low + b, c * wide, (d - low) / wide, 0.0, c * low)
    return _assemble(primaries, "window", _parametric(_GENERAL_CURVE, *curve))


def _assemble(primaries: Primaries, name: str, curve: bytes) -> bytes:
    """A version 4 display profile of a matrix and one curve for the three channels."""
    columns = primaries.to_pcs().T
    text = name.encode("utf-16-be")
    words = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    tags = {b"desc": words, b"cprt": words, b"wtpt": _xyz(columns.sum(axis=0))}
    tags |= {tag: _xyz(column) for tag, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    body, table, places = bytearray(), b"", dict[bytes, int]()
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        if data not in places:
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += tag + struct.pack(">II", places[data], len(data))
    head = struct.pack(">I4xI4s4s4s6H", start + len(body), 0x04300000, b"mntr", b"RGB ", b"XYZ ", 2024, 1, 1, 0, 0, 0)
    head += b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + bytes(body)


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))


def _parametric(kind: int, *numbers: float) -> bytes:
    fixed = (round(number * 65536) for number in numbers)
    return b"para\0\0\0\0" + struct.pack(f">HH{len(numbers)}i", kind, 0, *fixed)


def _changes_nothing(way: ImageCms.ImageCmsTransform) -> bool:
    steps = np.linspace(0, 255, 17).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(17, -1, 3)
    converted = convert(grid, way, "RGB").astype(np.int16)
    return int(np.abs(converted - grid).max()) <= _SAME_STEPS


def _open(icc_profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
