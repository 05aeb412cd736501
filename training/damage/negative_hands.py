"""Hard negatives with hands: fingers side by side with shadows between them, nails that shine, and rings.

A ring's highlight between two dark edges is what a scratch looks like, and light between two fingers what a crack
looks like; only the finger around them tells them apart. Rings drawn over any ground (`negatives.draw_rings`), even a
fifth of all negatives, did not teach that.
"""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from app.evaluation.damage.layers import Plane, Points, Rng, Stroke, Unit, clipped, rasterize, smooth_noise
from training.damage.negatives import over


@dataclasses.dataclass(frozen=True)
class _Finger:
    """The line through its middle, (n, 2) x and y in pixels from the palm to the tip, and its width in pixels."""

    path: Points
    width: float

    def across(self, position: float, sides: NDArray[np.float64], bow: float) -> Points:
        """A line across it at 0 (palm) to 1 (tip), (n, 2); `sides` -1 to 1, `bow` its sag in halves of the width."""
        index = min(len(self.path) - 2, int(position * (len(self.path) - 1)))
        ahead = self.path[index + 1] - self.path[index]
        ahead = ahead / max(1e-3, float(np.hypot(*ahead)))
        aside = np.array([-ahead[1], ahead[0]])
        half = 0.5 * self.width
        points = self.path[index] + half * sides[:, None] * aside + half * bow * (1.0 - sides**2)[:, None] * ahead
        return np.asarray(points, dtype=np.float32)

    def stroke(self, share: float) -> Stroke:
        """All of it, as wide as a share of its width."""
        return Stroke(self.path, np.full(len(self.path), share * self.width, np.float32))


def draw_hands(picture: Unit, rng: Rng) -> Unit:
    """One hand of two to five fingers, some with rings, in the picture's light."""
    shape = picture.shape[:2]
    skin = clipped(rng.uniform(0.35, 0.9) * np.array([1.0, rng.uniform(0.72, 0.95), rng.uniform(0.5, 0.9)]))
    fingers = _fingers(shape, rng)
    for finger in fingers:
        picture = _skin(picture, finger, skin, rng)
        if rng.random() < 0.5:
            picture = _nail(picture, finger, skin, rng)
    for finger in fingers:
        if rng.random() < 0.5:
            picture = _ring(picture, finger, skin, rng)
    return picture


def _fingers(shape: tuple[int, ...], rng: Rng) -> list[_Finger]:
    width = float(np.exp(rng.uniform(math.log(6.0), math.log(45.0))))
    middle, angle = rng.uniform(0.1, 0.9, 2) * np.array(shape[::-1]), rng.uniform(0.0, 2 * math.pi)
    spread, fingers = rng.normal(0.0, 0.15), []
    aside = np.array([-math.sin(angle), math.cos(angle)])
    for number in range(rng.integers(2, 6)):
        start = middle + aside * number * width * rng.uniform(0.8, 1.15)
        turn = angle + spread * number
        bend = rng.normal(0.0, 0.6) * np.linspace(0.0, 1.0, 16)
        steps = width * rng.uniform(3.0, 5.5) / 16 * np.stack([np.cos(turn + bend), np.sin(turn + bend)], axis=1)
        fingers.append(_Finger((start + np.cumsum(steps, axis=0)).astype(np.float32), width * rng.uniform(0.85, 1.1)))
    return fingers


def _skin(picture: Unit, finger: _Finger, skin: NDArray[np.float32], rng: Rng) -> Unit:
    """A finger, round by its shading: light along a line, dark at its edges, with its shadow beside it."""
    shape, width = picture.shape[:2], finger.width
    body, inner = _soft([finger.stroke(1.0)], shape, 0.6), _soft([finger.stroke(0.5)], shape, 0.2 * width)
    shade = rng.uniform(0.5, 0.9) + (rng.uniform(1.0, 1.15) - 0.6) * inner
    aside = rng.normal(0.0, 0.1 * width, 2).astype(np.float32)
    shadow = _soft([dataclasses.replace(finger, path=finger.path + aside).stroke(1.2)], shape, 0.08 * width)
    picture = over(picture, shadow * np.float32(rng.uniform(0.2, 0.8)), clipped(0.25 * skin))
    folds = 0.03 * smooth_noise(shape, 0.3 * width + 1.0, rng)
    return over(picture, body, clipped(skin * shade[:, :, None] + folds[:, :, None]))


def _nail(picture: Unit, finger: _Finger, skin: NDArray[np.float32], rng: Rng) -> Unit:
    """A lighter oval at the tip, with a glint."""
    shape = picture.shape[:2]
    nail = Stroke(finger.path[-3:], np.full(3, 0.55 * finger.width, np.float32))
    picture = over(picture, _soft([nail], shape, 0.5), clipped(skin * rng.uniform(0.9, 1.3)))
    glint = finger.across(0.93, np.linspace(-0.3, 0.2, 4), 0.1)
    stroke = Stroke(glint, np.full(4, max(0.6, 0.1 * finger.width), np.float32))
    shine = rasterize([stroke], shape) * np.float32(rng.uniform(0.2, 0.9))
    return over(picture, shine, clipped(skin + 0.4))


def _ring(picture: Unit, finger: _Finger, skin: NDArray[np.float32], rng: Rng) -> Unit:
    """A band across a finger: dark edges, metal between them, a short highlight, sometimes a stone."""
    shape = picture.shape[:2]
    position, bow = float(rng.uniform(0.1, 0.6)), float(rng.normal(0.0, 0.5))
    band = finger.across(position, np.linspace(-1.02, 1.02, 13), bow)
    width = max(0.9, float(rng.uniform(0.06, 0.25)) * finger.width)
    dark = clipped(skin * rng.uniform(0.05, 0.5))
    edge = Stroke(band, np.full(13, width + rng.uniform(0.6, 2.5), np.float32))
    picture = over(picture, rasterize([edge], shape) * np.float32(rng.uniform(0.5, 1.0)), dark)
    metal = clipped(skin * rng.uniform(0.3, 1.4))
    picture = over(picture, rasterize([Stroke(band, np.full(13, width, np.float32))], shape), metal)
    start, length = int(rng.integers(0, 10)), int(rng.integers(2, 8))
    shine = Stroke(band[start : start + length + 1], np.full(length + 1, width * rng.uniform(0.5, 1.0), np.float32))
    light = clipped(np.maximum(skin, 0.7) + rng.uniform(0.1, 0.4))
    picture = over(picture, rasterize([shine], shape), light)
    if rng.random() < 0.25:
        stone = Stroke(band[6:8], np.full(2, width * rng.uniform(1.5, 3.0), np.float32))
        picture = over(picture, rasterize([stone], shape), light if rng.random() < 0.5 else dark)
    return picture


def _soft(strokes: list[Stroke], shape: tuple[int, ...], blur: float) -> Plane:
    """Coverage (H, W) float32 in [0, 1] of strokes, blurred."""
    sharp = rasterize(strokes, (shape[0], shape[1]))
    return np.asarray(cv2.GaussianBlur(sharp, (0, 0), max(0.3, blur)), dtype=np.float32)
