"""Mould on a print: colonies of lumps and spores that have grown at random, and the fine threads around them.

Not in `kinds` for its length alone. A colony is many short random walks that leave a disc at every step.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from app.evaluation.damage.layers import (
    SUPERSAMPLING,
    Layer,
    Print,
    Rng,
    Stroke,
    clipped,
    place,
    ragged,
    rasterize,
    reduced,
    textured,
    wander,
)


def draw_mould(canvas: Print, rng: Rng) -> list[Layer]:
    """One to twelve colonies: pale, greyish, rusty or dark lumps of 1 to 6 pixels, some with threads between them."""
    shape = (canvas.height * SUPERSAMPLING, canvas.width * SUPERSAMPLING)
    lumps, threads = np.zeros(shape, np.uint8), list[Stroke]()
    thickness, has_threads = float(rng.uniform(0.4, 1.6)), rng.random() < 0.5
    largest, walk = float(rng.uniform(0.7, 3.0)), float(rng.uniform(0.6, 3.0))
    for _ in range(rng.integers(1, 13)):
        middle, spread = place(canvas, rng), canvas.side * rng.uniform(0.01, 0.09)
        for _ in range(int(np.exp(rng.uniform(math.log(3), math.log(30))))):
            start = middle + rng.normal(0.0, spread, 2).astype(np.float32)
            _grow(lumps, start, walk, largest, rng)
            if has_threads:
                path = wander(start, rng.uniform(0.0, 2 * math.pi), rng.uniform(4.0, 40.0), 2.0, 0.5, rng)
                threads.append(Stroke(path, np.full(len(path), thickness, np.float32)))
    coverage = np.maximum(reduced(lumps), rasterize(threads, canvas.shape))
    if rng.random() < 0.3:
        coverage = ragged(coverage, float(rng.uniform(0.1, 0.4)), rng)
    color = textured(_color(canvas, rng), canvas.shape, float(rng.uniform(0.0, 0.06)), rng)
    return [Layer(coverage * np.float32(rng.uniform(0.5, 1.0)), color)]


def _grow(lumps: NDArray[np.uint8], start: NDArray[np.float32], walk: float, largest: float, rng: Rng) -> None:
    """One lump, in place, on a canvas (H, W) that is `SUPERSAMPLING` times larger: discs along a random walk."""
    steps = np.cumsum(rng.normal(0.0, walk, (int(rng.integers(1, 9)), 2)), axis=0)
    value = int(rng.integers(150, 256))
    for x, y in (start + steps) * SUPERSAMPLING:
        radius = max(1, round(SUPERSAMPLING * float(rng.uniform(0.3, 1.0)) * largest))
        cv2.circle(lumps, (round(float(x)), round(float(y))), radius, value, -1)


def _color(canvas: Print, rng: Rng) -> NDArray[np.float32]:
    """(3,) float32: of bare paper, of any grey with a tinge, rusty or dark; a colony's colour is not the print's."""
    way = rng.random()
    if way < 0.4:
        return clipped(canvas.paper * rng.uniform(0.8, 1.08) + rng.normal(0.0, 0.02, 3))
    if way < 0.75:
        return clipped(np.repeat(rng.uniform(0.1, 1.0), 3) + rng.normal(0.0, 0.05, 3))
    if way < 0.88:
        return clipped(rng.uniform(0.35, 0.75) * np.array([1.0, rng.uniform(0.6, 0.85), rng.uniform(0.3, 0.6)]))
    return clipped(canvas.dark + rng.uniform(-0.03, 0.12, 3))
