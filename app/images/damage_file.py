"""The damage of a photo as it is kept beside the result: two grey PNG files in one, ready to be sent.

A server that only sends them decodes nothing.
"""

from __future__ import annotations

import enum
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.errors import Unprocessable
from app.images.damage_layer import DamageLayer

_COMPRESS_LEVEL = 4  # of PNG: half the time of 6 for a few per cent more bytes


class DamageMap(enum.StrEnum):
    """Which of the two pictures of a photo's damage."""

    MASK = "mask"  # 255 where the photo was filled, else 0
    PROBABILITY = "probability"  # 255 times the probability of damage


def save_damage(path: Path, damage: DamageLayer) -> None:
    """Write both pictures to `path`; the caller takes care of a temporary name and of fsync. Raises `OSError`."""
    pictures = {
        DamageMap.MASK: damage.mask.view(np.uint8) * np.uint8(255),
        DamageMap.PROBABILITY: damage.probability,
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for which, pixels in pictures.items():
            _write(archive, which, pixels)


def _write(archive: zipfile.ZipFile, which: DamageMap, pixels: NDArray[np.uint8]) -> None:
    """One picture, (H, W) uint8."""
    with archive.open(which.value, "w", force_zip64=True) as file:
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=_COMPRESS_LEVEL)


def read_damage(path: Path, which: DamageMap) -> bytes:
    """One of the two as an 8-bit grey PNG of the photo's own size. Raises `Unprocessable` `damage_unreadable`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(which.value)
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError) as error:
        raise Unprocessable("damage_unreadable", "The kept damage cannot be read; restore the photo again.") from error
