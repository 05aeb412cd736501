"""The photo's own grain for a smooth fill: as strong, as coarse and as coloured as in the flat surroundings.

Measured on what a low-pass leaves over, in the flattest part of the ring around the holes, so that texture and edges
are not taken for grain. Made from noise that hangs on a pixel's place alone, filtered to the measured autocorrelation:
equal input gives equal grain, whatever the windows.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from numpy.typing import NDArray

from app.restoration.repair.diffusion_inpainting import Mask, Plane

LOW_PASS_PIXELS = 3.0  # standard deviation; coarser things are picture, not grain
RING_PIXELS = 32  # so far from a hole the grain is measured
FLAT_SHARE = 0.3  # of the ring is taken for flat
GUARD_PIXELS = 5  # so near to a hole it is not: the low-pass has seen the fill
FEWEST_PIXELS = 200  # that say anything about grain
WEAKEST = 0.4 / 255.0  # below it there is no grain, only rounding
LIMIT = 3.0  # times the robust level; what is beyond is picture
REACH_PIXELS = 5  # of the autocorrelation
LEVEL_PIXELS = 24.0  # standard deviation of the mean that follows the level from place to place
FADE_PIXELS = 2.0  # from the hole's edge, whose own grain diffusion has drawn in, to full strength
_BLOCK_PIXELS = 128
_SEED = 20


@dataclasses.dataclass(frozen=True)
class Grain:
    """What was measured: `kernel` (k, k) of unit energy, `mixing` (C, C) of colours, `level` (H, W) about 1."""

    kernel: NDArray[np.float32]
    mixing: NDArray[np.float32]
    level: NDArray[np.float32]


def grain_for(filled: Plane, hole: Mask, place: tuple[int, int]) -> Plane:
    """What is to be added to a smooth fill.

    Args:
        filled: (H, W, C) float32 in [0, 1], the holes filled.
        hole: (H, W), what was filled.
        place: (row, column) of the first pixel in the photo.

    Returns:
        (H, W, C) float32, zero outside the hole, and everywhere where the surroundings have no grain.
    """
    grain = measure_grain(filled, hole)
    if grain is None:
        return np.zeros_like(filled)
    noise = place_noise(place, hole.shape, filled.shape[2])
    even = _like(cv2.filter2D(noise, -1, grain.kernel, borderType=cv2.BORDER_REFLECT_101), filled)
    depth = np.asarray(cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
    strength = grain.level * np.clip((depth - 0.5) / FADE_PIXELS, 0.0, 1.0)
    return np.asarray(even @ grain.mixing * strength[:, :, None], dtype=np.float32)


def measure_grain(filled: Plane, hole: Mask) -> Grain | None:
    """The grain around the holes; None where there is none, or too little to see it.

    Args:
        filled: (H, W, C) float32 in [0, 1].
        hole: (H, W), what was filled.
    """
    smooth = _like(cv2.GaussianBlur(filled, (0, 0), LOW_PASS_PIXELS), filled)
    flat = _flat_ring(smooth, hole)
    if np.count_nonzero(flat) < FEWEST_PIXELS:
        return None
    rest = filled - smooth
    robust = 1.4826 * np.median(np.abs(rest[flat]), axis=0)  # (C,)
    if float(robust.max()) < WEAKEST:
        return None
    rest = np.clip(rest, -LIMIT * robust, LIMIT * robust).astype(np.float32)
    grey = rest.mean(axis=2)
    covariance = np.cov(rest[flat].T).reshape(len(robust), len(robust))
    values, vectors = np.linalg.eigh(covariance)
    mixing = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T  # symmetric root
    return Grain(_kernel(_autocorrelation(grey, flat)), mixing.astype(np.float32), _level(grey, flat))


def place_noise(place: tuple[int, int], shape: tuple[int, ...], channels: int) -> Plane:
    """(H, W, channels) float32 white noise of unit variance, which hangs on the pixels' places in the photo alone."""
    (top, left), (height, width) = place, shape[:2]
    noise = np.empty((height, width, channels), np.float32)
    for row in range(top // _BLOCK_PIXELS, (top + height - 1) // _BLOCK_PIXELS + 1):
        for column in range(left // _BLOCK_PIXELS, (left + width - 1) // _BLOCK_PIXELS + 1):
            y, x = row * _BLOCK_PIXELS - top, column * _BLOCK_PIXELS - left
            rng = np.random.default_rng([_SEED, row, column])
            block = rng.standard_normal((_BLOCK_PIXELS, _BLOCK_PIXELS, 3), np.float32)[:, :, :channels]
            target = noise[max(0, y) : y + _BLOCK_PIXELS, max(0, x) : x + _BLOCK_PIXELS]
            target[:] = block[max(0, -y) :, max(0, -x) :][: target.shape[0], : target.shape[1]]
    return noise


def _flat_ring(smooth: Plane, hole: Mask) -> Mask:
    """The flattest part of what lies around the holes, (H, W)."""
    distance = np.asarray(cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
    ring = (distance > GUARD_PIXELS) & (distance <= RING_PIXELS)
    if not ring.any():
        return ring
    grey = smooth.mean(axis=2)
    slope = np.abs(cv2.Sobel(grey, -1, 1, 0)) + np.abs(cv2.Sobel(grey, -1, 0, 1))
    return np.asarray(ring & (slope <= np.quantile(slope[ring], FLAT_SHARE)), dtype=np.bool_)


def _autocorrelation(rest: NDArray[np.float32], flat: Mask) -> NDArray[np.float64]:
    """(k, k) of the masked plane (H, W), 1 at the centre."""
    counted, masked = flat.astype(np.float32), np.where(flat, rest, np.float32(0.0))
    side = 2 * REACH_PIXELS + 1
    result = np.zeros((side, side))
    height, width = rest.shape
    for y in range(min(REACH_PIXELS + 1, height)):
        for x in range(-min(REACH_PIXELS, width - 1), min(REACH_PIXELS + 1, width)):
            here = (slice(0, height - y), slice(max(0, -x), width - max(0, x)))
            there = (slice(y, height), slice(max(0, x), width - max(0, -x)))
            pairs = float(np.vdot(counted[here], counted[there]))
            mean = float(np.vdot(masked[here], masked[there])) / max(1.0, pairs)
            result[REACH_PIXELS + y, REACH_PIXELS + x] = result[REACH_PIXELS - y, REACH_PIXELS - x] = mean
    return result / max(float(result[REACH_PIXELS, REACH_PIXELS]), 1e-12)


def _kernel(autocorrelation: NDArray[np.float64]) -> NDArray[np.float32]:
    """(k, k) of unit energy that gives white noise this autocorrelation, nearly: the root of its spectrum."""
    taper = np.sin(np.pi * np.arange(1, len(autocorrelation) + 1) / (len(autocorrelation) + 1))
    spectrum = np.fft.fft2(np.fft.ifftshift(autocorrelation * np.outer(taper, taper))).real
    kernel = np.fft.fftshift(np.fft.ifft2(np.sqrt(np.maximum(spectrum, 0.0))).real)
    return np.asarray(kernel / np.sqrt((kernel**2).sum()), dtype=np.float32)


def _level(rest: NDArray[np.float32], flat: Mask) -> NDArray[np.float32]:
    """How strong the grain is from place to place, (H, W), beside its mean: dark and light parts differ."""
    mean = float(np.square(rest[flat]).mean())
    power = _blurred(np.where(flat, np.square(rest), np.float32(0.0)))
    share = _blurred(flat.astype(np.float32))
    near = np.sqrt(np.clip((power + 1e-3 * mean) / ((share + 1e-3) * mean), 0.1, 4.0))  # far from all flat, the mean
    height, width = rest.shape
    return np.asarray(cv2.resize(near, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _blurred(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean around each place, (H, W) to a quarter of the sides: it changes slowly, and there it costs little."""
    height, width = (-(-side // 4) for side in plane.shape)
    small = cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), LEVEL_PIXELS / 4), dtype=np.float32)


def _like(plane: cv2.typing.MatLike, example: Plane) -> Plane:
    """OpenCV drops the axis of a single channel."""
    return np.asarray(plane, dtype=np.float32).reshape(example.shape)
