"""Drawn pages: text, lines and flat fields, which no set of photos holds enough of.

Without them a network that is trained on nature rings around letters and shifts flat colours. It knows nothing of
photos, degradation or networks.
"""

from __future__ import annotations

import random
import string

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_LETTERS = string.ascii_letters + string.digits + "    .,;:-!?()&%"
_SUPERSAMPLING = 2  # drawn larger and reduced, so that edges are antialiased as in a photo of a page


def draw_page(side: int, rng: random.Random) -> NDArray[np.uint8]:
    """A (side, side, 3) uint8 RGB page in [0, 255]."""
    full = side * _SUPERSAMPLING
    page = Image.new("RGB", (full, full), _colour(rng, light=rng.random() < 0.7))
    pen = ImageDraw.Draw(page)
    for _ in range(rng.randint(0, 4)):
        _draw_shape(pen, full, rng)
    for _ in range(rng.randint(2, 9)):
        _draw_text(pen, full, rng)
    return np.asarray(page.resize((side, side), Image.Resampling.BOX), dtype=np.uint8)


def _colour(rng: random.Random, light: bool) -> tuple[int, int, int]:
    low, high = (190, 255) if light else (0, 110)
    if rng.random() < 0.5:
        grey = rng.randint(low, high)
        return grey, grey, grey
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def _draw_shape(pen: ImageDraw.ImageDraw, full: int, rng: random.Random) -> None:
    x0, x1 = sorted(rng.sample(range(full), 2))
    y0, y1 = sorted(rng.sample(range(full), 2))
    colour = _colour(rng, light=rng.random() < 0.5)
    kind = rng.choice(("box", "ellipse", "line"))
    if kind == "box":
        pen.rectangle((x0, y0, x1, y1), fill=colour)
    elif kind == "ellipse":
        pen.ellipse((x0, y0, x1, y1), fill=colour)
    else:
        pen.line((x0, y0, x1, y1), fill=colour, width=rng.randint(2, 12))


def _draw_text(pen: ImageDraw.ImageDraw, full: int, rng: random.Random) -> None:
    font = ImageFont.load_default(size=rng.uniform(24, 120))
    words = "".join(rng.choices(_LETTERS, k=rng.randint(4, 40)))
    place = (rng.randint(-full // 8, full // 2), rng.randint(0, full))
    pen.text(place, words, fill=_colour(rng, light=rng.random() < 0.25), font=font)
