"""Samples to train on: a photo, aged, with drawn damage or none, scanned, and the mask of what is visible.

Everything hangs on the seed and the sample's number, so that a resumed training sees what an uninterrupted one sees,
with any number of loaders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from app.evaluation.damage.kinds import SHARES, TRAINED, DamageKind
from app.evaluation.damage.layers import Rng, Unit, clipped
from app.evaluation.damage.scans import Sample, crop, scan_sample
from training.damage.faces import Face, crop_face, names, read_faces
from training.damage.negative_faces import draw_faces
from training.damage.negative_hands import draw_hands
from training.damage.negative_pages import PAGES, draw_caption
from training.damage.negative_patterns import PATTERNS
from training.damage.negatives import SCENES, draw_stars
from training.photos import read_rgb

UNDAMAGED_SHARE = 0.4
PAGE_SHARE = 0.2  # of the undamaged
PLAIN_SHARE = 0.4  # of the undamaged: photos with nothing drawn on them
SCENE_SHARE = 0.4  # of the damaged: with a hard negative beside the damage
FACE_SHARE = 0.3  # of the crops: around a known face
FINE_SHARE = 0.15  # of the scans, which resolve more than the print holds, as scans of many megapixels do
FINEST = 1.8  # times at most

_NEGATIVES = (*SCENES, *PATTERNS, draw_stars, draw_caption, *(draw_faces,) * 3, *(draw_hands,) * 6)


def draw_scene(picture: Unit, rng: Rng) -> Unit:
    """One or two hard negatives in a picture, (H, W, 3) float32 in [0, 1] to the same."""
    for _ in range(rng.choice([1, 1, 2])):
        picture = _NEGATIVES[rng.integers(len(_NEGATIVES))](picture, rng)
    return clipped(picture)


def make_undamaged(picture: Unit, rng: Rng, side: int) -> Sample:
    """A plain photo, one with hard negatives, or a page, scanned to `side` pixels."""
    way = rng.random()
    if way < PAGE_SHARE:
        picture = clipped(PAGES[rng.integers(len(PAGES))](picture, rng))
    elif way < 1.0 - PLAIN_SHARE:
        picture = draw_scene(picture, rng)
    return scan_sample(picture, (), rng, side)


def choose_kinds(rng: Rng) -> list[DamageKind]:
    """One to four of the trained kinds."""
    shares = np.array(list(SHARES.values()))
    count = int(rng.choice([1, 2, 3, 4], p=[0.4, 0.3, 0.2, 0.1]))
    chosen = rng.choice(len(shares), count, replace=False, p=shares / shares.sum())
    return [list(SHARES)[index] for index in chosen]


def make_damaged(picture: Unit, rng: Rng, side: int) -> Sample:
    """A photo, sometimes with a hard negative in the scene, under one to four kinds of damage; see `make_undamaged`."""
    if rng.random() < SCENE_SHARE:
        picture = draw_scene(picture, rng)
    return scan_sample(picture, [TRAINED[kind] for kind in choose_kinds(rng)], rng, side)


class Samples(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """(scan (3, s, s) uint8, mask (1, s, s) bool, unsure (1, s, s) bool) by number, from 0 without end."""

    def __init__(self, paths: Sequence[Path], side: int, seed: int) -> None:
        self._paths, self._side, self._seed = list(paths), side, seed
        self._photos: list[NDArray[np.uint8]] = []
        self._faces: list[tuple[int, Face]] = read_faces(names(paths))

    def sample(self, index: int) -> Sample:
        """The sample of this number; equal seeds and numbers give equal samples."""
        if not self._photos:  # read in the loader's process
            cv2.setNumThreads(1)
            self._photos = [read_rgb(path) for path in self._paths]
        rng = np.random.default_rng([self._seed, index])
        finer = float(np.exp(rng.uniform(0.0, math.log(FINEST)))) if rng.random() < FINE_SHARE else 1.0
        picture = self._crop(round(self._side / finer), rng)
        make = make_undamaged if rng.random() < UNDAMAGED_SHARE else make_damaged
        return make(picture, rng, self._side)

    def _crop(self, side: int, rng: Rng) -> Unit:
        """A square of a photo, (side, side, 3) float32 in [0, 1], now and then one around a face."""
        if self._faces and rng.random() < FACE_SHARE:
            number, face = self._faces[rng.integers(len(self._faces))]
            return crop_face(self._photos[number], face, side, rng)
        return crop(self._photos[rng.integers(len(self._photos))], side, rng)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """See `sample`."""
        sample = self.sample(index)
        scan = torch.from_numpy(np.ascontiguousarray(sample.scan.transpose(2, 0, 1)))  # (3, s, s)
        return scan, torch.from_numpy(sample.mask[None]), torch.from_numpy(sample.unsure[None])
