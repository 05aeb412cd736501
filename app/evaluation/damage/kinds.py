"""The kinds of damage that the networks learn from, each as a generator of layers.

A generator gets the print and a random generator, and returns layers; which pixels count as damage is decided later,
by what can be seen. `held_out_kinds` has the two kinds that no network is trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from app.evaluation.damage.edges import draw_border, draw_corner, draw_edge_tears
from app.evaluation.damage.layers import (
    SUPERSAMPLING,
    Layer,
    Plane,
    Points,
    Print,
    Rng,
    Stroke,
    clipped,
    curve,
    place,
    ragged,
    rasterize,
    reduced,
    shifted,
    smooth_noise,
    tapered,
    textured,
    uneven,
    wander,
)
from app.evaluation.damage.mould import draw_mould


class DamageKind(StrEnum):
    """What the figures are told apart by."""

    SCRATCH = "scratch"
    CRACK = "crack"
    WIDE_CRACK = "wide_crack"
    CREASE = "crease"
    DUST = "dust"
    HAIR = "hair"
    SPECKLE = "speckle"
    BLOTCH = "blotch"
    STAIN = "stain"
    CORNER = "corner"
    BORDER = "border"
    PERCOLATION_CRACK = "percolation_crack"  # kept out of training
    LINT = "lint"  # kept out of training
    DEBRIS = "debris"
    MOULD = "mould"
    EDGE_TEAR = "edge_tear"


Draw = Callable[[Print, Rng], list[Layer]]

LIGHT_SHARE = 0.78


def bare_color(canvas: Print, rng: Rng, light_share: float = LIGHT_SHARE) -> NDArray[np.float32]:
    """(3,) float32: mostly the print's paper, fresh or dirty; sometimes dark."""
    if rng.random() < light_share:
        return clipped(canvas.paper * rng.uniform(0.8, 1.08) + rng.normal(0.0, 0.02, 3))
    return clipped(canvas.dark + rng.uniform(-0.03, 0.08))


def draw_scratch(canvas: Print, rng: Rng) -> list[Layer]:
    """Long thin lines, alone or side by side, worn away in places."""
    angle = rng.uniform(0.0, 2 * math.pi)
    strokes = []
    for _ in range(rng.integers(1, 7)):
        if rng.random() < 0.4:
            angle = rng.uniform(0.0, 2 * math.pi)
        start = place(canvas, rng)
        length = canvas.side * rng.choice([rng.uniform(0.03, 0.2), rng.uniform(0.2, 1.3)])
        width = float(rng.uniform(0.4, 2.6))
        for offset in range(rng.choice([1, 1, 1, 2, 3])):
            aside = np.array([-math.sin(angle), math.cos(angle)]) * offset * rng.uniform(2.0, 7.0)
            path = curve(start + aside.astype(np.float32), angle + rng.normal(0.0, 0.04), length, 0.35, rng)
            path = path + rng.normal(0.0, rng.uniform(0.0, 0.35), path.shape).astype(np.float32)
            strokes.append(Stroke(path, tapered(len(path), width, rng)))
    coverage = uneven(rasterize(strokes, canvas.shape), rng, deepest=0.9)
    return [Layer(coverage * np.float32(rng.uniform(0.5, 1.0)), bare_color(canvas, rng))]


def branching(start: Points, angle: float, length: float, width: float, depth: int, rng: Rng) -> list[Stroke]:
    """A crack's strokes: a jagged way, and at some of its corners thinner ways of its own."""
    path = wander(start, angle, length, float(rng.uniform(3.0, 9.0)), float(rng.uniform(0.1, 0.55)), rng)
    strokes = [Stroke(path, tapered(len(path), width, rng, 0.4))]
    if depth > 0:
        for index in rng.choice(len(path), min(len(path), int(rng.integers(0, 4))), replace=False):
            side = angle + rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1.5)
            part = length * rng.uniform(0.15, 0.6)
            strokes += branching(path[index], side, part, width * rng.uniform(0.35, 0.9), depth - 1, rng)
    return strokes


def cracked(coverage: Plane, canvas: Print, rng: Rng) -> list[Layer]:
    """Layers of a place where emulsion is gone: bare paper, a lifted edge that is lighter, and its shadow beside it.

    Coverage is (H, W) float32 in [0, 1].
    """
    color = bare_color(canvas, rng, 0.85)
    is_light = color.mean() > canvas.dark.mean() + 0.15
    layers = []
    direction, distance = rng.uniform(0.0, 2 * math.pi), rng.uniform(0.7, 2.2)
    dx, dy = distance * math.cos(direction), distance * math.sin(direction)
    if rng.random() < 0.55:
        layers.append(Layer(shifted(coverage, -dx, -dy) * np.float32(rng.uniform(0.3, 0.9)), canvas.dark))
    if rng.random() < 0.5:
        edge = clipped(canvas.paper * rng.uniform(0.95, 1.12))
        layers.append(Layer(shifted(coverage, dx, dy) * np.float32(rng.uniform(0.4, 1.0)), edge))
    strength = float(rng.uniform(0.01, 0.09)) if is_light else 0.02
    layers.append(Layer(coverage * np.float32(rng.uniform(0.7, 1.0)), textured(color, canvas.shape, strength, rng)))
    return layers


def _cracks(canvas: Print, rng: Rng, widths: tuple[float, float], longest: float) -> Plane:
    strokes: list[Stroke] = []
    for _ in range(rng.integers(1, 4)):
        length = canvas.side * rng.uniform(0.08, longest)
        width = float(np.exp(rng.uniform(math.log(widths[0]), math.log(widths[1]))))
        angle = rng.uniform(0.0, 2 * math.pi)
        strokes += branching(place(canvas, rng), angle, length, width, int(rng.integers(0, 3)), rng)
    return rasterize(strokes, canvas.shape)


def draw_crack(canvas: Print, rng: Rng) -> list[Layer]:
    """Branching cracks of 0.7 to 3.5 pixels."""
    coverage = _cracks(canvas, rng, (0.7, 3.5), 0.9)
    return cracked(uneven(coverage, rng), canvas, rng)


def draw_wide_crack(canvas: Print, rng: Rng) -> list[Layer]:
    """Cracks of 3.5 to 12 pixels with frayed edges, mostly tan, cream or grey."""
    coverage = _cracks(canvas, rng, (3.5, 12.0), 0.8)
    return cracked(ragged(coverage, float(rng.uniform(0.1, 0.5)), rng), canvas, rng)


def draw_crease(canvas: Print, rng: Rng) -> list[Layer]:
    """A fold across the print: a light line beside a dark one, worn through in places."""
    angle = rng.uniform(0.0, 2 * math.pi)
    middle, length = place(canvas, rng, 0.15), canvas.side * rng.uniform(0.5, 2.2)
    start = middle - (0.5 * length * np.array([math.cos(angle), math.sin(angle)])).astype(np.float32)
    path = curve(start, angle, length, 0.15, rng, step=5.0)
    path = path + rng.normal(0.0, rng.uniform(0.0, 0.6), path.shape).astype(np.float32)
    width = float(rng.uniform(0.8, 4.0))
    apart = (width * rng.uniform(0.7, 1.3)) * np.array([-math.sin(angle), math.cos(angle)])
    light = rasterize([Stroke(path, tapered(len(path), width, rng))], canvas.shape)
    dark = shifted(light, float(apart[0]), float(apart[1])) * np.float32(rng.uniform(0.3, 1.0))
    layers = [Layer(uneven(dark, rng), canvas.dark)]
    layers.append(Layer(uneven(light, rng) * np.float32(rng.uniform(0.5, 1.0)), bare_color(canvas, rng, 1.0)))
    if rng.random() < 0.4:  # crumbs of emulsion broken off along the fold
        crumbs = rasterize([Stroke(path, tapered(len(path), 2.5 * width, rng, 0.8))], canvas.shape)
        crumbs = crumbs * (smooth_noise(canvas.shape, 5.0, rng) > 0.8).astype(np.float32)
        layers.append(Layer(crumbs, textured(bare_color(canvas, rng, 1.0), canvas.shape, 0.05, rng)))
    return layers


def draw_dust(canvas: Print, rng: Rng) -> list[Layer]:
    """Specks of half a pixel to four, round, long or angular, strewn or in heaps; some short fibres."""
    shape = (canvas.height * SUPERSAMPLING, canvas.width * SUPERSAMPLING)
    specks = np.zeros(shape, np.uint8)
    heap, spread = place(canvas, rng), canvas.side * rng.uniform(0.08, 0.4)
    largest = rng.uniform(0.8, 4.0)
    for _ in range(int(np.exp(rng.uniform(math.log(4), math.log(90))))):
        middle = place(canvas, rng) if rng.random() < 0.6 else heap + rng.normal(0.0, spread, 2)
        radius = 0.4 + (largest - 0.4) * rng.random() ** 3
        corners = _blob(middle, radius, rng) * SUPERSAMPLING
        cv2.fillPoly(specks, [np.rint(corners).astype(np.int32)], int(rng.integers(120, 256)))
    fibres = [_fibre(canvas, rng, 4.0, 18.0) for _ in range(rng.integers(0, 8))]
    color = bare_color(canvas, rng)
    opacity = np.float32(rng.uniform(0.6, 1.0))
    return [Layer(np.maximum(reduced(specks), rasterize(fibres, canvas.shape)) * opacity, color)]


def _blob(middle: NDArray[np.floating], radius: float, rng: Rng) -> NDArray[np.float64]:
    """Corners, (n, 2), of an irregular speck."""
    count = int(rng.integers(4, 9))
    angles = np.sort(rng.uniform(0.0, 2 * math.pi, count))
    radii = radius * rng.uniform(0.6, 1.3, count)
    stretch, turn = rng.uniform(1.0, 2.2), rng.uniform(0.0, math.pi)
    x, y = radii * np.cos(angles) * stretch, radii * np.sin(angles)
    return np.stack(
        [middle[0] + x * math.cos(turn) - y * math.sin(turn), middle[1] + x * math.sin(turn) + y * math.cos(turn)],
        axis=1,
    )


def _fibre(canvas: Print, rng: Rng, shortest: float, longest: float) -> Stroke:
    path = curve(place(canvas, rng), rng.uniform(0.0, 2 * math.pi), rng.uniform(shortest, longest), 4.0, rng, 2.0)
    return Stroke(path, np.full(len(path), rng.uniform(0.4, 1.3), np.float32))


def draw_debris(canvas: Print, rng: Rng) -> list[Layer]:
    """Small heaps of crumbs and curled threads, as dirt gathers in an album."""
    shape = (canvas.height * SUPERSAMPLING, canvas.width * SUPERSAMPLING)
    crumbs, threads = np.zeros(shape, np.uint8), list[Stroke]()
    for _ in range(rng.integers(1, 9)):
        heap, spread = place(canvas, rng), canvas.side * rng.uniform(0.01, 0.08)
        largest = rng.uniform(1.0, 4.5)
        for _ in range(int(np.exp(rng.uniform(math.log(3), math.log(40))))):
            corners = _blob(heap + rng.normal(0.0, spread, 2), rng.uniform(0.5, largest), rng) * SUPERSAMPLING
            cv2.fillPoly(crumbs, [np.rint(corners).astype(np.int32)], int(rng.integers(120, 256)))
        for _ in range(rng.integers(0, 12)):
            start = (heap + rng.normal(0.0, spread, 2)).astype(np.float32)
            path = curve(start, rng.uniform(0.0, 2 * math.pi), rng.uniform(4.0, 30.0), 9.0, rng, 1.5)
            threads.append(Stroke(path, tapered(len(path), float(rng.uniform(0.6, 2.6)), rng)))
    coverage = np.maximum(reduced(crumbs), rasterize(threads, canvas.shape))
    return [Layer(coverage * np.float32(rng.uniform(0.6, 1.0)), bare_color(canvas, rng))]


def draw_hair(canvas: Print, rng: Rng) -> list[Layer]:
    """One to three hairs on the scanner's glass or the negative: thin, smooth, curled, alone."""
    fibres = [_fibre(canvas, rng, 0.1 * canvas.side, 0.8 * canvas.side) for _ in range(rng.integers(1, 4))]
    coverage = rasterize(fibres, canvas.shape) * np.float32(rng.uniform(0.6, 1.0))
    return [Layer(coverage, bare_color(canvas, rng, 0.6))]


def draw_speckle(canvas: Print, rng: Rng) -> list[Layer]:
    """Many tiny spots of one or two pixels, evenly or in drifts."""
    density = rng.uniform(0.0005, 0.006)
    drift = np.clip(1.0 + rng.uniform(0.0, 1.2) * smooth_noise(canvas.shape, 0.4 * canvas.side, rng), 0.0, 3.0)
    spots = (rng.random(canvas.shape, np.float32) < density * drift).astype(np.float32)
    spots *= rng.uniform(0.4, 1.0, canvas.shape).astype(np.float32)
    if rng.random() < 0.6:
        spots = np.clip(np.asarray(cv2.GaussianBlur(spots, (0, 0), 0.6), dtype=np.float32) * 2.2, 0.0, 1.0)
    return [Layer(np.asarray(spots, dtype=np.float32), bare_color(canvas, rng))]


def _spots(canvas: Print, rng: Rng, share: float) -> Plane:
    """A share of the print in irregular islands, (H, W) float32, frayed or smooth."""
    noise = smooth_noise(canvas.shape, canvas.side * rng.uniform(0.08, 0.35), rng)
    noise = noise + np.float32(rng.uniform(0.0, 0.35)) * smooth_noise(canvas.shape, 5.0, rng)
    window = np.asarray(place(canvas, rng))
    y, x = np.ogrid[: canvas.height, : canvas.width]
    distance = np.hypot(x - window[0], y - window[1]) / (canvas.side * rng.uniform(0.2, 0.6))
    noise = noise - distance.astype(np.float32)
    limit = np.quantile(noise[::4, ::4], 1.0 - share)
    return clipped(0.5 + (noise - limit) * rng.uniform(4.0, 16.0))


def draw_blotch(canvas: Print, rng: Rng) -> list[Layer]:
    """Islands where the emulsion has flaked off, 0.3 to 6 % of the print."""
    coverage = _spots(canvas, rng, float(np.exp(rng.uniform(math.log(0.003), math.log(0.06)))))
    if rng.random() < 0.6:
        coverage = ragged(coverage, float(rng.uniform(0.1, 0.4)), rng)
    return cracked(coverage, canvas, rng)


def draw_stain(canvas: Print, rng: Rng) -> list[Layer]:
    """A drop of ink, tea or glue that has dried: tinted, with a darker seam."""
    coverage = _spots(canvas, rng, float(rng.uniform(0.004, 0.05)))
    inner = np.asarray(cv2.GaussianBlur(coverage, (0, 0), float(rng.uniform(1.0, 3.0))), dtype=np.float32)
    seam = np.clip(coverage - inner, 0.0, 1.0) * np.float32(rng.uniform(0.5, 1.5))
    tint = canvas.dark + rng.uniform(0.0, 0.25) * np.array([1.0, 0.7, 0.35])
    opacity = np.float32(rng.uniform(0.35, 0.9))
    return [Layer(np.clip(coverage * opacity + seam, 0.0, 1.0), clipped(tint))]


TRAINED: dict[DamageKind, Draw] = {
    DamageKind.SCRATCH: draw_scratch,
    DamageKind.CRACK: draw_crack,
    DamageKind.WIDE_CRACK: draw_wide_crack,
    DamageKind.CREASE: draw_crease,
    DamageKind.DUST: draw_dust,
    DamageKind.HAIR: draw_hair,
    DamageKind.SPECKLE: draw_speckle,
    DamageKind.BLOTCH: draw_blotch,
    DamageKind.STAIN: draw_stain,
    DamageKind.CORNER: draw_corner,
    DamageKind.BORDER: draw_border,
    DamageKind.DEBRIS: draw_debris,
    DamageKind.MOULD: draw_mould,
    DamageKind.EDGE_TEAR: draw_edge_tears,
}
SHARES: dict[DamageKind, float] = {  # in training; what is small or faint is learned last, and so shown oftener
    DamageKind.SCRATCH: 0.15,
    DamageKind.CRACK: 0.10,
    DamageKind.WIDE_CRACK: 0.06,
    DamageKind.CREASE: 0.05,
    DamageKind.DUST: 0.13,
    DamageKind.HAIR: 0.06,
    DamageKind.SPECKLE: 0.08,
    DamageKind.BLOTCH: 0.05,
    DamageKind.STAIN: 0.04,
    DamageKind.CORNER: 0.04,
    DamageKind.BORDER: 0.02,
    DamageKind.DEBRIS: 0.07,
    DamageKind.MOULD: 0.05,
    DamageKind.EDGE_TEAR: 0.10,
}
