"""Hard negatives with writing: text over photos, pages of text, and line drawings on light or dark ground."""

from __future__ import annotations

import math
import string

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from app.evaluation.damage.layers import Plane, Rng, Stroke, Unit, clipped, curve, rasterize, smooth_noise, wander
from training.damage.negative_drawings import draw_flat_drawing
from training.damage.negatives import scene_color

_LETTERS = np.array(list(string.ascii_letters + string.digits + "     .,;:-!?'"))
_CV2_FONTS = tuple(range(8))  # the Hershey fonts, two of them script


def _words(rng: Rng, longest: int) -> str:
    return "".join(rng.choice(_LETTERS, int(rng.integers(3, longest))).tolist())


def _printed(shape: tuple[int, int], rng: Rng, lines: int) -> Plane:
    """Lines of print in Pillow's own font: coverage (H, W) float32 in [0, 1]."""
    page = Image.new("L", (shape[1], shape[0]))
    pen = ImageDraw.Draw(page)
    size = float(rng.uniform(7.0, 40.0))
    font, left, top = ImageFont.load_default(size=size), rng.uniform(-0.1, 0.5) * shape[1], rng.uniform(0.0, 0.8)
    for line in range(lines):
        pen.text((left, top * shape[0] + 1.25 * size * line), _words(rng, 60), fill=255, font=font)
    if rng.random() < 0.3:
        page = page.rotate(rng.uniform(-90.0, 90.0), resample=Image.Resampling.BILINEAR)
    return np.asarray(page, dtype=np.float32) / np.float32(255.0)


def _handwritten(shape: tuple[int, int], rng: Rng, lines: int) -> Plane:
    """Lines in OpenCV's stroke fonts, as captions are written by hand: coverage (H, W) float32 in [0, 1]."""
    page = np.zeros(shape, np.uint8)
    scale, font = float(rng.uniform(0.3, 1.4)), int(rng.choice(_CV2_FONTS))
    left, top = int(rng.uniform(-0.1, 0.5) * shape[1]), rng.uniform(0.1, 0.9) * shape[0]
    for line in range(lines):
        place, thickness = (left, round(top + 34 * scale * line)), int(rng.integers(1, 3))
        cv2.putText(page, _words(rng, 24), place, font, scale, 255, thickness, cv2.LINE_AA)
    return page.astype(np.float32) / np.float32(255.0)


def _over(picture: Unit, coverage: Plane, rng: Rng, light: bool) -> Unit:
    color = scene_color(picture, rng, light)
    return np.asarray(picture + coverage[:, :, None] * (color - picture), dtype=np.float32)


def draw_caption(picture: Unit, rng: Rng) -> Unit:
    """Some words on a photo, (H, W, 3) float32 in [0, 1] to the same: a caption, a date, a sign, a signature."""
    write = _printed if rng.random() < 0.5 else _handwritten
    coverage = write((picture.shape[0], picture.shape[1]), rng, int(rng.integers(1, 4)))
    return _over(picture, coverage * np.float32(rng.uniform(0.6, 1.0)), rng, bool(rng.random() < 0.55))


def _ground(picture: Unit, rng: Rng, is_light: bool) -> Unit:
    """A sheet of paper in place of the picture, of one tone with soft unevenness."""
    shape = (picture.shape[0], picture.shape[1])
    shade = np.float32(rng.uniform(0.0, 0.04)) * smooth_noise(shape, 80.0, rng)[:, :, None]
    return clipped(scene_color(picture, rng, is_light) + shade)


def draw_page(picture: Unit, rng: Rng) -> Unit:
    """A page of text instead of the picture, (H, W, 3) float32 in [0, 1]; one in four is light on dark."""
    is_light = bool(rng.random() < 0.75)
    page = _ground(picture, rng, is_light)
    write = _printed if rng.random() < 0.7 else _handwritten
    for _ in range(rng.integers(1, 5)):
        page = _over(page, write((page.shape[0], page.shape[1]), rng, int(rng.integers(2, 16))), rng, not is_light)
    return page


def draw_line_drawing(picture: Unit, rng: Rng) -> Unit:
    """An engraving, a plan or a sketch instead of the picture, (H, W, 3) float32 in [0, 1]: lines on even ground."""
    is_light = bool(rng.random() < 0.75)
    page, shape = _ground(picture, rng, is_light), (picture.shape[0], picture.shape[1])
    if rng.random() < 0.4:
        coverage = _edges(picture, rng)
    else:
        coverage = rasterize([_pen_stroke(shape, rng) for _ in range(rng.integers(10, 70))], shape)
    if rng.random() < 0.5:
        coverage = np.maximum(coverage, _hatching(shape, rng))
    return _over(page, coverage, rng, not is_light)


def _edges(picture: Unit, rng: Rng) -> Plane:
    """The photo's own edges as a drawing: coverage (H, W) float32 in [0, 1]."""
    grey = cv2.cvtColor((picture * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    grey = cv2.GaussianBlur(grey, (0, 0), float(rng.uniform(1.0, 2.5)))
    edges = np.asarray(cv2.Canny(grey, 40, 110), dtype=np.float32) / np.float32(255.0)
    return clipped(2.0 * np.asarray(cv2.GaussianBlur(edges, (0, 0), 0.7), dtype=np.float32))


def _pen_stroke(shape: tuple[int, int], rng: Rng) -> Stroke:
    start = (rng.random(2) * [shape[1], shape[0]]).astype(np.float32)
    angle, length = rng.uniform(0.0, 2 * math.pi), rng.uniform(0.05, 0.8) * shape[1]
    path = curve(start, angle, length, 1.5, rng) if rng.random() < 0.7 else wander(start, angle, length, 12, 0.6, rng)
    return Stroke(path, np.full(len(path), rng.uniform(0.5, 2.5), np.float32))


def _hatching(shape: tuple[int, int], rng: Rng) -> Plane:
    """Parallel lines inside an area: coverage (H, W) float32 in [0, 1]."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    turn, step = rng.uniform(0.0, math.pi), rng.uniform(3.0, 9.0)
    wave = np.cos((x * math.cos(turn) + y * math.sin(turn)) * (2 * math.pi / step))
    area = smooth_noise(shape, 0.3 * shape[1], rng) > rng.uniform(-0.5, 1.0)
    return clipped((wave - 0.4) * 2.0 * area)


PAGES = (draw_page, draw_line_drawing, draw_flat_drawing)
