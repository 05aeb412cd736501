"""How alike two pictures are, in the conventions of the field: PSNR, SSIM and the mean colour difference.

The conventions are BasicSR's (`basicsr/metrics/psnr_ssim.py`): 8-bit range, a border cut off each side, luma as
MATLAB's `rgb2ycbcr`, SSIM with an 11x11 Gaussian window of sigma 1.5 over whole windows only. scikit-image does the
arithmetic, in bands of rows, so that a large photo costs no gigabytes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import mean_squared_error, structural_similarity

from app.errors import Unprocessable

Rgb = NDArray[np.uint8]  # (H, W, 3) RGB in [0, 255]
Values = NDArray[np.float64]
View = Callable[[Rgb], Rgb | Values]  # a band of rows as what is compared

WINDOW_PIXELS, SIGMA_PIXELS = 11, 1.5  # of SSIM: Wang et al. 2004, the authors' MATLAB code
_LUMA_WEIGHTS = (65.481, 128.553, 24.966)  # BT.601 studio range, for RGB in [0, 1]
_LUMA_OFFSET = 16.0
_PEAK = 255.0
_BAND_ROWS = 512


def luma(rgb: Rgb) -> Values:
    """Y of YCbCr (BT.601, studio range 16 to 235) as MATLAB's `rgb2ycbcr`, not rounded.

    Args:
        rgb: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) float64 in [16, 235].
    """
    y: Values = rgb.astype(np.float64) @ (np.array(_LUMA_WEIGHTS) / _PEAK) + _LUMA_OFFSET
    return y


def rgb_psnr(a: Rgb, b: Rgb, border: int = 0) -> float:
    """PSNR over all three channels together, in dB; infinite for equal pictures.

    Args:
        a: (H, W, 3) uint8 RGB.
        b: likewise, of the same size.
        border: pixels cut off each side first (the field cuts as many as the scale).

    Raises:
        Unprocessable: `sizes_differ`; `too_small_to_compare` when nothing is left within the border.
    """
    return _psnr(*_cut(a, b, border, least=1), lambda rows: rows)


def luma_psnr(a: Rgb, b: Rgb, border: int = 0) -> float:
    """PSNR on luma, in dB; see `rgb_psnr` and `luma`."""
    return _psnr(*_cut(a, b, border, least=1), luma)


def rgb_ssim(a: Rgb, b: Rgb, border: int = 0) -> float:
    """SSIM, mean over the three channels, at most 1.

    Args:
        a: (H, W, 3) uint8 RGB.
        b: likewise, of the same size.
        border: pixels cut off each side first.

    Raises:
        Unprocessable: `sizes_differ`; `too_small_to_compare` when less than one window is left within the border.
    """
    a, b = _cut(a, b, border, least=WINDOW_PIXELS)
    return float(np.mean([_ssim(a, b, functools.partial(_channel, index)) for index in range(3)]))


def luma_ssim(a: Rgb, b: Rgb, border: int = 0) -> float:
    """SSIM on luma, at most 1; see `rgb_ssim` and `luma`."""
    return _ssim(*_cut(a, b, border, least=WINDOW_PIXELS), luma)


def mean_ciede2000(a: Rgb, b: Rgb, border: int = 0) -> float:
    """Mean colour difference CIEDE2000 over all pixels, both taken as sRGB under D65; about 1 is just visible.

    Args, errors: as `rgb_psnr`.
    """
    a, b = _cut(a, b, border, least=1)
    total = 0.0
    for rows in _bands(a.shape[0]):
        difference = deltaE_ciede2000(rgb2lab(a[rows]), rgb2lab(b[rows]))  # (rows, W)
        total += float(difference.sum())
    mean: float = total / (a.shape[0] * a.shape[1])
    return mean


def _cut(a: Rgb, b: Rgb, border: int, least: int) -> tuple[Rgb, Rgb]:
    """Both without their border, after a look at type and size."""
    if a.shape != b.shape:
        raise Unprocessable(
            "sizes_differ",
            f"The pictures have {a.shape[1]}x{a.shape[0]} and {b.shape[1]}x{b.shape[0]} pixels; "
            "only pictures of one size can be compared.",
        )
    if a.ndim != 3 or a.shape[2] != 3 or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise TypeError("(H, W, 3) uint8 RGB expected")
    height, width = a.shape[0] - 2 * border, a.shape[1] - 2 * border
    if min(height, width) < least:
        raise Unprocessable(
            "too_small_to_compare",
            f"A picture of {a.shape[1]}x{a.shape[0]} pixels is too small to compare with a border of {border}; "
            f"at least {least + 2 * border} pixels a side are needed.",
        )
    inside = (slice(border, border + height), slice(border, border + width))
    return a[inside], b[inside]


def _channel(index: int, rgb: Rgb) -> Values:
    """One channel, (H, W) float64 in [0, 255]."""
    return rgb[:, :, index].astype(np.float64)


def _psnr(a: Rgb, b: Rgb, view: View) -> float:
    """Over what `view` makes of each band of rows."""
    height = a.shape[0]
    parts = [mean_squared_error(view(a[rows]), view(b[rows])) * len(a[rows]) for rows in _bands(height)]
    error = float(sum(parts)) / height
    return math.inf if error == 0.0 else 10.0 * math.log10(_PEAK**2 / error)


def _ssim(a: Rgb, b: Rgb, view: View) -> float:
    """Over the one channel, (H, W), that `view` makes of each band of rows.

    Bands overlap by a window less one row, so together they hold each whole window once.
    """
    windows = a.shape[0] - WINDOW_PIXELS + 1
    total = 0.0
    for rows in _bands(windows):
        seen = slice(rows.start, rows.stop + WINDOW_PIXELS - 1)
        share = structural_similarity(
            view(a[seen]),
            view(b[seen]),
            data_range=_PEAK,
            gaussian_weights=True,
            sigma=SIGMA_PIXELS,
            use_sample_covariance=False,
        )
        total += float(share) * (rows.stop - rows.start)
    mean: float = total / windows
    return mean


def _bands(height: int) -> Iterator[slice]:
    for top in range(0, height, _BAND_ROWS):
        yield slice(top, min(height, top + _BAND_ROWS))
