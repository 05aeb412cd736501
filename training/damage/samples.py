"""Samples to train and measure on: a photo, aged, with drawn damage or none, scanned, and the mask of what is visible.

Everything hangs on the seed and the sample's number, so that a resumed training sees what an uninterrupted one sees,
with any number of loaders.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from training.damage.ageing import choose_scan, make_print
from training.damage.kinds import SHARES, TRAINED, DamageKind, Draw
from training.damage.layers import Layer, Rng, Unit, clipped, paste
from training.damage.negative_pages import PAGES, draw_caption
from training.damage.negatives import SCENES
from training.photos import read_rgb

VISIBLE_CONTRAST = 0.06  # of the range, in the channel that differs most
UNDAMAGED_SHARE = 0.45
PAGE_SHARE = 0.18  # of the undamaged
NATIVE_SHARE = 0.3  # of the crops, which are not scaled and so stay sharp
PLAIN_SHARE = 0.4  # of the undamaged: photos with nothing drawn on them
SCENE_SHARE = 0.4  # of the damaged: with a hard negative beside the damage

Mask = NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One scan and what is known of it.

    `scan` is (H, W, 3) uint8 RGB; `clean` is what the same scanner makes of the undamaged print, without noise,
    (H, W, 3) float32 in [0, 1]; `contrast` (H, W) float32 in [0, 1] is how far the damage differs from it; `unsure`
    (H, W) is damage drawn where it cannot be seen, which counts neither as damage nor as none.
    """

    scan: NDArray[np.uint8]
    clean: Unit
    contrast: NDArray[np.float32]
    unsure: Mask

    @property
    def mask(self) -> Mask:
        """Damage that can be seen, (H, W) bool."""
        return self.contrast > VISIBLE_CONTRAST


def contrast(before: Unit, after: Unit) -> NDArray[np.float32]:
    """Difference of two pictures, (H, W, 3) float32 in [0, 1], in the channel that differs most: (H, W) float32."""
    difference = np.abs(after - before)
    red, green, blue = difference[:, :, 0], difference[:, :, 1], difference[:, :, 2]
    return np.asarray(np.maximum(np.maximum(red, green), blue))  # four times faster than max(axis=2)


def apply_damage(undamaged: Unit, layers: Sequence[Layer]) -> tuple[Unit, Mask]:
    """Paste layers over a print where they can be seen.

    Args:
        undamaged: (H, W, 3) float32 RGB in [0, 1].
        layers: the first lowest.

    Returns:
        (the damaged print of the same shape, and where it was changed, (H, W) bool): outside, no pixel is touched.
    """
    damaged = paste(undamaged, layers)
    drawn = contrast(undamaged, damaged) > VISIBLE_CONTRAST
    return np.where(drawn[:, :, None], damaged, undamaged), drawn


def scan_sample(scene: Unit, draws: Sequence[Draw], rng: Rng) -> Sample:
    """Age, damage and scan a picture, (H, W, 3) float32 RGB in [0, 1]; no draws: an undamaged print."""
    undamaged, canvas = make_print(scene, rng)
    damaged, drawn = apply_damage(undamaged, [layer for draw in draws for layer in draw(canvas, rng)])
    scan = choose_scan(rng)
    clean, seen = scan.see(undamaged), scan.see(damaged)
    difference = contrast(clean, seen)
    return Sample(scan.store(seen, rng), clean, difference, drawn & (difference <= VISIBLE_CONTRAST))


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


def crop(photo: NDArray[np.uint8], side: int, rng: Rng) -> Unit:
    """A random square of a photo, (H, W, 3) uint8, scaled and turned: (side, side, 3) float32 RGB in [0, 1]."""
    smallest = side / min(photo.shape[:2])
    factor = max(smallest, float(np.exp(rng.uniform(math.log(0.6), math.log(1.6)))))
    if rng.random() < NATIVE_SHARE:
        factor = max(smallest, 1.0)
    cut = min(*photo.shape[:2], math.ceil(side / factor))
    y, x = rng.integers(photo.shape[0] - cut + 1), rng.integers(photo.shape[1] - cut + 1)
    square = np.rot90(photo[y : y + cut, x : x + cut], int(rng.integers(4)))
    square = np.ascontiguousarray(square[:, ::-1] if rng.random() < 0.5 else square)
    way = cv2.INTER_AREA if cut > side else cv2.INTER_CUBIC
    resized = np.asarray(cv2.resize(square, (side, side), interpolation=way), dtype=np.float32)
    return resized / np.float32(255.0)


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
