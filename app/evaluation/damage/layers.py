"""What damage is made of: layers of coverage and colour on a print, and the tools that all generators draw with.

A layer is pasted over the print by its coverage. Lines are rasterized three times larger and averaged, so that widths
may be fractions of a pixel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

SUPERSAMPLING = 3

Unit = NDArray[np.float32]  # (H, W, 3) RGB in [0, 1]
Plane = NDArray[np.float32]  # (H, W)
Points = NDArray[np.float32]  # (n, 2) x, y in pixels
Rng = np.random.Generator


@dataclasses.dataclass(frozen=True)
class Print:
    """The print that is to be damaged: its size in pixels, and the colours that damage takes from it.

    `paper` is the base under the emulsion, `dark` what soot, ink and shadow look like, `background` what lies around
    the print on the scanner; each is (3,) float32 RGB in [0, 1].
    """

    height: int
    width: int
    paper: NDArray[np.float32]
    dark: NDArray[np.float32]
    background: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def side(self) -> int:
        """The shorter side."""
        return min(self.height, self.width)


@dataclasses.dataclass(frozen=True)
class Layer:
    """Coverage (H, W) float32 in [0, 1] and colour, (3,) or (H, W, 3) float32 RGB in [0, 1]."""

    coverage: Plane
    color: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Stroke:
    """A polyline, (n, 2) float32 x and y in pixels, and the width in pixels at each of its points, (n,) float32."""

    points: Points
    widths: NDArray[np.float32]


def clipped(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Values of any shape, cut to [0, 1]."""
    return np.asarray(np.clip(values, 0.0, 1.0), dtype=np.float32)


def paste(picture: Unit, layers: Sequence[Layer]) -> Unit:
    """The picture, (H, W, 3) float32 in [0, 1], with the layers over it, the first lowest."""
    for layer in layers:
        coverage = layer.coverage[:, :, None]
        picture = picture + coverage * (layer.color - picture)
    return clipped(picture)


def rasterize(strokes: Sequence[Stroke], shape: tuple[int, int]) -> Plane:
    """Coverage (H, W) float32 in [0, 1] of all strokes together."""
    canvas = np.zeros((shape[0] * SUPERSAMPLING, shape[1] * SUPERSAMPLING), np.uint8)
    for stroke in strokes:
        points = np.rint(stroke.points * SUPERSAMPLING).astype(np.int32)
        widths = np.maximum(1, np.rint(stroke.widths * SUPERSAMPLING)).astype(np.int32)
        corners, thickness = points.tolist(), widths.tolist()
        for start, end, width in zip(corners, corners[1:], thickness, strict=False):
            cv2.line(canvas, start, end, 255, width)
    return reduced(canvas)


def reduced(canvas: NDArray[np.uint8]) -> Plane:
    """A supersampled canvas, (3H, 3W) uint8, as coverage (H, W) float32 in [0, 1]."""
    height, width = canvas.shape[0] // SUPERSAMPLING, canvas.shape[1] // SUPERSAMPLING
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32) / np.float32(255.0)


def smooth_noise(shape: tuple[int, int], cell: float, rng: Rng) -> Plane:
    """Noise (H, W) float32 of mean about 0 and deviation about 1, whose features are `cell` pixels large."""
    rows, columns = (max(2, round(side / cell) + 1) for side in shape)
    coarse = rng.standard_normal((rows, columns), np.float32)
    large = np.asarray(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
    return large / np.float32(max(1e-3, float(large.std())))


def ragged(coverage: Plane, strength: float, rng: Rng) -> Plane:
    """The same area with frayed edges; coverage and result are (H, W) float32 in [0, 1]."""
    soft = np.asarray(cv2.GaussianBlur(coverage, (0, 0), 1.0), dtype=np.float32)
    noise = smooth_noise((coverage.shape[0], coverage.shape[1]), 1.6, rng)
    frayed = np.clip(0.5 + 3.0 * (soft - 0.5 + strength * noise * (soft > 0.1)), 0.0, 1.0)
    return frayed.astype(np.float32)


def shifted(coverage: Plane, dx: float, dy: float) -> Plane:
    """The coverage, (H, W) float32, moved by some pixels; zero comes in."""
    matrix = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]], np.float32)
    moved = cv2.warpAffine(coverage, matrix, (coverage.shape[1], coverage.shape[0]))
    return np.asarray(moved, dtype=np.float32)


def textured(color: NDArray[np.float32], shape: tuple[int, int], strength: float, rng: Rng) -> Unit:
    """A colour, (3,), with the unevenness of bare paper: (H, W, 3) float32 in [0, 1]."""
    noise = 0.6 * smooth_noise(shape, 9.0, rng) + 0.8 * smooth_noise(shape, 1.3, rng)
    return clipped(color + strength * noise[:, :, None])


def uneven(coverage: Plane, rng: Rng, deepest: float = 0.7) -> Plane:
    """The coverage, (H, W) float32, worn thin in places."""
    noise = smooth_noise((coverage.shape[0], coverage.shape[1]), float(rng.uniform(4.0, 20.0)), rng)
    depth = rng.uniform(0.0, deepest)
    return np.asarray(coverage * np.clip(1.0 - depth * (noise + 0.3), 0.0, 1.0), dtype=np.float32)


def wander(start: Points, angle: float, length: float, step: float, turn: float, rng: Rng) -> Points:
    """A polyline from `start` whose direction changes by about `turn` radians a step: (n, 2) float32."""
    count = max(2, round(length / step))
    angles = angle + np.cumsum(rng.normal(0.0, turn, count))
    steps = step * rng.uniform(0.6, 1.4, count)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([start[None], start + np.cumsum(steps, axis=0)]).astype(np.float32)


def curve(start: Points, angle: float, length: float, bend: float, rng: Rng, step: float = 3.0) -> Points:
    """A smooth polyline that bends by about `bend` radians over its length, in changing directions: (n, 2) float32."""
    count = max(3, round(length / step))
    knots = rng.normal(0.0, bend, 4)
    curvature = np.interp(np.linspace(0.0, 3.0, count), np.arange(4), knots) / count
    angles = angle + np.cumsum(curvature)
    steps = (length / count) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([start[None], start + np.cumsum(steps, axis=0)]).astype(np.float32)


def place(canvas: Print, rng: Rng, margin: float = 0.0) -> Points:
    """A random point of the print, (2,) float32 x and y; `margin` is the share of the sides to keep away from."""
    low, high = margin, 1.0 - margin
    return np.array([rng.uniform(low, high) * canvas.width, rng.uniform(low, high) * canvas.height], np.float32)


def tapered(count: int, width: float, rng: Rng, roughness: float = 0.3) -> NDArray[np.float32]:
    """Widths in pixels along a stroke, (count,) float32: irregular, thin at both ends."""
    position = np.linspace(0.0, 1.0, count)
    knots = max(2, count // 3)
    irregular = np.exp(np.interp(position * (knots - 1), np.arange(knots), rng.normal(0.0, roughness, knots)))
    ends = np.minimum(1.0, np.minimum(position, 1.0 - position) * rng.uniform(3.0, 12.0) + 0.15)
    return np.asarray(width * irregular * ends, dtype=np.float32)
