"""Transparency: colours under it that must not bleed into the visible edge. Arrays only."""

from __future__ import annotations

import cv2
import numpy as np

from app.images.picture import Pixels


def bleed(rgb: Pixels, alpha: Pixels) -> None:
    """Fill the fully transparent area with the nearest visible colours, in place.

    Exporters write one flat colour there (black or white); a network or resampler would drag it into the visible edge
    as a fringe. Hidden colours that are real content are left as they are.

    Args:
        rgb: (H, W, 3) uint8 or uint16.
        alpha: (H, W) of the same dtype.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all() or not _is_flat(rgb, hidden):
        return
    # OpenCV numbers the visible pixels from 1 on, row by row: the order in which boolean indexing lists them.
    _, labels = cv2.distanceTransformWithLabels(
        hidden.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3, labelType=cv2.DIST_LABEL_PIXEL
    )
    rgb[hidden] = rgb[~hidden][labels[hidden] - 1]


def _is_flat(rgb: Pixels, hidden: np.typing.NDArray[np.bool_]) -> bool:
    first = rgb.reshape(-1, 3)[int(hidden.argmax())]
    return bool(((rgb == first).all(axis=2) | ~hidden).all())


def unmultiply(rgb: Pixels, alpha: Pixels) -> None:
    """Undo premultiplied alpha in place; fully transparent pixels stay as they are.

    Args:
        rgb: (H, W, 3) uint8 or uint16, premultiplied RGB; changed.
        alpha: (H, W) of the same dtype.
    """
    peak = np.iinfo(rgb.dtype).max
    for row in range(rgb.shape[0]):
        weight = alpha[row][:, None].astype(np.uint32)
        straight = (rgb[row].astype(np.uint32) * peak + weight // 2) // np.maximum(weight, 1)
        rgb[row] = np.where(weight == 0, rgb[row], np.minimum(straight, peak))
