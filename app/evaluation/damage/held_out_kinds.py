"""Two kinds of damage that no network is trained on, made by other processes than the trained kinds.

`percolation_crack` is the easiest way through a field of random resistance (invasion percolation along a minimal path),
not a walk with turns; `lint` is clumps and threads out of thresholded noise, not drawn specks and arcs. They show
whether a network has learned damage or our generators.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from skimage.graph import MCP_Geometric

from app.evaluation.damage.kinds import DamageKind, Draw, bare_color
from app.evaluation.damage.layers import (
    Layer,
    Plane,
    Points,
    Print,
    Rng,
    clipped,
    place,
    shifted,
    smooth_noise,
    textured,
)


def draw_percolation_crack(canvas: Print, rng: Rng) -> list[Layer]:
    """One to three cracks along minimal paths through random resistance, joined to each other, 1 to 8 pixels wide."""
    resistance = np.exp(
        rng.uniform(0.8, 2.0) * smooth_noise(canvas.shape, float(rng.uniform(1.5, 4.0)), rng)
        + 0.8 * smooth_noise(canvas.shape, 14.0, rng)
    )
    width = float(np.exp(rng.uniform(0.0, math.log(8.0))))
    coverage = np.zeros(canvas.shape, np.float32)
    start = place(canvas, rng)
    for _ in range(rng.integers(1, 4)):
        path = _easiest_path(resistance, start, place(canvas, rng))
        coverage = np.maximum(coverage, _grown(path, canvas.shape, width, rng))
        start, width = path[rng.integers(len(path))], max(1.0, width * rng.uniform(0.5, 1.0))
    layers = [Layer(shifted(coverage, 1.0, 1.0) * np.float32(rng.uniform(0.0, 0.7)), canvas.dark)]
    color = bare_color(canvas, rng, 0.85)
    opacity = np.float32(rng.uniform(0.6, 1.0))
    return [*layers, Layer(coverage * opacity, textured(color, canvas.shape, 0.04, rng))]


def _easiest_path(resistance: Plane, start: Points, end: Points) -> Points:
    """(n, 2) x and y of neighbouring pixels."""
    way = MCP_Geometric(resistance)
    last = (resistance.shape[0] - 1, resistance.shape[1] - 1)
    ends = [(min(last[0], int(y)), min(last[1], int(x))) for x, y in (start, end)]
    way.find_costs(ends[:1], ends[1:])
    return np.asarray(way.traceback(ends[1]), dtype=np.float32)[:, ::-1]


def _grown(path: Points, shape: tuple[int, int], width: float, rng: Rng) -> Plane:
    """All that lies nearer to the path than half a width that changes from place to place."""
    empty = np.ones(shape, np.uint8)
    columns, rows = path.astype(int).T
    empty[rows, columns] = 0
    distance = np.asarray(cv2.distanceTransform(empty, cv2.DIST_L2, 5), dtype=np.float32)
    half = 0.5 * width * np.exp(0.5 * smooth_noise(shape, 6.0, rng))
    return clipped(half - distance + 0.5)


def draw_lint(canvas: Print, rng: Rng) -> list[Layer]:
    """Clumps of fluff and threads: ridges and islands of noise, inside a few soft windows."""
    window = np.zeros(canvas.shape, np.float32)
    y, x = np.ogrid[: canvas.height, : canvas.width]
    for _ in range(rng.integers(2, 12)):
        middle, size = place(canvas, rng), canvas.side * rng.uniform(0.01, 0.08)
        window = np.maximum(window, np.exp(-(((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / (2 * size * size))))
    threads = np.abs(smooth_noise(canvas.shape, float(rng.uniform(6.0, 14.0)), rng)) < 0.06
    clumps = smooth_noise(canvas.shape, float(rng.uniform(2.0, 4.0)), rng) > 1.3
    covered = ((threads & (window > 0.3)) | (clumps & (window > 0.5))).astype(np.float32)
    soft = np.asarray(cv2.GaussianBlur(covered, (0, 0), 0.5), dtype=np.float32)
    return [Layer(soft * np.float32(rng.uniform(0.6, 1.0)), bare_color(canvas, rng))]


HELD_OUT: dict[DamageKind, Draw] = {
    DamageKind.PERCOLATION_CRACK: draw_percolation_crack,
    DamageKind.LINT: draw_lint,
}
