"""Contact sheets for the eye: the scan, what is damaged or how sure the network is, and what it marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MARK_COLOR = (255, 0, 0)
UNSURE_COLOR = (0, 0, 255)

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB
Mask = NDArray[np.bool_]


def overlay(scan: Pixels, mask: Mask, unsure: Mask | None = None) -> Pixels:
    """The scan, (H, W, 3) uint8, with marked pixels in red and unsure ones in blue."""
    result = scan.copy()
    result[mask] = MARK_COLOR
    if unsure is not None:
        result[unsure] = UNSURE_COLOR
    return result


def as_grey(probability: NDArray[np.float32]) -> Pixels:
    """Probabilities, (H, W) in [0, 1], as a grey picture (H, W, 3) uint8."""
    grey = np.rint(probability * 255.0).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def write_sheet(path: Path, rows: Sequence[Sequence[Pixels]]) -> None:
    """Rows of pictures of equal size, each (H, W, 3) uint8, as one PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows])).save(path)
