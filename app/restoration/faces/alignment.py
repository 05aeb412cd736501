"""Brings a face into the network's frame: 512 x 512, eyes and mouth where the FFHQ template has them, and back.

The similarity transform (least median of squares over five points) is that of facexlib's `align_warp_face`.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.images import Pixels

SIDE_PIXELS = 512
# FFHQ's mean landmarks in a 512-pixel frame, as facexlib's FaceRestoreHelper has them.
TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
_FILL_RGB = (132, 133, 135)  # upstream's grey beyond the photo's border
Matrix = NDArray[np.float64]  # (2, 3), takes (x, y, 1)


def estimate_similarity(landmarks: NDArray[np.float64]) -> Matrix | None:
    """The similarity transform (rotation, scale, shift) that lays five landmarks on the template of facexlib.

    Args:
        landmarks: (5, 2) float64, x and y in the photo's pixels.

    Returns:
        (2, 3) float64; None when the landmarks lie on top of each other.
    """
    matrix = cv2.estimateAffinePartial2D(landmarks, TEMPLATE, method=cv2.LMEDS)[0]
    if matrix is None or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:, :2])) < 1e-9:
        return None
    return np.asarray(matrix, np.float64)


def scale_of(matrix: Matrix) -> float:
    """How many times larger a (2, 3) float64 matrix makes things."""
    return math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))


def align_face(rgb: Pixels, matrix: Matrix) -> Pixels:
    """Warp a face into its frame, as facexlib's `FaceRestoreHelper.align_warp_face`.

    A face that is at least twice as large in the photo is first averaged down around it, or fine detail would turn
    into noise; upstream reads single pixels there.

    Args:
        rgb: (H, W, 3) uint8 or uint16, RGB.
        matrix: (2, 3) from the photo's pixels to the frame's.

    Returns:
        (512, 512, 3) RGB of the same dtype; grey where the photo has nothing.
    """
    factor = int(1 / scale_of(matrix))
    pixels: Any = rgb
    if factor >= 2:
        pixels, matrix = _downsampled(rgb, matrix, factor)
    unit = 1 if rgb.dtype == np.uint8 else 257
    fill = tuple(value * unit for value in _FILL_RGB)
    frame: Pixels = cv2.warpAffine(pixels, matrix, (SIDE_PIXELS, SIDE_PIXELS), borderValue=fill)
    return frame


def visible_mask(size: tuple[int, int], matrix: Matrix) -> NDArray[np.uint8] | None:
    """Where the frame shows the photo: (512, 512) uint8 of 1 and 0; None when it does so everywhere.

    Args:
        size: (height, width) of the photo.
        matrix: (2, 3) from the photo's pixels to the frame's.
    """
    corners = frame_corners(cv2.invertAffineTransform(matrix), 0, 0, SIDE_PIXELS, SIDE_PIXELS)
    height, width = size
    if corners.min() >= 0 and (corners.max(axis=0) <= (width - 1, height - 1)).all():
        return None
    ys, xs = np.mgrid[0:SIDE_PIXELS, 0:SIDE_PIXELS]
    back = cv2.invertAffineTransform(matrix)
    x = back[0, 0] * xs + back[0, 1] * ys + back[0, 2]
    y = back[1, 0] * xs + back[1, 1] * ys + back[1, 2]
    shown: NDArray[np.uint8] = ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).astype(np.uint8)
    return shown


def frame_corners(back: Matrix, left: float, top: float, right: float, bottom: float) -> NDArray[np.float64]:
    """Where a rectangle of the frame lands, as (4, 2) float64 x and y; `back` (2, 3) leads from frame to picture."""
    points = np.array([[left, top, 1.0], [right, top, 1.0], [right, bottom, 1.0], [left, bottom, 1.0]])
    return points @ back.T


def inverse_affine(matrix: Matrix, scale_x: float, scale_y: float) -> Matrix:
    """(2, 3) float64 from the frame's pixels to the enlarged photo's, with facexlib's shift by half a pixel."""
    back: Matrix = cv2.invertAffineTransform(matrix) * np.array([[scale_x], [scale_y]])
    back[0, 2] += 0.5 * scale_x if scale_x > 1 else 0.0
    back[1, 2] += 0.5 * scale_y if scale_y > 1 else 0.0
    return back


def _downsampled(rgb: Pixels, matrix: Matrix, factor: int) -> tuple[Pixels, Matrix]:
    """The part of the photo around the frame, averaged down `factor` times, and the matrix from there to the frame."""
    height, width = rgb.shape[:2]
    corners = frame_corners(cv2.invertAffineTransform(matrix), 0, 0, SIDE_PIXELS, SIDE_PIXELS)
    left, top = (max(0, int(value) - 2 * factor) for value in np.floor(corners.min(axis=0)))
    right, bottom = (int(value) + 2 * factor for value in np.ceil(corners.max(axis=0)))
    part = rgb[top : min(height, bottom), left : min(width, right)]
    if part.size == 0:
        return rgb, matrix
    size = (max(1, part.shape[1] // factor), max(1, part.shape[0] // factor))
    small: Pixels = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    steps = np.array([part.shape[1] / size[0], part.shape[0] / size[1]])
    adapted = matrix.copy()
    adapted[:, 2] += matrix[:, :2] @ (np.array([left, top]) + (steps - 1) / 2)
    adapted[:, :2] = matrix[:, :2] * steps
    return small, adapted
