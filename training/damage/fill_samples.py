"""What the inpainting network is trained on: holes, begun by diffusion, and what stood there, without grain.

What surrounds the hole has grain in half of the samples, as real scans have.
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

from app.evaluation.damage.holes import FillSample, as_pixels, make_fill_sample
from app.evaluation.damage.scans import Mask, crop
from app.restoration.repair.diffusion_inpainting import diffusion_fill
from training.photos import read_rgb

GRAIN_SHARE = 0.5


def begun_fill(scan: NDArray[np.uint8], hole: Mask) -> NDArray[np.uint8]:
    """What the network is to correct: diffusion's fill of a hole, (H, W) bool, in a scan, (H, W, 3) uint8."""
    return as_pixels(diffusion_fill(scan.astype(np.float32) / np.float32(255.0), hole))


class FillSamples(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """(diffusion's fill (3, s, s) uint8, hole (1, s, s) bool, target (3, s, s) uint8) by number, without end."""

    def __init__(self, paths: Sequence[Path], side: int, seed: int, grain_share: float = GRAIN_SHARE) -> None:
        self._paths, self._side, self._seed, self._grain_share = list(paths), side, seed, grain_share
        self._photos: list[NDArray[np.uint8]] = []

    def sample(self, index: int) -> FillSample:
        """The sample of this number; equal seeds and numbers give equal samples."""
        if not self._photos:  # read in the loader's process
            cv2.setNumThreads(1)
            self._photos = [read_rgb(path) for path in self._paths]
        rng = np.random.default_rng([self._seed, index])
        picture = crop(self._photos[int(rng.integers(len(self._photos)))], self._side, rng)
        return make_fill_sample(picture, rng, bool(rng.random() < self._grain_share))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """See `sample`."""
        sample = self.sample(index)
        filled, target = (
            torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))  # (3, s, s)
            for pixels in (begun_fill(sample.scan, sample.hole), sample.target)
        )
        return filled, torch.from_numpy(sample.hole[None]), target
