"""Hard negatives: undamaged things that look like damage, drawn into the scene before the print is made of it.

Wires, twigs, hair, whiskers, jewellery, rings, collars, hems, bows, rain, stars, window frames and the white frame of a
print. They get the scene's blur and the print's tone and grain, as real ones do; damage gets neither.
`negative_patterns` has what repeats, `negative_faces` faces, `negative_pages` writing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from app.evaluation.damage.layers import (
    SUPERSAMPLING,
    Plane,
    Points,
    Rng,
    Stroke,
    Unit,
    clipped,
    curve,
    rasterize,
    reduced,
    smooth_noise,
)

DrawScene = Callable[[Unit, Rng], Unit]


def scene_color(picture: Unit, rng: Rng, light: bool) -> NDArray[np.float32]:
    """A light or dark colour, (3,) float32, greyish or taken from the picture, (H, W, 3) float32 in [0, 1]."""
    if rng.random() < 0.4:
        color = picture[rng.integers(picture.shape[0]), rng.integers(picture.shape[1])]
    else:
        color = np.repeat(rng.uniform(0.0, 1.0), 3) + rng.normal(0.0, 0.05, 3)
    level = rng.uniform(0.75, 1.0) if light else rng.uniform(0.0, 0.3)
    return clipped(color + (level - color.mean()))


def over(picture: Unit, coverage: Plane, color: NDArray[np.float32]) -> Unit:
    """A picture, (H, W, 3) float32 in [0, 1], under a colour, (3,) or (H, W, 3), by its coverage, (H, W) in [0, 1]."""
    return np.asarray(picture + coverage[:, :, None] * (color - picture), dtype=np.float32)


def _point(picture: Unit, rng: Rng, margin: float = 0.0) -> Points:
    height, width = picture.shape[:2]
    x, y = rng.uniform(margin, 1.0 - margin, 2)
    return np.array([x * width, y * height], np.float32)


def _size(picture: Unit) -> tuple[int, int]:
    return picture.shape[0], picture.shape[1]


def draw_wires(picture: Unit, rng: Rng) -> Unit:
    """One to eight wires, ropes or masts from side to side, nearly parallel, hanging a little."""
    height, width = _size(picture)
    angle, sag = rng.uniform(-math.pi, math.pi), rng.uniform(0.0, 0.12) * width
    middle, thickness = _point(picture, rng, 0.2), float(rng.uniform(0.5, 4.0))
    along, aside = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    position = np.linspace(-1.0, 1.0, 40)[:, None]
    strokes = []
    for _ in range(rng.integers(1, 9)):
        offset = rng.normal(0.0, 0.2) * height
        path = middle + aside * offset + along * position * 1.5 * max(height, width)
        path[:, 1] += sag * (1.0 - position[:, 0] ** 2)
        strokes.append(Stroke(path.astype(np.float32), np.full(40, thickness, np.float32)))
    return over(picture, rasterize(strokes, (height, width)), scene_color(picture, rng, rng.random() < 0.35))


def draw_twigs(picture: Unit, rng: Rng) -> Unit:
    """A bush or a bare tree: many branches that grow thinner at every fork, in one colour."""
    strokes: list[Stroke] = []
    root = _point(picture, rng)
    for _ in range(rng.integers(1, 5)):
        angle = -math.pi / 2 + rng.normal(0.0, 0.8)
        _grow(strokes, root, angle, 0.35 * min(_size(picture)), float(rng.uniform(2.0, 9.0)), rng)
        root = root + rng.normal(0.0, 30.0, 2).astype(np.float32)
    return over(picture, rasterize(strokes, _size(picture)), scene_color(picture, rng, rng.random() < 0.2))


def _grow(strokes: list[Stroke], start: Points, angle: float, length: float, width: float, rng: Rng) -> None:
    path = curve(start, angle, length * rng.uniform(0.6, 1.2), 0.5, rng, step=6.0)
    strokes.append(Stroke(path, np.linspace(width, 0.65 * width, len(path), dtype=np.float32)))
    if width < 0.7 or length < 5.0 or len(strokes) > 250:
        return
    for _ in range(rng.integers(2, 4)):
        fork = path[rng.integers(len(path) // 2, len(path))]
        _grow(strokes, fork, angle + rng.normal(0.0, 0.55), 0.72 * length, 0.62 * width, rng)


def draw_strands(picture: Unit, rng: Rng) -> Unit:
    """Combed hair or grass: dozens of fine curves that run nearly alongside each other, light and dark."""
    start, angle, bend = _point(picture, rng), rng.uniform(0.0, 2 * math.pi), rng.uniform(0.2, 1.5)
    length, spread = rng.uniform(0.2, 0.9) * picture.shape[1], rng.uniform(5.0, 40.0)
    color = scene_color(picture, rng, rng.random() < 0.4)
    for shade in (-0.12, 0.0, 0.15):
        strokes = []
        for _ in range(rng.integers(6, 30)):
            path = curve(start, angle + rng.normal(0.0, 0.08), length * rng.uniform(0.5, 1.0), bend * 0.2, rng)
            path = path + rng.normal(0.0, spread, 2).astype(np.float32)
            strokes.append(Stroke(path, np.full(len(path), rng.uniform(0.4, 1.4), np.float32)))
        coverage = rasterize(strokes, _size(picture)) * np.float32(rng.uniform(0.4, 1.0))
        picture = over(picture, coverage, clipped(color + shade))
    return picture


def draw_whiskers(picture: Unit, rng: Rng) -> Unit:
    """Whiskers or eyelashes: a few thinning curves out of one place, to both sides."""
    middle, length = _point(picture, rng, 0.2), rng.uniform(0.08, 0.4) * picture.shape[1]
    strokes, angle = [], rng.uniform(-0.6, 0.6)
    for side in (0.0, math.pi):
        for _ in range(rng.integers(2, 9)):
            start = middle + rng.normal(0.0, 4.0, 2).astype(np.float32)
            path = curve(start, angle + side + rng.normal(0.0, 0.3), length * rng.uniform(0.6, 1.2), 0.4, rng)
            strokes.append(Stroke(path, np.linspace(rng.uniform(0.8, 2.0), 0.3, len(path), dtype=np.float32)))
    return over(picture, rasterize(strokes, _size(picture)), scene_color(picture, rng, rng.random() < 0.7))


def _ball(picture: Unit, middle: Points, radius: float, color: NDArray[np.float32], rng: Rng, shine: float) -> Unit:
    """A round thing with a shaded side and a highlight, drawn in place."""
    reach = math.ceil(radius) + 2
    x0, y0 = max(0, int(middle[0]) - reach), max(0, int(middle[1]) - reach)
    part = picture[y0 : y0 + 2 * reach, x0 : x0 + 2 * reach]
    if part.size == 0:
        return picture
    y, x = np.ogrid[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]]
    distance = np.hypot(x - middle[0], y - middle[1])
    coverage = np.clip(radius - distance + 0.5, 0.0, 1.0)[:, :, None]
    light = np.hypot(x - middle[0] + 0.35 * radius, y - middle[1] + 0.35 * radius) / max(radius, 0.5)
    shade = np.clip(color - 0.3 * np.clip(light - 0.6, 0.0, 1.0)[:, :, None], 0.0, 1.0)
    shade = shade + shine * np.exp(-((2.5 * light) ** 2))[:, :, None] * (1.0 - shade)
    part += (coverage * (shade - part)).astype(np.float32)
    return picture


def draw_jewellery(picture: Unit, rng: Rng) -> Unit:
    """A string of pearls, buttons in a row, or a few earrings; also eyes: a light dot in a dark disc."""
    picture, way = picture.copy(), rng.random()
    color = scene_color(picture, rng, light=rng.random() < 0.8)
    radius, shine = float(rng.uniform(0.8, 6.0)), float(rng.uniform(0.0, 1.0))
    if way < 0.7:
        step = radius * (rng.uniform(1.8, 2.5) if way < 0.45 else rng.uniform(5.0, 12.0))
        length = step * rng.integers(3, 40)
        path = curve(_point(picture, rng), rng.uniform(0.0, 2 * math.pi), length, 1.6, rng, step)
        for middle in path:
            _ball(picture, middle, radius, color, rng, shine)
        return picture
    for _ in range(rng.integers(1, 6)):
        middle = _point(picture, rng)
        _ball(picture, middle, 2.6 * radius, scene_color(picture, rng, light=False), rng, 0.0)
        _ball(picture, middle - np.float32(0.3 * radius), 0.8 * radius, color, rng, 0.0)
    return picture


def draw_rings(picture: Unit, rng: Rng) -> Unit:
    """One to four rings or rims seen from the side: a band bent round something, with a short, bright highlight."""
    for _ in range(rng.integers(1, 5)):
        middle, angle = _point(picture, rng), rng.uniform(0.0, 2 * math.pi)
        size = float(np.exp(rng.uniform(math.log(4.0), math.log(30.0))))
        turns = rng.uniform(0.6, 2.0 * math.pi) * np.linspace(-0.5, 0.5, 24)
        arc = np.stack([size * np.sin(turns), size * rng.uniform(0.1, 0.7) * np.cos(turns)], axis=1)
        across, down = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
        path = (middle + arc[:, :1] * across + arc[:, 1:] * down).astype(np.float32)
        width = float(rng.uniform(0.7, 1.0 + 0.2 * size))
        band = rasterize([Stroke(path, np.full(24, width, np.float32))], _size(picture))
        picture = over(picture, band, scene_color(picture, rng, light=rng.random() < 0.3))
        start = int(rng.integers(0, 18))
        shine = path[start : start + int(rng.integers(3, 9))]
        thin = np.full(len(shine), width * rng.uniform(0.4, 1.0), np.float32)
        picture = over(picture, rasterize([Stroke(shine, thin)], _size(picture)), scene_color(picture, rng, light=True))
    return picture


def draw_collars(picture: Unit, rng: Rng) -> Unit:
    """One to five bright, softly shaded shapes with sharp edges: collars, cuffs, ribbons, cigarettes, paper, teeth."""
    for _ in range(rng.integers(1, 6)):
        middle = _point(picture, rng)
        size = float(np.exp(rng.uniform(math.log(0.015), math.log(0.35)))) * picture.shape[1]
        angles = np.sort(rng.uniform(0.0, 2 * math.pi, rng.integers(3, 8)))
        stretch = rng.uniform(0.08, 1.0)
        corners = np.stack([np.cos(angles) * size, np.sin(angles) * size * stretch], axis=1) * rng.uniform(
            0.6, 1.3, (len(angles), 1)
        )
        turn = rng.uniform(0.0, math.pi)
        corners = corners @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]) + middle
        if rng.random() < 0.6:
            corners = _rounded(corners)
        canvas = np.zeros([side * SUPERSAMPLING for side in _size(picture)], np.uint8)
        cv2.fillPoly(canvas, [np.rint(corners * SUPERSAMPLING).astype(np.int32)], 255)
        shading = 0.06 * smooth_noise(_size(picture), float(rng.uniform(20.0, 80.0)), rng)[:, :, None]
        color = scene_color(picture, rng, light=rng.random() < 0.85) + shading
        picture = over(picture, reduced(canvas), clipped(color))
    return picture


def _rounded(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chaikin's corner cutting, twice."""
    for _ in range(2):
        after = np.roll(corners, -1, axis=0)
        corners = np.stack([0.75 * corners + 0.25 * after, 0.25 * corners + 0.75 * after], axis=1).reshape(-1, 2)
    return corners


def draw_bows(picture: Unit, rng: Rng) -> Unit:
    """One to four bows, rosettes or flowers: pleated lobes around a darker knot, mostly light."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    for _ in range(rng.integers(1, 5)):
        middle = _point(picture, rng)
        radius = float(np.exp(rng.uniform(math.log(0.015), math.log(0.12)))) * picture.shape[1]
        lobes, turn, thin = int(rng.choice([2, 2, 3, 4, 5, 6, 8])), rng.uniform(0.0, 2 * math.pi), rng.uniform(0.2, 0.7)
        angle = np.arctan2(y - middle[1], x - middle[0]) + turn
        distance = np.hypot(x - middle[0], y - middle[1]) / radius
        petal = np.abs(np.cos(0.5 * lobes * angle)) ** rng.uniform(0.5, 2.0)
        edge = thin + (1.0 - thin) * petal + 0.06 * smooth_noise(_size(picture), 0.4 * radius + 1.0, rng)
        pleats = rng.uniform(0.0, 0.2) * np.cos(rng.integers(8, 30) * angle) * np.clip(distance, 0.0, 1.0)
        shade = pleats - rng.uniform(0.05, 0.4) * np.exp(-4.0 * distance)
        color = scene_color(picture, rng, light=rng.random() < 0.85) + shade[:, :, None]
        coverage = np.clip((edge - distance) * radius + 0.5, 0.0, 1.0).astype(np.float32)
        picture = over(picture, coverage, clipped(color))
    return picture


def draw_rain(picture: Unit, rng: Rng) -> Unit:
    """Rain or snow: many short streaks in one direction, thin and half transparent."""
    angle, length = math.pi / 2 + rng.normal(0.0, 0.3), rng.uniform(1.0, 0.15 * picture.shape[0])
    along = np.array([math.cos(angle), math.sin(angle)])
    strokes = []
    for _ in range(int(np.exp(rng.uniform(math.log(60), math.log(350))))):
        start = _point(picture, rng)
        path = np.stack([start, start + along * length * rng.uniform(0.5, 1.3)]).astype(np.float32)
        strokes.append(Stroke(path, np.full(2, rng.uniform(0.4, 1.6), np.float32)))
    coverage = rasterize(strokes, _size(picture)) * np.float32(rng.uniform(0.2, 0.8))
    return over(picture, coverage, scene_color(picture, rng, light=True))


def draw_stars(picture: Unit, rng: Rng) -> Unit:
    """A night sky or lights on water: the picture darkened, hundreds of soft points of many brightnesses."""
    picture = picture * np.float32(rng.uniform(0.0, 0.5))
    points = np.zeros(_size(picture), np.float32)
    count = int(np.exp(rng.uniform(math.log(60), math.log(700))))
    rows, columns = rng.integers(0, points.shape[0], count), rng.integers(0, points.shape[1], count)
    points[rows, columns] = rng.pareto(1.5, count).astype(np.float32) * np.float32(0.4)
    spread = (float(rng.uniform(0.5, 1.6)), float(rng.uniform(0.5, 1.6)))
    soft = np.asarray(cv2.GaussianBlur(np.minimum(points, 8.0), (0, 0), spread[0], sigmaY=spread[1]), dtype=np.float32)
    return clipped(picture + 4.0 * soft[:, :, None])


def draw_frames(picture: Unit, rng: Rng) -> Unit:
    """Window frames, fences, bars, bricks or a check: straight lines in two directions at even steps."""
    height, width = _size(picture)
    turn, skew = rng.uniform(0.0, math.pi), rng.normal(0.0, 0.1)
    reach = 1.5 * max(height, width)
    middle, strokes = _point(picture, rng), []
    for direction in (turn, turn + math.pi / 2 + skew)[: rng.integers(1, 3)]:
        step, thickness = rng.uniform(8.0, 70.0), float(rng.uniform(0.6, 6.0))
        along = np.array([math.cos(direction), math.sin(direction)])
        aside = np.array([-along[1], along[0]])
        count = int(rng.integers(1, 12))
        for index in range(-count, count + 1):
            ends = [middle + aside * step * index - along * reach, middle + aside * step * index + along * reach]
            strokes.append(Stroke(np.stack(ends).astype(np.float32), np.full(2, thickness, np.float32)))
    coverage = rasterize(strokes, (height, width)) * np.float32(rng.uniform(0.5, 1.0))
    return over(picture, coverage, scene_color(picture, rng, light=rng.random() < 0.6))


def draw_hems(picture: Unit, rng: Rng) -> Unit:
    """One to four bright bands with a soft shade, single or as the two sides of a neckline: hems, straps, piping."""
    for _ in range(rng.integers(1, 5)):
        start, angle = _point(picture, rng), rng.uniform(0.0, 2 * math.pi)
        length = picture.shape[1] * rng.uniform(0.1, 0.6)
        width = float(rng.uniform(3.0, 11.0))
        sides = (angle, angle + rng.uniform(0.4, 1.3)) if rng.random() < 0.5 else (angle,)
        strokes = []
        for side in sides:
            path = curve(start, side, length * rng.uniform(0.7, 1.2), float(rng.uniform(0.0, 1.0)), rng)
            strokes.append(Stroke(path, np.full(len(path), width, np.float32)))
        shading = 0.07 * smooth_noise(_size(picture), float(rng.uniform(10.0, 60.0)), rng)[:, :, None]
        color = scene_color(picture, rng, light=rng.random() < 0.85) + shading
        picture = over(picture, rasterize(strokes, _size(picture)), clipped(color))
    return picture


def draw_white_frame(picture: Unit, rng: Rng) -> Unit:
    """The straight frame of a print on some of its sides: white, cream or black, sometimes with a thin line."""
    height, width = _size(picture)
    depth = int(rng.integers(2, max(3, round(0.08 * width))))
    color = scene_color(picture, rng, light=rng.random() < 0.75)
    y, x = np.ogrid[:height, :width]
    sides = rng.choice(4, int(rng.integers(1, 5)), replace=False)
    distances = (x, y, width - 1 - x, height - 1 - y)
    inward = np.full((height, width), 1e6)
    for side in sides:
        inward = np.minimum(inward, distances[side])
    picture = np.where((inward < depth)[:, :, None], color, picture).astype(np.float32)
    if rng.random() < 0.4:
        line = (inward >= depth) & (inward < depth + rng.integers(1, 3))
        picture = np.where(line[:, :, None], 1.0 - color, picture).astype(np.float32)
    return picture


SCENES: tuple[DrawScene, ...] = (  # twice: what a first network marked most
    draw_collars,
    draw_wires,
    draw_twigs,
    draw_strands,
    draw_whiskers,
    draw_jewellery,
    draw_rings,
    draw_collars,
    draw_bows,
    draw_bows,
    draw_rain,
    draw_stars,
    draw_frames,
    draw_hems,
    draw_hems,
    draw_white_frame,
)
