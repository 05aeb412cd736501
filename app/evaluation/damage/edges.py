"""Damage at the print's border: torn corners, frayed sides, tears, chips, runs and scratches.

Not in `kinds` for its length alone. What begins at the border has no second end to be known by, and networks that had
seen it only where chance cut it off left it.
"""

from __future__ import annotations

import math

import numpy as np

from app.evaluation.damage.layers import (
    Layer,
    Plane,
    Points,
    Print,
    Rng,
    Stroke,
    clipped,
    curve,
    ragged,
    rasterize,
    shifted,
    smooth_noise,
    textured,
    uneven,
    wander,
)

_INWARD = (0.0, 0.5 * math.pi, math.pi, 1.5 * math.pi)  # from the left, upper, right and lower side


def torn(outside: Plane, canvas: Print, rng: Rng) -> list[Layer]:
    """Layers of a print that ends: the scanner's background, and mostly a seam of bare paper with a shadow.

    `outside` is the signed distance from the tear in pixels, (H, W) float32, positive where the print is gone.
    """
    rim = float(rng.uniform(0.5, 9.0)) if rng.random() < 0.8 else 0.0
    cell = float(rng.uniform(4.0, 20.0))
    wavy = outside + np.float32(rng.uniform(0.2, 2.5)) * smooth_noise(canvas.shape, cell, rng)
    seam = np.clip(wavy + 0.5 + rim * np.clip(1.0 + 0.6 * smooth_noise(canvas.shape, cell, rng), 0.0, 3.0), 0.0, 1.0)
    gone = clipped(wavy + 0.5)
    seam = np.asarray(seam, dtype=np.float32)
    layers = []
    if rim and rng.random() < 0.6:
        angle = rng.uniform(0.0, 2 * math.pi)
        layers.append(Layer(shifted(seam, 1.5 * math.cos(angle), 1.5 * math.sin(angle)) * np.float32(0.7), canvas.dark))
    if rim:
        layers.append(Layer(seam, textured(canvas.paper, canvas.shape, float(rng.uniform(0.02, 0.09)), rng)))
    layers.append(Layer(gone, textured(canvas.background, canvas.shape, 0.01, rng)))
    return layers


def draw_corner(canvas: Print, rng: Rng) -> list[Layer]:
    """One to four corners torn off or worn round."""
    y, x = np.mgrid[: canvas.height, : canvas.width].astype(np.float32)
    outside = np.full(canvas.shape, -1e3, np.float32)
    is_round = rng.random() < 0.5
    for corner in rng.choice(4, int(rng.integers(1, 5)), replace=False):
        across = x if corner % 2 == 0 else canvas.width - 1 - x
        down = y if corner < 2 else canvas.height - 1 - y
        size = canvas.side * rng.uniform(0.04, 0.22)
        if is_round:
            distance = np.hypot(across - size, down - size) - size
            distance = np.where((across < size) & (down < size), distance, -1e3)
        else:
            tilt = rng.uniform(0.5, 2.0)
            distance = (size - across * tilt - down / tilt) / math.hypot(tilt, 1.0 / tilt)
        outside = np.maximum(outside, distance.astype(np.float32))
    return torn(outside, canvas, rng)


def draw_border(canvas: Print, rng: Rng) -> list[Layer]:
    """One to three sides of the print frayed or torn away, unevenly along the side."""
    y, x = np.mgrid[: canvas.height, : canvas.width].astype(np.float32)
    outside = np.full(canvas.shape, -1e3, np.float32)
    for side in rng.choice(4, int(rng.integers(1, 4)), replace=False):
        inward = (x, y, canvas.width - 1 - x, canvas.height - 1 - y)[side]
        along = smooth_noise((1, max(canvas.shape)), canvas.side * rng.uniform(0.1, 0.5), rng)[0]
        depth = canvas.side * rng.uniform(0.004, 0.04) * (1.0 + rng.uniform(0.1, 0.9) * along)
        profile = depth[None, : canvas.width] if side % 2 else depth[: canvas.height, None]
        outside = np.maximum(outside, (profile - inward).astype(np.float32))
    return torn(outside, canvas, rng)


def draw_edge_tears(canvas: Print, rng: Rng) -> list[Layer]:
    """One to six pieces of one sort on one side or on all, sometimes with a bare seam along the side."""
    strokes = []
    sides = rng.choice(4, int(rng.choice([1, 1, 2, 4])), replace=False)
    draw = _PIECES[rng.integers(len(_PIECES))]
    for _ in range(rng.integers(1, 7)):
        strokes += draw(canvas, int(rng.choice(sides)), rng)
    coverage = rasterize(strokes, canvas.shape)
    if rng.random() < 0.3:
        coverage = np.maximum(coverage, _seam(canvas, int(rng.choice(sides)), rng))
    if rng.random() < 0.5:
        coverage = ragged(coverage, float(rng.uniform(0.05, 0.4)), rng)
    if rng.random() < 0.3:
        coverage = uneven(coverage, rng)
    return _bare(coverage, canvas, rng)


def _bare(coverage: Plane, canvas: Print, rng: Rng) -> list[Layer]:
    """Paper, now and then what lies under the print or dirt, and mostly a shadow beside it."""
    way, layers = rng.random(), list[Layer]()
    color = canvas.paper * rng.uniform(0.85, 1.12) if way < 0.8 else canvas.background if way < 0.9 else canvas.dark
    if rng.random() < 0.6:
        angle, distance = rng.uniform(0.0, 2 * math.pi), rng.uniform(0.6, 2.0)
        shadow = shifted(coverage, distance * math.cos(angle), distance * math.sin(angle))
        layers.append(Layer(shadow * np.float32(rng.uniform(0.3, 0.9)), canvas.dark))
    paper = textured(clipped(color), canvas.shape, float(rng.uniform(0.0, 0.07)), rng)
    layers.append(Layer(coverage * np.float32(rng.uniform(0.75, 1.0)), paper))
    return layers


def _start(canvas: Print, side: int, rng: Rng) -> tuple[Points, float]:
    """A point just outside of a side, (2,) x and y, and a direction into the print in radians."""
    along = rng.uniform(0.0, 1.0)
    x, y = ((0.0, along), (along, 0.0), (1.0, along), (along, 1.0))[side]
    outward = _INWARD[side] + math.pi
    point = np.array([x * canvas.width + 3 * math.cos(outward), y * canvas.height + 3 * math.sin(outward)], np.float32)
    return point, float(_INWARD[side] + rng.normal(0.0, 0.45))


def _tear(canvas: Print, side: int, rng: Rng) -> list[Stroke]:
    """A jagged wedge, wide at the side, that soon is a thin line."""
    start, angle = _start(canvas, side, rng)
    length = canvas.side * float(np.exp(rng.uniform(math.log(0.03), math.log(0.4))))
    path = wander(start, angle, length, float(rng.uniform(2.0, 7.0)), float(rng.uniform(0.02, 0.4)), rng)
    mouth, thin = float(rng.uniform(1.0, 12.0)), float(rng.uniform(0.5, 2.5))
    position = np.linspace(0.0, 1.0, len(path))
    widths = mouth * np.exp(-position * rng.uniform(3.0, 15.0)) + thin * (1.0 - position)
    return [Stroke(path, (widths * np.exp(rng.normal(0.0, 0.2, len(path)))).astype(np.float32))]


def _chip(canvas: Print, side: int, rng: Rng) -> list[Stroke]:
    """A piece broken off the side: some thick, short strokes along it."""
    start, _ = _start(canvas, side, rng)
    size = canvas.side * float(np.exp(rng.uniform(math.log(0.01), math.log(0.06))))
    turns = _INWARD[side] + 0.5 * math.pi + rng.normal(0.0, 0.4, int(rng.integers(1, 4)))
    paths = [wander(start, float(turn), size * rng.uniform(0.5, 3.0), 2.0, 0.3, rng) for turn in turns]
    return [Stroke(path, np.full(len(path), size * rng.uniform(0.5, 1.3), np.float32)) for path in paths]


def _run(canvas: Print, side: int, rng: Rng) -> list[Stroke]:
    """A run of paint, glue or water with a round end."""
    start, angle = _start(canvas, side, rng)
    length = canvas.side * float(np.exp(rng.uniform(math.log(0.04), math.log(0.35))))
    path = curve(start, angle, length, 0.3, rng, 1.5)
    position = np.linspace(0.0, 1.0, len(path))
    width = rng.uniform(1.5, 8.0)
    drop = rng.uniform(0.0, 0.8) * np.exp(-(((position - 0.95) / 0.08) ** 2))
    widths = width * (1.0 + 1.5 * np.exp(-12.0 * position) + drop)
    return [Stroke(path, np.asarray(widths, dtype=np.float32))]


def _scratch(canvas: Print, side: int, rng: Rng) -> list[Stroke]:
    """A thin line from the side, nearly straight, that fades out."""
    start, angle = _start(canvas, side, rng)
    path = curve(start, angle, canvas.side * rng.uniform(0.04, 0.7), 0.3, rng)
    widths = rng.uniform(0.6, 2.6) * np.sqrt(1.0 - np.linspace(0.0, 0.95, len(path)))
    return [Stroke(path, np.asarray(widths, dtype=np.float32))]


def _fold(canvas: Print, side: int, rng: Rng) -> list[Stroke]:
    """A corner folded or about to break off: a line across it, from this side to the next one."""
    ahead = rng.random() < 0.5
    x, y = ((0.0, ahead), (ahead, 0.0), (1.0, ahead), (ahead, 1.0))[side]
    corner = np.array([x * canvas.width, y * canvas.height])
    inward = np.array([1.0 - 2.0 * x, 1.0 - 2.0 * y])
    reach = canvas.side * np.exp(rng.uniform(math.log(0.04), math.log(0.3), 2)) * inward
    start = corner + np.array([reach[0], -2.0 * inward[1]])
    end = corner + np.array([-2.0 * inward[0], reach[1]])
    bow = corner + rng.uniform(-0.1, 0.8) * reach
    position = np.linspace(0.0, 1.0, 24)[:, None]
    path = (1 - position) ** 2 * start + 2 * position * (1 - position) * bow + position**2 * end
    path = path + rng.normal(0.0, rng.uniform(0.0, 1.2), path.shape)
    widths = rng.uniform(0.8, 7.0) * np.exp(rng.normal(0.0, rng.uniform(0.05, 0.4), len(path)))
    return [Stroke(path.astype(np.float32), widths.astype(np.float32))]


_PIECES = (_tear, _tear, _chip, _chip, _run, _scratch, _fold, _fold)


def _seam(canvas: Print, side: int, rng: Rng) -> Plane:
    """A part of one side bare, one to six pixels deep: coverage (H, W) float32."""
    start, _ = _start(canvas, side, rng)
    path = wander(start, _INWARD[side] + 0.5 * math.pi, canvas.side * rng.uniform(0.1, 1.0), 4.0, 0.02, rng)
    widths = rng.uniform(4.0, 14.0) * np.exp(rng.normal(0.0, 0.25, len(path)))
    return rasterize([Stroke(path, widths.astype(np.float32))], canvas.shape)
