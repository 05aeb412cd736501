"""Hard negatives in flat colours, instead of a photo: cartoons, posters, maps and cut paper.

Their outlines are as thin, dark and even as cracks, and their dots as sharp as dust; a network that had seen only
drawings in one ink marked a fifth of a cartoon.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from app.evaluation.damage.layers import SUPERSAMPLING, Plane, Rng, Stroke, Unit, clipped, rasterize, smooth_noise
from training.damage.negative_patterns import ellipse
from training.damage.negatives import over

Ink = NDArray[np.float32]  # (3,)
Shape = tuple[int, int]


def draw_flat_drawing(picture: Unit, rng: Rng) -> Unit:
    """A photo as a poster, or invented shapes; with outlines or without: (H, W, 3) float32 in [0, 1] to the same."""
    ink = clipped(rng.uniform(0.0, 0.25) + rng.normal(0.0, 0.05, 3))
    drawing = _poster(picture, ink, rng) if rng.random() < 0.5 else _shapes(picture, ink, rng)
    if rng.random() < 0.3:  # softly shaded, as drawings of today are
        drawing = drawing + 0.08 * smooth_noise(_size(picture), 0.4 * picture.shape[1], rng)[:, :, None]
    return clipped(drawing)


def _size(picture: Unit) -> Shape:
    return picture.shape[0], picture.shape[1]


def _palette(count: int, rng: Rng) -> NDArray[np.float32]:
    """(count, 3) colours, of one family or all different."""
    if rng.random() < 0.4:
        light = np.linspace(rng.uniform(0.0, 0.3), rng.uniform(0.7, 1.0), count)[:, None]
        return clipped(light * rng.uniform(0.6, 1.1, 3) + rng.normal(0.0, 0.05, (count, 3)))
    return clipped(rng.uniform(0.0, 1.0, (count, 3)) * rng.uniform(0.4, 1.0) + rng.uniform(0.0, 0.5))


def _poster(picture: Unit, ink: Ink, rng: Rng) -> Unit:
    """The photo in three to eight flat colours, often with outlines."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    soft = np.asarray(cv2.GaussianBlur(grey, (0, 0), float(rng.uniform(1.0, 4.0))), dtype=np.float32)
    count = int(rng.integers(3, 9))
    borders = np.quantile(soft[::4, ::4], np.sort(rng.uniform(0.0, 1.0, count - 1)))
    labels = np.digitize(soft, borders)
    flat = np.asarray(_palette(count, rng)[labels], dtype=np.float32)
    if rng.random() < 0.7:
        flat = over(flat, _outlines(labels.astype(np.float32), float(rng.uniform(0.5, 2.0))), ink)
    return flat


def _outlines(labels: Plane, thickness: float) -> Plane:
    """Lines where two areas meet: coverage (H, W) float32 in [0, 1], lines about twice `thickness` pixels wide."""
    seams = (cv2.dilate(labels, np.ones((2, 2), np.uint8)) != labels).astype(np.float32)
    soft = np.asarray(cv2.GaussianBlur(seams, (0, 0), thickness), dtype=np.float32)
    return clipped(6.0 * thickness * soft - 0.5)


def _shapes(picture: Unit, ink: Ink, rng: Rng) -> Unit:
    """Figures out of ovals, rounded polygons, dots and pen strokes on even ground."""
    colors = _palette(int(rng.integers(3, 9)), rng)
    drawing = np.broadcast_to(colors[0], picture.shape).astype(np.float32)
    outline = float(rng.uniform(0.8, 4.0)) if rng.random() < 0.75 else 0.0
    for _ in range(rng.integers(3, 16)):
        corners = _corners(_size(picture), rng)
        drawing = over(drawing, _filled(corners, _size(picture)), colors[rng.integers(len(colors))])
        if outline:
            closed = np.concatenate([corners, corners[:1]])
            edge = Stroke(closed, np.full(len(closed), outline, np.float32))
            drawing = over(drawing, rasterize([edge], _size(picture)), ink)
        if rng.random() < 0.5:
            drawing = _details(drawing, corners.mean(axis=0), float(np.ptp(corners[:, 0])), ink, rng)
    return drawing


def _corners(shape: Shape, rng: Rng) -> NDArray[np.float32]:
    """A closed outline, (n, 2) x and y: a wavy oval or a polygon, small or as large as half the picture."""
    size = float(np.exp(rng.uniform(math.log(0.03), math.log(0.5)))) * shape[1]
    count = int(rng.choice([3, 4, 5, 40, 40, 40, 40]))
    angles = np.linspace(0.0, 2 * math.pi, count, endpoint=False) + rng.uniform(0.0, 2 * math.pi)
    waves = 1.0 + rng.uniform(0.0, 0.25) * np.cos(rng.integers(2, 6) * angles + rng.uniform(0.0, 6.0))
    radii = size * waves * (rng.uniform(0.6, 1.2, count) if count < 40 else 1.0)
    around = np.stack([radii * np.cos(angles), radii * np.sin(angles) * rng.uniform(0.3, 1.0)], axis=1)
    turn = rng.uniform(0.0, math.pi)
    turned = around @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    return np.asarray(turned + rng.uniform(0.0, 1.0, 2) * np.array(shape[::-1]), dtype=np.float32)


def _filled(corners: NDArray[np.float32], shape: Shape) -> Plane:
    canvas = np.zeros((shape[0] * SUPERSAMPLING, shape[1] * SUPERSAMPLING), np.uint8)
    cv2.fillPoly(canvas, [np.rint(corners * SUPERSAMPLING).astype(np.int32)], 255)
    small = cv2.resize(canvas, shape[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32) / np.float32(255.0)


def _details(drawing: Unit, middle: NDArray[np.float32], size: float, ink: Ink, rng: Rng) -> Unit:
    """Two eyes, a highlight or some short pen strokes on a shape: what is small and sharp in a drawing."""
    shape = _size(drawing)
    canvas = np.zeros((shape[0] * SUPERSAMPLING, shape[1] * SUPERSAMPLING), np.uint8)
    radius = max(0.8, size * rng.uniform(0.04, 0.14))
    way = rng.random()
    if way < 0.6:
        apart = np.array([size * rng.uniform(0.1, 0.3), 0.0])
        sides = (radius, radius * rng.uniform(0.6, 2.0))
        for place in (middle - apart, middle + apart)[: 2 if way < 0.45 else 1]:
            ellipse(canvas, place.astype(np.float64), sides, 0.0, 360.0, 255, -1)
        coverage = np.asarray(cv2.resize(canvas, shape[::-1], interpolation=cv2.INTER_AREA), dtype=np.float32)
        return over(drawing, coverage / np.float32(255.0), ink if rng.random() < 0.6 else clipped(1.0 - 0.2 * ink))
    strokes = []
    for _ in range(rng.integers(1, 8)):
        start = middle + rng.normal(0.0, 0.2 * size, 2)
        end = start + rng.normal(0.0, 0.12 * size + 1.0, 2)
        points = np.stack([start, end]).astype(np.float32)
        strokes.append(Stroke(points, np.full(2, rng.uniform(0.6, 2.5), np.float32)))
    return over(drawing, rasterize(strokes, shape), ink)
