"""Photos in a folder, split into those that are trained on and a tenth that is never shown to the network.

The split hangs on the file's name alone, so that adding a photo never moves another one across. It knows nothing of
degradation or networks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
HELD_OUT_OF = 10  # one photo of ten
# Photographs among scikit-image's bundled pictures; drawings, test charts, and second pictures of a pair are left out.
SCIKIT_PHOTOS = (
    *("astronaut", "brick", "camera", "chelsea", "clock_motion", "coffee", "coins", "grass", "gravel"),
    *("hubble_deep_field", "ihc", "moon", "motorcycle_left", "page", "retina", "rocket", "text"),
)

Rgb = NDArray[np.uint8]


def list_photos(folder: Path) -> list[Path]:
    """All photos below a folder, by name.

    Raises:
        FileNotFoundError: the folder holds none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise FileNotFoundError(
            f"There is no photo in {folder}; name a folder with JPEG, PNG, WebP, TIFF or BMP files."
        )
    return found


def is_held_out(path: Path) -> bool:
    """Whether a photo is kept for measuring: the hash of its name, modulo ten, is zero."""
    digest = hashlib.sha256(path.stem.encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_OF == 0


def split(folder: Path) -> tuple[list[Path], list[Path]]:
    """(to train on, held out).

    Raises:
        FileNotFoundError: no photos. ValueError: so few that none is held out, or none left.
    """
    photos = list_photos(folder)
    seen, unseen = [p for p in photos if not is_held_out(p)], [p for p in photos if is_held_out(p)]
    if not seen or not unseen:
        raise ValueError(f"{len(photos)} photos are too few to hold some of them out; add more to {folder}.")
    return seen, unseen


def read_rgb(path: Path) -> Rgb:
    """One photo as (H, W, 3) uint8 RGB in [0, 255]; alpha is dropped, grey becomes three equal channels."""
    with Image.open(path) as image:
        pixels: NDArray[Any] = np.asarray(image.convert("RGB"))
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def scikit_photos() -> Iterator[tuple[str, Rgb]]:
    """(name, photo) of the photographs bundled with scikit-image."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    for name in SCIKIT_PHOTOS:
        yield name, read_rgb(next(path for path in sorted(folder.iterdir()) if path.stem == name))
