"""Makes the small, worse partner of a photo: MATLAB's bicubic, noise and JPEG, each repeatable.

The bicubic is MATLAB's `imresize` (antialiasing on, mirrored borders, size rounded up), which the field's test sets are
made with; OpenCV's and Pillow's differ.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Rgb = NDArray[np.uint8]  # (H, W, 3) RGB in [0, 255]
_SUPPORT = 4.0  # of the cubic kernel, in pixels of the coarser grid
_BAND_ROWS = 64


def bicubic_down(rgb: Rgb, factor: float) -> Rgb:
    """`factor` times smaller each side, rounded up.

    Args:
        rgb: (H, W, 3) uint8 RGB.
        factor: 1 or more.

    Returns:
        (ceil(H / factor), ceil(W / factor), 3) uint8 RGB.
    """
    return _scaled(rgb, 1.0 / factor)


def bicubic_up(rgb: Rgb, factor: float) -> Rgb:
    """`factor` times larger each side, rounded up: (H, W, 3) uint8 RGB to (ceil(H * factor), ceil(W * factor), 3)."""
    return _scaled(rgb, factor)


def bicubic_to(rgb: Rgb, size: tuple[int, int]) -> Rgb:
    """To (height, width) exactly, each side by its own factor: (H, W, 3) uint8 RGB to (height, width, 3)."""
    if rgb.shape[:2] == size:
        return rgb
    return _resized(rgb, size, (size[0] / rgb.shape[0], size[1] / rgb.shape[1]))


def imresize(
    pixels: NDArray[np.uint8] | NDArray[np.float64], size: tuple[int, int], scale: tuple[float, float]
) -> NDArray[np.float64]:
    """MATLAB's `imresize` with its default kernel, before rounding.

    Source: MathWorks' description and `basicsr/utils/matlab_functions.py`, which the tests compare with.

    Args:
        pixels: (H, W, C) in any range.
        size: (height, width) of the result.
        scale: (vertical, horizontal); below 1 the kernel widens, so that nothing aliases.

    Returns:
        (height, width, C) float64 in the range of `pixels`, with the kernel's overshoot.
    """
    result = np.empty((*size, pixels.shape[2]))
    for band, values in _bands(pixels, size, scale):
        result[band] = values
    return result


def noise(rgb: Rgb, sigma: float, seed: int) -> Rgb:
    """With Gaussian noise in each channel.

    Args:
        rgb: (H, W, 3) uint8 RGB.
        sigma: standard deviation in steps of 255.
        seed: equal seeds give equal noise.
    """
    drawn = np.random.default_rng(seed).normal(0.0, sigma, rgb.shape)
    return rounded(rgb + drawn)


def jpeg(rgb: Rgb, quality: int) -> Rgb:
    """Through JPEG (libjpeg's quality 1 to 100, colour halved 4:2:0) and back: (H, W, 3) uint8 RGB both ways."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file, formats=["JPEG"]) as image:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)


def rounded(values: NDArray[np.float64]) -> Rgb:
    """To the nearest of 0 to 255, as MATLAB's `uint8` does (halves away from zero)."""
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def _scaled(rgb: Rgb, scale: float) -> Rgb:
    # The tiny step down keeps 3 * (1 / 3) and its like from being rounded up to one pixel too many.
    size = (math.ceil(rgb.shape[0] * scale - 1e-9), math.ceil(rgb.shape[1] * scale - 1e-9))
    return _resized(rgb, size, (scale, scale))


def _resized(rgb: Rgb, size: tuple[int, int], scale: tuple[float, float]) -> Rgb:
    """`imresize`, rounded band by band: the whole of it in float64 would take eight times the memory, several times."""
    result = np.empty((*size, rgb.shape[2]), np.uint8)
    for band, values in _bands(rgb, size, scale):
        result[band] = rounded(values)
    return result


def _bands(
    pixels: NDArray[np.uint8] | NDArray[np.float64], size: tuple[int, int], scale: tuple[float, float]
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """The rows of `imresize`'s result from top to bottom: which, and their values (rows, width, C) in float64."""
    rows, row_weights = _taps(pixels.shape[0], size[0], scale[0])
    columns, column_weights = _taps(pixels.shape[1], size[1], scale[1])
    for top in range(0, size[0], _BAND_ROWS):
        band = slice(top, top + _BAND_ROWS)
        narrow = np.zeros((len(rows[band]), *pixels.shape[1:]))  # (rows of the band, W, C)
        for tap in range(rows.shape[1]):
            narrow += row_weights[band, tap, None, None] * pixels[rows[band, tap]]
        wide = np.zeros((len(rows[band]), size[1], pixels.shape[2]))
        for tap in range(columns.shape[1]):
            wide += column_weights[None, :, tap, None] * narrow[:, columns[:, tap]]
        yield band, wide


def _taps(length_in: int, length_out: int, scale: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Which input pixels make each output pixel, and their weights: two arrays (length_out, taps)."""
    shrink = min(scale, 1.0)
    centre = (np.arange(1, length_out + 1) / scale + 0.5 * (1.0 - 1.0 / scale))[:, None]  # counted from 1
    width = _SUPPORT / shrink
    places = np.floor(centre - width / 2) + np.arange(math.ceil(width) + 2)
    weights = shrink * _cubic(shrink * (centre - places))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = (places.astype(np.intp) - 1) % (2 * length_in)
    mirrored = np.where(mirrored < length_in, mirrored, 2 * length_in - 1 - mirrored)
    used = np.any(weights != 0.0, axis=0)
    return mirrored[:, used], weights[:, used]


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -0.5 (IEEE Trans. ASSP 29, 1981)."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x <= 1.0, near, np.where(x <= 2.0, far, 0.0))
