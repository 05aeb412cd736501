"""Holes filled by diffusion: the harmonic and the biharmonic surface over a hole, mixed by the distance to its edge.

The harmonic surface takes values from the edge and is the better guess deep inside; the biharmonic one takes slopes
too and is better near the edge, where it is all that a thin scratch needs. 80 drawn holes in held-out
photos, without grain, dB pooled inside wide and thin parts and all: this fill 21.57, 28.12 and 21.74, the better of
OpenCV's two 20.67, 27.17 and 20.83. Its two constants were chosen on other samples of the same photos. On 32 such
samples biharmonic alone was 1.8 dB worse where wide, harmonic alone 0.4 dB there and 0.9 where thin, the mean of
OpenCV's two no better than the better one; smoothing afterwards gained nothing.

The biharmonic equations are those of scikit-image's `inpaint_biharmonic`, put up for all pixels at once and solved as
the symmetric system that they are: 2.4 times as fast on a scan with 860 scratches, no value further apart than 5e-5.
Source: Damelin and Hoang, On Surface Completion and Image Inpainting by Biharmonic Functions, 2018.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]  # (H, W, 3) or (H, W, 1)
Mask = NDArray[np.bool_]  # (H, W)

SHELL_PIXELS = 12.0  # this far inside a hole the biharmonic surface is asked, and counts less and less
BIHARMONIC_SHARE = 0.5  # of the mean, at the hole's edge
SWEEPS = 10  # of relaxation at each size of the pyramid
SMALLEST_SIDE, LARGEST_DEPTH = 4, 8  # of the pyramid
_NEIGHBOURS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4
_BILAPLACIAN = np.array(
    [[0, 0, 1, 0, 0], [0, 2, -8, 2, 0], [1, -8, 20, -8, 1], [0, 2, -8, 2, 0], [0, 0, 1, 0, 0]], np.float32
)  # the Laplacian of the Laplacian
_DOWN, _RIGHT = np.nonzero(_BILAPLACIAN)
_FACTORS = _BILAPLACIAN[_DOWN, _RIGHT]
_AROUND = (2, 2, 2, 2)  # pixels that it sees above, below, left and right of its centre


def diffusion_fill(picture: Plane, hole: Mask) -> Plane:
    """Fill a hole, (H, W) bool, of a picture, (H, W, C) float32 in [0, 1]; outside nothing changes.

    A hole that covers everything becomes 0.5.
    """
    smooth = harmonic_fill(picture, hole)
    if hole.all() or not hole.any():
        return smooth
    depth = np.asarray(cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
    shell = hole & (depth <= SHELL_PIXELS)
    curved = biharmonic_fill(smooth, shell)
    share = BIHARMONIC_SHARE * np.clip(1.0 - (depth - 1.0) / SHELL_PIXELS, 0.0, 1.0)[:, :, None]
    mixed = np.clip(smooth + share * (curved - smooth), 0.0, 1.0)
    return np.asarray(np.where(hole[:, :, None], mixed, picture), dtype=np.float32)


def harmonic_fill(picture: Plane, hole: Mask) -> Plane:
    """Every pixel of a hole, (H, W) bool, becomes the mean of its four neighbours, nearly; (H, W, C) float32 both ways.

    Solved from coarse to fine, so that time goes by the picture's area and not by the hole's width.
    """
    return _relaxed(np.ascontiguousarray(picture, dtype=np.float32), hole.astype(np.uint8), 0)


def biharmonic_fill(picture: Plane, hole: Mask) -> Plane:
    """Values and slopes of what is around carried on into a hole, (H, W) bool, of a picture, (H, W, C) float32.

    Outside the hole nothing changes, and no channel goes beyond the values that it had. Something must be known.
    """
    rows, columns = np.nonzero(hole)
    unknown = np.full(hole.shape, -1, np.int32)
    unknown[rows, columns] = np.arange(len(rows), dtype=np.int32)
    neighbours = (rows[:, None] + _DOWN, columns[:, None] + _RIGHT)  # (n, 13) each
    numbers = np.asarray(cv2.copyMakeBorder(unknown, *_AROUND, cv2.BORDER_REFLECT), dtype=np.int32)[neighbours]
    factors = np.where(numbers < 0, _FACTORS, np.float32(0.0))
    planes = [np.ascontiguousarray(picture[:, :, channel]) for channel in range(picture.shape[2])]
    around = [np.asarray(cv2.copyMakeBorder(plane, *_AROUND, cv2.BORDER_REFLECT))[neighbours] for plane in planes]
    solved = _solved(numbers, -np.stack([np.einsum("nk,nk->n", factors, each) for each in around], axis=1))
    filled = picture.copy()
    for channel, plane in enumerate(planes):
        filled[rows, columns, channel] = np.clip(solved[:, channel], plane.min(), plane.max())
    return filled


def _solved(numbers: NDArray[np.int32], right_side: NDArray[np.float32]) -> NDArray[np.float32]:
    """The unknowns, of which each equation names 13, (n, 13), -1 what is known; (n, C) what it gives, to (n, C)."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    is_unknown = numbers >= 0
    equations = np.repeat(np.arange(len(numbers), dtype=np.int32), np.count_nonzero(is_unknown, axis=1))
    factors = np.broadcast_to(_FACTORS, is_unknown.shape)[is_unknown]
    matrix = sparse.csc_array((factors, (numbers[is_unknown], equations)), shape=(len(numbers),) * 2)
    factorized = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return np.asarray(factorized.solve(right_side), dtype=np.float32)


def carried_on(picture: Plane, hole: Mask, unseen: Mask) -> Plane:
    """A picture, (H, W, C) float32, with what is seen carried on, harmonically, over what is not, (H, W) bool.

    Under transparency mostly black is kept; a fill at its border would darken. In the hole nothing changes.
    """
    if not unseen.any():
        return picture
    carried = np.where((unseen & ~hole)[:, :, None], harmonic_fill(picture, hole | unseen), picture)
    return np.asarray(carried, dtype=np.float32)


def _relaxed(picture: Plane, hole: NDArray[np.uint8], depth: int) -> Plane:
    """One size of the pyramid, (H, W, C) and (H, W) of 0 and 1, begun with what the halved size says."""
    filled = picture.copy()
    if min(hole.shape) > SMALLEST_SIDE and depth < LARGEST_DEPTH:
        _copy(_coarse(picture, hole, depth), hole, filled)
    else:
        filled[hole != 0] = picture[hole == 0].mean(axis=0) if not hole.all() else 0.5
    for _ in range(SWEEPS):
        mean = cv2.filter2D(filled, -1, _NEIGHBOURS, borderType=cv2.BORDER_REFLECT_101)
        _copy(np.asarray(mean, dtype=np.float32), hole, filled)
    return filled


def _copy(source: Plane, hole: NDArray[np.uint8], target: Plane) -> None:
    """Into the hole of `target`; channels by themselves, since OpenCV drops the axis of a single one."""
    cv2.copyTo(np.ascontiguousarray(source.reshape(target.shape)), hole, target)


def _coarse(picture: Plane, hole: NDArray[np.uint8], depth: int) -> Plane:
    """What the halved picture says, (H, W, C): means of what is known, its own holes filled in turn."""
    height, width = hole.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    below, beside = 2 * rows - height, 2 * columns - width
    known = cv2.copyMakeBorder(1.0 - hole.astype(np.float32), 0, below, 0, beside, cv2.BORDER_CONSTANT, value=(0,))
    padded = cv2.copyMakeBorder(picture, 0, below, 0, beside, cv2.BORDER_REPLICATE).reshape(*known.shape, -1)
    share = cv2.resize(known, (columns, rows), interpolation=cv2.INTER_AREA)
    total = cv2.resize(padded * known[:, :, None], (columns, rows), interpolation=cv2.INTER_AREA)
    half = total.reshape(rows, columns, -1) / np.maximum(share, 1e-6)[:, :, None]
    empty = np.asarray(share < 1e-6, dtype=np.uint8)
    if empty.any():
        half = _relaxed(np.ascontiguousarray(half, dtype=np.float32), empty, depth + 1)
    large = cv2.resize(half, (2 * columns, 2 * rows), interpolation=cv2.INTER_LINEAR).reshape(*known.shape, -1)
    return np.asarray(large[:height, :width], dtype=np.float32)
