"""Hard negatives with faces: dark and light features on soft skin, from those of a group to a portrait's.

A network that had seen few took the eyes of small, soft faces for specks, being surer of it than of most damage: eyes
are small, sharp, dark and light on plain ground, as damage is. Only their places on a face tell them apart.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from app.evaluation.damage.layers import (
    SUPERSAMPLING,
    Plane,
    Rng,
    Stroke,
    Unit,
    clipped,
    rasterize,
    reduced,
    smooth_noise,
)
from training.damage.negative_patterns import ellipse
from training.damage.negatives import over

_EYES = ((-0.33, -0.12), (0.33, -0.12))  # x and y on a face whose height is 2, its middle the origin
_NOSTRILS = ((-0.1, 0.27), (0.1, 0.27))
_MOUTH = (0.0, 0.55)

Place = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class _Face:
    """Where a face lies: its middle, (2,), and half its height in pixels, and how far it is turned in radians."""

    middle: NDArray[np.float64]
    half: float
    turn: float

    def at(self, places: Sequence[Place]) -> NDArray[np.float64]:
        """Places on the face in pixels, (n, 2)."""
        cosine, sine = math.cos(self.turn), math.sin(self.turn)
        turned = np.array(places) @ np.array([[cosine, sine], [-sine, cosine]])
        return np.asarray(self.middle + self.half * turned)

    def ovals(self, shape: tuple[int, int], places: Sequence[Place], sides: Place) -> Plane:
        """Coverage (H, W) float32 in [0, 1] of filled ellipses; their half axes are shares of half the height."""
        canvas = np.zeros((shape[0] * SUPERSAMPLING, shape[1] * SUPERSAMPLING), np.uint8)
        axes = (sides[0] * self.half, sides[1] * self.half)
        for middle in self.at(places):
            ellipse(canvas, middle, axes, math.degrees(self.turn), 360.0, 255, -1)
        return reduced(canvas)

    def stroke(self, places: Sequence[Place], width: float) -> Stroke:
        """A smooth line through three places, thinner at its ends; the width is a share of half the height."""
        first, second, third = self.at(places)
        position = np.linspace(0.0, 1.0, 9)[:, None]
        control = 2 * second - 0.5 * (first + third)
        path = (1 - position) ** 2 * first + 2 * position * (1 - position) * control + position**2 * third
        widths = width * self.half * np.sin(np.pi * (0.15 + 0.7 * position[:, 0]))
        return Stroke(path.astype(np.float32), widths.astype(np.float32))


def draw_faces(picture: Unit, rng: Rng) -> Unit:
    """One to four faces of one size, upright or as the photo is turned."""
    shape = picture.shape[:2]
    half = float(np.exp(rng.uniform(math.log(0.05), math.log(0.4)))) * shape[1]
    turn = float(rng.choice([0.0, 0.5, 1.0, 1.5])) * math.pi + float(rng.normal(0.0, 0.2))
    for _ in range(rng.integers(1, 5 if half < 0.15 * shape[1] else 2)):
        face = _Face(rng.uniform(0.1, 0.9, 2) * np.array(shape[::-1]), half, turn)
        picture = _features(_skin(picture, face, rng), face, rng)
    return picture


def _skin(picture: Unit, face: _Face, rng: Rng) -> Unit:
    """The face itself, softly lit from one side; in a tenth of the pictures what lies there is the skin."""
    if rng.random() < 0.1:
        return picture
    shape = picture.shape[:2]
    color = rng.uniform(0.35, 0.9) * np.array([1.0, rng.uniform(0.72, 0.95), rng.uniform(0.55, 0.9)])
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    lit = ((x - face.middle[0]) * rng.uniform(-1, 1) + (y - face.middle[1]) * rng.uniform(-1, 1)) / face.half
    shade = 0.15 * np.clip(lit, -1.0, 1.0) + 0.03 * smooth_noise(shape, 0.4 * face.half + 2.0, rng)
    coverage = face.ovals(shape, [(0.0, 0.0)], (0.74, 1.0))
    soft = np.asarray(cv2.GaussianBlur(coverage, (0, 0), 0.3 + 0.03 * face.half), dtype=np.float32)
    return over(picture, soft, clipped(color + shade[:, :, None]))


def _features(picture: Unit, face: _Face, rng: Rng) -> Unit:
    """Eyes, brows, nostrils and mouth, in shades of what lies there."""
    shape = picture.shape[:2]
    around = np.clip(np.rint(face.middle), 0, np.array(shape[::-1]) - 1).astype(int)
    skin = picture[around[1], around[0]]
    dark, opacity = clipped(skin * rng.uniform(0.05, 0.5)), np.float32(rng.uniform(0.5, 1.0))
    eye = (float(rng.uniform(0.13, 0.2)), float(rng.uniform(0.05, 0.11)))
    white = clipped(skin + rng.uniform(0.0, 0.35))
    picture = over(picture, face.ovals(shape, _EYES, eye) * opacity, white)
    iris = face.ovals(shape, _EYES, (0.9 * eye[1], 0.9 * eye[1]))
    picture = over(picture, np.maximum(iris, face.ovals(shape, _NOSTRILS, (0.05, 0.03))) * opacity, dark)
    if rng.random() < 0.6:  # the window or the lamp in the eye
        glint = face.ovals(shape, [(x + 0.02, y - 0.02) for x, y in _EYES], (0.025, 0.025))
        picture = over(picture, glint, clipped(white + 0.2))
    lips = face.ovals(shape, [_MOUTH], (float(rng.uniform(0.18, 0.33)), float(rng.uniform(0.04, 0.12))))
    picture = over(picture, lips * opacity, clipped(skin * np.array([0.75, 0.5, 0.5]) * rng.uniform(0.6, 1.1)))
    if rng.random() < 0.4:
        picture = over(picture, face.ovals(shape, [_MOUTH], (0.2, 0.035)), clipped(skin + 0.3))  # teeth
    return over(picture, rasterize(_lines(face, rng), shape) * opacity, dark)


def _lines(face: _Face, rng: Rng) -> list[Stroke]:
    """Brows, lids, the line between the lips and one side of the nose."""
    brow, lid = float(rng.uniform(0.03, 0.1)), float(rng.uniform(0.02, 0.06))
    high = float(rng.uniform(0.15, 0.24))
    lines = [face.stroke([(-0.2, 0.55), (0.0, 0.57), (0.2, 0.55)], 0.03)]
    lines.append(face.stroke([(-0.05, -0.1), (-0.09, 0.1), (-0.12, 0.25)], 0.02))
    for x, y in _EYES:
        lines.append(face.stroke([(x - 0.2, y - high + 0.04), (x, y - high), (x + 0.2, y - high + 0.04)], brow))
        lines.append(face.stroke([(x - 0.17, y), (x, y - 0.09), (x + 0.17, y)], lid))
    return lines
