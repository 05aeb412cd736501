"""Samples to train on: a photo, aged, with drawn damage or none, scanned, and the mask of what is visible.

Everything hangs on the seed and the sample's number, so that a resumed training sees what an uninterrupted one sees,
with any number of loaders.
"""

from __future__ import annotations

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
from training.damage.negative_pages import PAGES, draw_caption
from training.damage.negatives import SCENES
from training.photos import read_rgb

UNDAMAGED_SHARE = 0.45
PAGE_SHARE = 0.18  # of the undamaged
PLAIN_SHARE = 0.4  # of the undamaged: photos with nothing drawn on them
SCENE_SHARE = 0.4  # of the damaged: with a hard negative beside the damage


def draw_scene(picture: Unit, rng: Rng) -> Unit:
    """One or two hard negatives in a picture, (H, W, 3) float32 in [0, 1] to the same."""
    for _ in range(rng.choice([1, 1, 2])):
        draw = (*SCENES, draw_caption)[rng.integers(len(SCENES) + 1)]
        picture = draw(picture, rng)
    return clipped(picture)


def make_undamaged(picture: Unit, rng: Rng) -> Sample:
    """A plain photo, one with hard negatives, or a page."""
    way = rng.random()
    if way < PAGE_SHARE:
        picture = clipped(PAGES[rng.integers(len(PAGES))](picture, rng))
    elif way < 1.0 - PLAIN_SHARE:
        picture = draw_scene(picture, rng)
    return scan_sample(picture, (), rng)


def choose_kinds(rng: Rng) -> list[DamageKind]:
    """One to four of the trained kinds."""
    shares = np.array(list(SHARES.values()))
    count = int(rng.choice([1, 2, 3, 4], p=[0.4, 0.3, 0.2, 0.1]))
    chosen = rng.choice(len(shares), count, replace=False, p=shares / shares.sum())
    return [list(SHARES)[index] for index in chosen]


def make_damaged(picture: Unit, rng: Rng) -> Sample:
    """A photo, sometimes with a hard negative in the scene, under one to four kinds of damage."""
    if rng.random() < SCENE_SHARE:
        picture = draw_scene(picture, rng)
    return scan_sample(picture, [TRAINED[kind] for kind in choose_kinds(rng)], rng)


class Samples(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """(scan (3, s, s) uint8, mask (1, s, s) bool, unsure (1, s, s) bool) by number, from 0 without end."""

    def __init__(self, paths: Sequence[Path], side: int, seed: int) -> None:
        self._paths, self._side, self._seed = list(paths), side, seed
        self._photos: list[NDArray[np.uint8]] = []

    def sample(self, index: int) -> Sample:
        """The sample of this number; equal seeds and numbers give equal samples."""
        if not self._photos:  # read in the loader's process
            cv2.setNumThreads(1)
            self._photos = [read_rgb(path) for path in self._paths]
        rng = np.random.default_rng([self._seed, index])
        picture = crop(self._photos[rng.integers(len(self._photos))], self._side, rng)
        return make_undamaged(picture, rng) if rng.random() < UNDAMAGED_SHARE else make_damaged(picture, rng)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """See `sample`."""
        sample = self.sample(index)
        scan = torch.from_numpy(np.ascontiguousarray(sample.scan.transpose(2, 0, 1)))  # (3, s, s)
        return scan, torch.from_numpy(sample.mask[None]), torch.from_numpy(sample.unsure[None])
