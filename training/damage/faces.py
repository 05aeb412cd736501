"""Crops around the faces of the photos of BSDS500, so that eyes and mouths are seen often enough to be left alone.

A random crop hardly ever holds a face, and networks that had seen few took the eyes of small, soft ones for specks.
`faces.csv` says where RetinaFace found them, looking at the photos enlarged twice; of other photos nothing is known.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from app.evaluation.damage.layers import Rng, Unit, clipped

LIST = Path(__file__).with_name("faces.csv")
SMALLEST, LARGEST = 11.0, 130.0  # sides of a face in the crop, pixels
LARGEST_FACTOR = 1.8  # of enlargement


@dataclasses.dataclass(frozen=True)
class Face:
    """Where a face lies in a photo: its middle and the longer side of its box, in pixels."""

    photo: str  # the file's name without its suffix
    x: int
    y: int
    side: int


def read_faces(photos: Mapping[str, int]) -> list[tuple[int, Face]]:
    """The known faces of some photos, each beside its photo's number; photos are numbered by name."""
    with LIST.open(newline="") as file:
        rows = [Face(row["photo"], int(row["x"]), int(row["y"]), int(row["side"])) for row in csv.DictReader(file)]
    return [(photos[face.photo], face) for face in rows if face.photo in photos]


def crop_face(photo: NDArray[np.uint8], face: Face, side: int, rng: Rng) -> Unit:
    """A square with a face somewhere in it, turned at random.

    Args:
        photo: (H, W, 3) uint8 RGB.
        face: of this photo.
        side: of the crop, pixels.
        rng: decides size, place and turn.

    Returns:
        (side, side, 3) float32 RGB in [0, 1].
    """
    wanted = float(np.exp(rng.uniform(math.log(SMALLEST), math.log(LARGEST))))
    smallest = side / min(photo.shape[:2])
    factor = max(smallest, min(LARGEST_FACTOR, wanted / face.side))
    cut = min(*photo.shape[:2], math.ceil(side / factor))
    y, x = (_start(middle, cut, length, rng) for middle, length in zip((face.y, face.x), photo.shape, strict=False))
    square = np.rot90(photo[y : y + cut, x : x + cut], int(rng.choice([0, 0, 0, 1, 2, 3])))
    square = np.ascontiguousarray(square[:, ::-1] if rng.random() < 0.5 else square)
    way = cv2.INTER_AREA if cut > side else cv2.INTER_CUBIC
    resized = np.asarray(cv2.resize(square, (side, side), interpolation=way), dtype=np.float32)
    return clipped(resized / np.float32(255.0))


def _start(middle: int, cut: int, length: int, rng: Rng) -> int:
    """Where a cut begins that holds the middle of the face in its inner two thirds."""
    start = round(middle - cut * rng.uniform(0.17, 0.83))
    return int(np.clip(start, 0, length - cut))


def names(paths: Sequence[Path]) -> dict[str, int]:
    """Photos' names without suffix, numbered in order."""
    return {path.stem: number for number, path in enumerate(paths)}
