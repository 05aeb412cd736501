"""Holes to fill: aged photos with the shape of drawn damage cut out, and what stood there, without grain.

Grain cannot be guessed, so a target with grain bounds every method and blurs a network; the service puts grain back
after filling. What surrounds the hole has grain in half of the samples, as real scans have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from app.restoration.repair.diffusion_inpainting import diffusion_fill
from training.damage.ageing import choose_scan, make_print
from training.damage.kinds import TRAINED, DamageKind
from training.damage.layers import Rng, Unit
from training.damage.samples import Mask, apply_damage, crop
from training.photos import read_rgb

GRAIN_SHARE = 0.5
LARGEST_SHARE = 0.3  # of a picture that is cut out; damage beyond it is left out
INPAINT_RADIUS = 3  # pixels
WIDE_PIXELS = 6  # holes wider than this are measured by themselves
SHARES: dict[DamageKind, float] = {
    DamageKind.WIDE_CRACK: 0.46,  # wide holes are the network's; thin ones surround them
    DamageKind.BLOTCH: 0.24,
    DamageKind.CRACK: 0.06,
    DamageKind.CREASE: 0.06,
    DamageKind.SCRATCH: 0.04,
    DamageKind.DUST: 0.04,
    DamageKind.BORDER: 0.05,
    DamageKind.CORNER: 0.05,
}


@dataclasses.dataclass(frozen=True)
class FillSample:
    """A scan with damage, (H, W, 3) uint8 RGB, the hole over the damage, (H, W) bool, and the target without grain."""

    scan: NDArray[np.uint8]
    hole: Mask
    target: NDArray[np.uint8]


def library_fill(scan: NDArray[np.uint8], hole: Mask, method: int = cv2.INPAINT_NS) -> NDArray[np.uint8]:
    """OpenCV's fill (Navier-Stokes or Telea) of a hole, (H, W) bool, in a scan, (H, W, 3) uint8."""
    return np.asarray(cv2.inpaint(scan, hole.astype(np.uint8), INPAINT_RADIUS, method), dtype=np.uint8)


def begun_fill(scan: NDArray[np.uint8], hole: Mask) -> NDArray[np.uint8]:
    """What the network is to correct: diffusion's fill of a hole, (H, W) bool, in a scan, (H, W, 3) uint8."""
    return _as_pixels(diffusion_fill(scan.astype(np.float32) / np.float32(255.0), hole))


def wide_part(hole: Mask) -> Mask:
    """Where a hole, (H, W) bool, is wider than `WIDE_PIXELS` in every direction."""
    side = WIDE_PIXELS + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.morphologyEx(hole.astype(np.uint8), cv2.MORPH_OPEN, disc), dtype=np.bool_)


def make_fill_sample(scene: Unit, rng: Rng, with_grain: bool) -> FillSample:
    """Age a picture, (H, W, 3) float32 in [0, 1], and cut out one to three kinds of damage with a margin."""
    plain, canvas = make_print(scene, rng, with_grain=False)
    scan = choose_scan(rng)
    target = scan.see(plain)
    damaged, hole = plain, np.zeros(canvas.shape, np.bool_)
    for kind in rng.choice(np.array(list(SHARES)), int(rng.integers(1, 4)), p=list(SHARES.values())):
        after, drawn = apply_damage(damaged, TRAINED[DamageKind(kind)](canvas, rng))
        if (hole | drawn).mean() < LARGEST_SHARE:
            damaged, hole = after, hole | drawn
    margin = int(rng.integers(1, 4))  # what a segmentation marks reaches a little over the damage
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    hole = np.asarray(cv2.dilate(hole.astype(np.uint8), disc), dtype=np.bool_)
    noisy = dataclasses.replace(scan, noise=float(rng.uniform(0.005, 0.05))) if with_grain else scan
    stored = noisy.store(scan.see(damaged), rng) if with_grain else _as_pixels(scan.see(damaged))
    return FillSample(stored, hole, _as_pixels(target))


def _as_pixels(picture: Unit) -> NDArray[np.uint8]:
    return np.asarray(np.rint(picture * 255.0), dtype=np.uint8)


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
