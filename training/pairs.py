"""An endless stream of training pairs: crops of photos and drawn pages, turned, scaled, degraded, cut and shuffled.

A field of two patches is degraded at once, which costs little more than one; a pool then mixes the patches of many
fields, as Real-ESRGAN's training pool does. It runs in the loader's own process; it knows nothing of networks.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from training.degradation import KINDS, SCALE, SHARES, degrade
from training.pages import draw_page
from training.photos import read_rgb

PAGE_SHARE = 0.05
GREY_SHARE = 0.08
POOL_PATCHES = 768
PATCHES_A_FIELD = 2

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # low (p, p, 3), high (4p, 4p, 3), RGB


class Pairs(IterableDataset[tuple[Tensor, Tensor]]):
    """Pairs of (3, p, p) and (3, 4p, 4p) uint8 RGB tensors; equal seeds give equal streams."""

    def __init__(self, photos: list[Path], patch: int, seed: int, pool: int = POOL_PATCHES) -> None:
        self._paths, self._patch, self._seed, self._pool = photos, patch, seed, pool

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        rng = random.Random(self._seed)
        random.seed(rng.random())  # basicsr draws from these two
        np.random.seed(rng.randrange(2**32))
        photos = [read_rgb(path) for path in self._paths]
        pool: list[Pair] = []
        while True:
            pool.extend(self._field(photos, rng))
            if len(pool) >= self._pool:
                for _ in range(PATCHES_A_FIELD):
                    low, high = _take(pool, rng)
                    yield _tensor(low), _tensor(high)

    def _field(self, photos: list[NDArray[np.uint8]], rng: random.Random) -> list[Pair]:
        """Degrade a rectangle of two patches and cut it."""
        side = self._patch * SCALE
        is_page = rng.random() < PAGE_SHARE
        high = draw_page(2 * side, rng)[:side] if is_page else _crop(rng.choice(photos), side, 2 * side, rng)
        high = _turned(high, rng)
        low = degrade(high, rng.choices(KINDS, SHARES)[0], rng)
        step = self._patch
        return [
            (low[y : y + step, x : x + step], high[y * SCALE : (y + step) * SCALE, x * SCALE : (x + step) * SCALE])
            for y in range(0, low.shape[0], step)
            for x in range(0, low.shape[1], step)
        ]


def _crop(photo: NDArray[np.uint8], height: int, width: int, rng: random.Random) -> NDArray[np.uint8]:
    """A random rectangle; half of them from a photo made smaller, which is sharper and freer of its own JPEG marks."""
    smallest = max(height / photo.shape[0], width / photo.shape[1])
    if rng.random() < 0.5 or smallest > 1.0:
        factor = max(smallest, rng.uniform(0.5, 1.0))
        size = (max(width, round(photo.shape[1] * factor)), max(height, round(photo.shape[0] * factor)))
        photo = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC))
    y = rng.randint(0, photo.shape[0] - height)
    x = rng.randint(0, photo.shape[1] - width)
    return photo[y : y + height, x : x + width]


def _turned(picture: NDArray[np.uint8], rng: random.Random) -> NDArray[np.uint8]:
    """One of the eight ways to lay a picture, sometimes without colour."""
    picture = np.rot90(picture, rng.randrange(4))
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    picture = np.ascontiguousarray(picture)
    if rng.random() < GREY_SHARE:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        picture = np.repeat(np.asarray(grey, dtype=np.uint8)[:, :, None], 3, axis=2)
    return picture


def _take(pool: list[Pair], rng: random.Random) -> Pair:
    index = rng.randrange(len(pool))
    pool[index], pool[-1] = pool[-1], pool[index]
    return pool.pop()


def _tensor(picture: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))  # (3, h, w)
