"""The primaries of RGB spaces as chromaticities, the matrices between them, and the curve of sRGB. Arithmetic only."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Light = NDArray[np.float32]
Point = tuple[float, float]

D65: Point = (0.3127, 0.3290)
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)  # of linear red, green and blue with sRGB's primaries
_PCS_WHITE = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SAME_CHROMATICITY = 0.005  # what rounding and old tables differ by; no eye sees it


@dataclasses.dataclass(frozen=True)
class Primaries:
    """Red, green, blue and white as CIE 1931 x and y."""

    red: Point
    green: Point
    blue: Point
    white: Point = D65

    def is_near(self, other: Primaries) -> bool:
        """Whether both mean the same space."""
        mine, theirs = (np.array([space.red, space.green, space.blue, space.white]) for space in (self, other))
        return bool(np.abs(mine - theirs).max() <= _SAME_CHROMATICITY)

    @functools.lru_cache(8)  # noqa: B019 - frozen and small
    def to_pcs(self) -> Matrix:
        """The (3, 3) float64 matrix from linear RGB to XYZ, adapted to the white of ICC profiles (D50, by Bradford).

        Raises:
            ValueError: the points span no space.
        """
        columns = np.array([_xyz(point) for point in (self.red, self.green, self.blue)]).T
        white = _xyz(self.white)
        try:
            matrix = columns * np.linalg.solve(columns, white)
        except np.linalg.LinAlgError:
            raise ValueError("the primaries lie on one line") from None
        if not np.isfinite(matrix).all() or (matrix.sum(axis=0) <= 0).any() or np.linalg.cond(matrix) > 1e4:
            raise ValueError("the primaries span no colour space")
        adaptation = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _PCS_WHITE) / (_BRADFORD @ white)) @ _BRADFORD
        adapted: Matrix = adaptation @ matrix
        return adapted

    def matrix_to(self, other: Primaries) -> Matrix:
        """The (3, 3) float64 matrix from linear RGB here to there; ValueError as `to_pcs`."""
        return np.linalg.solve(other.to_pcs(), self.to_pcs()).astype(np.float64)


def _xyz(point: Point) -> NDArray[np.float64]:
    x, y = point
    if not y > 0:
        raise ValueError("a chromaticity without luminance")
    return np.array([x / y, 1.0, (1 - x - y) / y])


def srgb_light(values: Light) -> Light:
    """sRGB numbers 0..1 to linear light 0..1, float32 of any shape (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def srgb_values(light: Light) -> Light:
    """Linear light 0..1 to sRGB numbers 0..1, float32 of any shape."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)


SRGB_PRIMARIES = Primaries((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3_PRIMARIES = Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_PRIMARIES = Primaries((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
WIDE_PRIMARIES = Primaries((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
# Code points of ITU-T H.273, table 2.
BY_CODE = {
    1: SRGB_PRIMARIES,
    4: Primaries((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), (0.310, 0.316)),
    5: Primaries((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: Primaries((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: Primaries((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    8: Primaries((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), (0.310, 0.316)),
    9: WIDE_PRIMARIES,
    11: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: P3_PRIMARIES,
    22: Primaries((0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
