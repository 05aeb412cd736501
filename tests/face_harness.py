"""Cheap networks for the faces pipeline: real alignment and pasting around arithmetic that stands where networks would.

`spotted` draws faces that `spot` finds by colour, so a test says where faces are, how large and how turned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from app.images import Picture, Pixels
from app.restoration.faces import LoadedFaceModels, find_faces, restore_faces
from app.restoration.faces.alignment import TEMPLATE
from app.restoration.faces.detection import DetectedFace
from app.restoration.faces.parsing import Mask
from app.restoration.faces.pipeline import FacesResult

Colour = tuple[int, int, int]


def found_at(x: float, y: float, side: float, degrees: float = 0.0, score: float = 0.99) -> DetectedFace:
    """A face whose 512-frame is a square of `side` pixels around (x, y), turned by `degrees`."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (TEMPLATE - 256) / 512 * side @ turn.T + (x, y)
    half = side * 0.3
    return DetectedFace((x - half, y - half, x + half, y + half), score, points)


def at(*found: DetectedFace) -> Callable[[Pixels], list[DetectedFace]]:
    """A detector that always sees these."""
    return lambda rgb: list(found)


def same(faces: Tensor) -> Tensor:
    """A restorer that gives back what it gets."""
    return faces


def inverted(faces: Tensor) -> Tensor:
    """A restorer whose work can be seen everywhere."""
    return -faces


def tinted(faces: Tensor) -> Tensor:
    """A restorer with a cast: redder, less blue."""
    return faces + torch.tensor((0.2, 0.0, -0.12)).view(1, 3, 1, 1)


def round_mask(faces: Tensor) -> list[Mask]:
    """A parser that sees a disc of 180 pixels' radius in every frame."""
    disc = cv2.circle(np.zeros((512, 512), np.uint8), (256, 256), 180, 255, -1)
    return [disc.copy() for _ in faces]


def scene(height: int = 120, width: int = 160, dtype: Any = np.uint8, seed: int = 0) -> Pixels:
    """A smooth colourful photo."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    rgb: Any = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    deep: Pixels = rgb if dtype == np.uint8 else rgb.astype(np.uint16) * 257
    return deep


def grey_scene(height: int = 120, width: int = 160) -> Picture:
    """The same as a grey photo."""
    first: Any = scene(height, width)[:, :, :1]
    return Picture(np.repeat(first, 3, axis=2), grey=True)


def noted(values: list[Any], value: Any) -> bool:
    """Note a value and go on."""
    values.append(value)
    return True


def enlarge(rgb: Pixels, scale: float = 2) -> Pixels:
    """What stands for the upscaled photo."""
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    large: Pixels = cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC)
    return large


def restore(
    tools: LoadedFaceModels, picture: Picture, scale: float = 2, strength: float = 1.0
) -> tuple[Pixels, Pixels, FacesResult]:
    """The whole way: (the enlarged photo, the same with faces, what was done)."""
    plain = enlarge(picture.rgb, scale)
    result = plain.copy()
    done = restore_faces(tools, picture, result, find_faces(tools, picture.rgb), strength, lambda fraction: True)
    return plain, result, done


def spotted(spots: Sequence[tuple[int, int, Colour]], size: tuple[int, int] = (96, 128)) -> Picture:
    """A grey photo with one flat coloured square of 41 pixels for each spot (x, y, colour)."""
    rgb = np.full((*size, 3), 128, np.uint8)
    for x, y, colour in spots:
        rgb[y - 20 : y + 21, x - 20 : x + 21] = colour
    return Picture(rgb)


def spot(rgb: Pixels) -> list[DetectedFace]:
    """The squares of `spotted`, as faces whose frame is the square."""
    is_spot = (rgb != 128).any(axis=2).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(is_spot)
    return [found_at(s[0] + s[2] / 2, s[1] + s[3] / 2, 41) for s in stats[1:count]]


def read(path: Path) -> Picture:
    """A photo of the shared folder as the decoder would give it, without its alpha."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert pixels is not None
    return Picture(np.ascontiguousarray(pixels[:, :, ::-1]))
