"""Hard negatives that repeat: lace, closed cells, spots, rings and rows of glints, inside a soft outline.

They are what an animal's coat, a shell, masonry, corn, sequins or embroidery have; see `negatives`.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from app.evaluation.damage.layers import SUPERSAMPLING, Plane, Rng, Unit, reduced, smooth_noise
from training.damage.negatives import DrawScene, over, scene_color


def draw_lace(picture: Unit, rng: Rng) -> Unit:
    """A patch of lace, net or embroidery: a small pattern over and over, inside a soft outline."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    turn, step = rng.uniform(0.0, math.pi), rng.uniform(4.0, 14.0)
    warp = rng.uniform(0.0, 3.0) * smooth_noise((height, width), 60.0, rng)
    u = (x * math.cos(turn) + y * math.sin(turn) + warp) * (2 * math.pi / step)
    v = (-x * math.sin(turn) + y * math.cos(turn) + warp) * (2 * math.pi / (step * rng.uniform(0.7, 1.5)))
    pattern = np.cos(u) + np.cos(v) + rng.uniform(0.0, 0.8) * np.cos(2 * u) * np.cos(2 * v)
    threads = np.clip((pattern - rng.uniform(-0.8, 0.9)) * 2.0, 0.0, 1.0)
    patch = np.clip((smooth_noise((height, width), 0.4 * width, rng) - rng.uniform(-0.3, 0.9)) * 6.0, 0.0, 1.0)
    return over(picture, (threads * patch).astype(np.float32), scene_color(picture, rng, light=rng.random() < 0.75))


def draw_mosaic(picture: Unit, rng: Rng) -> Unit:
    """A giraffe's coat, a shell, leaf veins, dry mud, tiles or masonry: closed cells, inside a soft outline."""
    height, width = picture.shape[:2]
    seeds = np.ones((height, width), np.uint8)
    count = int(np.exp(rng.uniform(math.log(20), math.log(300))))
    seeds[rng.integers(0, height, count), rng.integers(0, width, count)] = 0
    _, cells = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    labels = np.asarray(cells, dtype=np.float32)
    seams = (cv2.dilate(labels, np.ones((3, 3), np.uint8)) != labels).astype(np.float32)
    thickness = float(rng.uniform(0.6, 2.6))
    soft = np.asarray(cv2.GaussianBlur(seams, (0, 0), thickness), dtype=np.float32) * np.float32(2.0 * thickness)
    lines = np.clip((soft - rng.uniform(0.2, 0.5)) * 4.0, 0.0, 1.0)
    patch = np.clip((smooth_noise((height, width), 0.5 * width, rng) - rng.uniform(-0.8, 0.7)) * 5.0, 0.0, 1.0)
    within = (lines * patch).astype(np.float32) * np.float32(rng.uniform(0.4, 1.0))
    return over(picture, within, scene_color(picture, rng, light=rng.random() < 0.65))


def _patch(shape: tuple[int, int], rng: Rng) -> Plane:
    """A soft outline around a good part of the picture: coverage (H, W) float32 in [0, 1]."""
    noise = smooth_noise(shape, 0.5 * shape[1], rng)
    return np.asarray(np.clip((noise - rng.uniform(-1.2, 0.6)) * 5.0, 0.0, 1.0), dtype=np.float32)


def draw_spots(picture: Unit, rng: Rng) -> Unit:
    """The spots of a coat or a fabric: discs, rings, or rings around a dot, of one kind and about one size."""
    height, width = picture.shape[:2]
    canvas = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
    has_dot = rng.random() < 0.25
    is_ring = has_dot or rng.random() < 0.6
    smallest = 2.2 if is_ring else 5.0  # a smaller disc is dust
    radius, irregular = float(np.exp(rng.uniform(math.log(smallest), math.log(13.0)))), rng.uniform(0.0, 0.35)
    count = int(rng.uniform(0.03, 0.2) * height * width / (math.pi * radius**2)) + 3
    rim = rng.uniform(0.15, 0.6)
    for _ in range(min(count, 250)):
        middle = rng.uniform(0.0, 1.0, 2) * np.array([width, height])
        size = radius * float(np.exp(rng.normal(0.0, irregular)))
        sides = (size, size * rng.uniform(0.6, 1.0))
        thickness = max(1, round(rim * size * SUPERSAMPLING)) if is_ring else -1
        arc = 360.0 if not is_ring or rng.random() < 0.7 else float(rng.uniform(180.0, 330.0))  # some rings are open
        ellipse(canvas, middle, sides, float(rng.uniform(0.0, 360.0)), arc, 255, thickness)
        if has_dot:
            ellipse(canvas, middle, (0.3 * size, 0.3 * size), 0.0, 360.0, 255, -1)
    coverage = reduced(canvas) * _patch((height, width), rng) * np.float32(rng.uniform(0.4, 1.0))
    return over(picture, coverage, scene_color(picture, rng, light=rng.random() < 0.4))


def ellipse(
    canvas: NDArray[np.uint8],
    middle: NDArray[np.float64],
    sides: tuple[float, float],
    turn: float,
    arc: float,
    value: int,
    thickness: int,
) -> None:
    """An arc of an ellipse, or all of it, on a canvas (H, W) that is `SUPERSAMPLING` times larger, in place.

    `middle` (2,) and the half axes are in pixels of the picture, `turn` and `arc` in degrees; `thickness` is that of
    the line in pixels of the canvas, -1: filled.
    """
    center = (round(float(middle[0]) * SUPERSAMPLING), round(float(middle[1]) * SUPERSAMPLING))
    axes = (max(1, round(sides[0] * SUPERSAMPLING)), max(1, round(sides[1] * SUPERSAMPLING)))
    cv2.ellipse(canvas, center, axes, turn, 0.0, arc, value, thickness)


def draw_glints(picture: Unit, rng: Rng) -> Unit:
    """Rows of small lights or dark gaps, as on corn, sequins, chain mail or a far facade's windows."""
    height, width = picture.shape[:2]
    turn, step = rng.uniform(0.0, math.pi), rng.uniform(5.0, 22.0)
    along = step * rng.uniform(0.6, 1.6)
    reach = math.hypot(height, width)
    rows, columns = np.mgrid[-reach:reach:step, -reach:reach:along].reshape(2, -1)
    jitter = rng.uniform(0.0, 0.08) * step  # strewn irregularly they would be dust
    rows, columns = rows + rng.normal(0.0, jitter, rows.shape), columns + rng.normal(0.0, jitter, rows.shape)
    x = width / 2 + columns * math.cos(turn) - rows * math.sin(turn)
    y = height / 2 + columns * math.sin(turn) + rows * math.cos(turn)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    canvas = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
    size, tall = step * rng.uniform(0.08, 0.3), rng.uniform(0.4, 1.0)
    for middle in np.stack([x[inside], y[inside]], axis=1):
        each = size * rng.uniform(0.6, 1.3)
        ellipse(canvas, middle, (each, each * tall), math.degrees(turn), 360.0, int(rng.integers(120, 256)), -1)
    coverage = reduced(canvas) * _patch((height, width), rng) * np.float32(rng.uniform(0.5, 1.0))
    return over(picture, coverage, scene_color(picture, rng, light=rng.random() < 0.6))


PATTERNS: tuple[DrawScene, ...] = (draw_lace, draw_mosaic, draw_mosaic, draw_spots, draw_glints)
