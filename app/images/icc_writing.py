"""ICC profiles of our own: written from primaries and a curve, without a library that opens profiles."""

from __future__ import annotations

import functools
import struct

import numpy as np
from numpy.typing import NDArray

from app.images.primaries import ADOBE_PRIMARIES, WIDE_PRIMARIES, Primaries

# The sRGB curve as a parametric curve of type 3: gamma, and a, b, c, d of the specification.
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_POWER_CURVE, _FULL_CURVE, _GENERAL_CURVE = 0, 3, 4
_ADOBE_GAMMA = 563 / 256


@functools.cache
def wide_profile() -> bytes:
    """The working space for colours that sRGB would clip."""
    return matrix_profile(WIDE_PRIMARIES, "BT.2020 primaries with the sRGB curve")


@functools.cache
def adobe_rgb_profile() -> bytes:
    """What cameras call Adobe RGB, for photos that name it and bring no profile."""
    curve = _parametric(_POWER_CURVE, _ADOBE_GAMMA)
    return _assemble(ADOBE_PRIMARIES, "Compatible with Adobe RGB (1998)", curve)


def matrix_profile(primaries: Primaries, name: str) -> bytes:
    """A profile of these primaries with the curve of sRGB, to tag a result with."""
    return _assemble(primaries, name, _parametric(_FULL_CURVE, *_SRGB_CURVE))


def window_profile(primaries: Primaries, index: int, windows: int) -> bytes:
    """Primaries with one part of the sRGB curve: the one with this index of so many that are equally wide."""
    gamma, a, b, c, d = _SRGB_CURVE
    low, wide = index / windows, 1 / windows
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
