"""How well repair works on clean photos: what it finds of drawn damage, what it fills, and what it leaves alone.

Detection and filling are measured apart and together: marks against drawn damage by kind; fills of exactly known holes
beside OpenCV's two inpainters and beside nothing, on targets without grain; the damaged photo before and after both;
and the marks on the photos as they are, which should be none.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from app.errors import Cancelled
from app.evaluation.damage.agreement import TOLERANCE, Agreement, agreement
from app.evaluation.damage.holes import METHODS, FillSample, library_fill
from app.evaluation.damage.kinds import DamageKind
from app.evaluation.damage.pooled import PooledPsnr, PooledSsim
from app.evaluation.damage.scans import Mask, Sample
from app.evaluation.damage.trials import KINDS, damaged_samples, hole_samples
from app.options import Repair
from app.restoration.repair.detection import find_damage
from app.restoration.repair.filling import fill, wide_part
from app.restoration.repair.halo import with_halo
from app.restoration.repair.inpainting_network import FillCorrection
from app.restoration.repair.mask import THRESHOLDS, make_mask
from app.restoration.repair.repair import RepairNetworks

Rgb = NDArray[np.uint8]  # (H, W, 3)
OnStep = Callable[[float, str], bool]  # (share done in [0, 1], words); False: stop

HOLES_A_SAMPLE = 5  # of a kind's samples; holes hold one to three kinds each
WITHOUT_GRAIN, WITH_GRAIN, NOTHING = "repair", "repair, grain put back", "nothing"
PARTS = ("all", "thin", "wide")


@dataclasses.dataclass(frozen=True)
class Example:
    """One damaged photo to look at: (H, W, 3) uint8 each, and what was drawn and marked, (H, W) bool."""

    kind: DamageKind
    scan: Rgb
    drawn: Mask
    marked: Mask
    filled: Rgb
    clean: Rgb


class DamageMeasurement:
    """One run; its fields fill as it goes."""

    def __init__(self, networks: RepairNetworks, photos: Mapping[str, Rgb], samples: int, on_step: OnStep) -> None:
        self._networks, self._photos, self._samples, self._on_step = networks, dict(photos), samples, on_step
        self.found: dict[Repair, dict[DamageKind, Agreement]] = {mode: {} for mode in THRESHOLDS}
        self.psnr = {part: PooledPsnr() for part in PARTS}
        self.ssim = {part: PooledSsim() for part in PARTS}
        self.repaired: dict[DamageKind, PooledPsnr] = {}
        self.repaired_all, self.repaired_where_drawn = PooledPsnr(), PooledPsnr()
        self.changed_outside = 0  # pixels; more than none is a fault
        self.undamaged: dict[Repair, dict[str, float]] = {mode: {} for mode in THRESHOLDS}  # photo -> share marked
        self.filled: dict[Repair, dict[str, float]] = {mode: {} for mode in THRESHOLDS}  # the same with the rims
        self.examples: list[Example] = []

    def run(self) -> None:
        """Measure everything. Raises `Cancelled` when told to stop."""
        pictures = list(self._photos.values())
        for number, kind in enumerate(KINDS):
            self._say(0.6 * number / len(KINDS), f"finding and filling {kind.value.replace('_', ' ')}")
            for sample in damaged_samples(pictures, kind, self._samples):
                self._damaged(kind, sample)
        count = HOLES_A_SAMPLE * self._samples
        for number, hole in enumerate(hole_samples(pictures, count)):
            self._say(0.6 + 0.2 * number / count, "filling holes that are known")
            self._hole(hole)
        for number, (name, photo) in enumerate(self._photos.items()):
            self._say(0.8 + 0.2 * number / len(self._photos), f"looking for damage in {name}, which has none")
            probability = find_damage(self._networks.segmentation, photo, lambda fraction: True)
            for mode, threshold in THRESHOLDS.items():
                marked = make_mask(probability, threshold)
                self.undamaged[mode][name] = float(marked.mean())
                self.filled[mode][name] = float(with_halo(photo, marked).mean())

    def _say(self, share: float, words: str) -> None:
        if not self._on_step(share, words):
            raise Cancelled

    def _damaged(self, kind: DamageKind, sample: Sample) -> None:
        """Find and fill the damage of one sample."""
        probability = find_damage(self._networks.segmentation, sample.scan, lambda fraction: True)
        for mode, threshold in THRESHOLDS.items():
            counted = agreement(make_mask(probability, threshold), sample.mask, sample.unsure)
            self.found[mode][kind] = self.found[mode].get(kind, Agreement()) + counted
        marked = make_mask(probability, THRESHOLDS[Repair.AUTO])
        covered = with_halo(sample.scan, marked)
        filled = _filled(sample.scan, covered, self._networks.inpainting)
        self._count_outside(sample.scan, filled, covered)
        clean = sample.undamaged
        assert clean is not None  # `damaged_samples` keeps it
        both = {"before": sample.scan, "after": filled}
        everywhere, drawn = np.ones_like(marked), _grown(sample.mask)
        self.repaired.setdefault(kind, PooledPsnr()).add(both, clean, everywhere)
        self.repaired_all.add(both, clean, everywhere)
        self.repaired_where_drawn.add(both, clean, drawn)
        if all(example.kind is not kind for example in self.examples):
            self.examples.append(Example(kind, sample.scan, sample.mask, marked, filled, clean))

    def _hole(self, sample: FillSample) -> None:
        """Fill one known hole in every way."""
        if not sample.hole.any():
            return
        network = self._networks.inpainting
        fills: dict[str, Rgb] = {
            WITHOUT_GRAIN: _filled(sample.scan, sample.hole, network, with_grain=False),
            WITH_GRAIN: _filled(sample.scan, sample.hole, network),
            **{name: library_fill(sample.scan, sample.hole, method) for name, method in METHODS.items()},
            NOTHING: sample.scan,
        }
        for name in (WITHOUT_GRAIN, WITH_GRAIN):
            self._count_outside(sample.scan, fills[name], sample.hole)
        wide = wide_part(sample.hole)
        maps = {name: ssim_map(each, sample.target) for name, each in fills.items()}
        for part, where in zip(PARTS, (sample.hole, sample.hole & ~wide, wide), strict=True):
            self.psnr[part].add(fills, sample.target, where)
            self.ssim[part].add(maps, where)

    def _count_outside(self, before: Rgb, after: Rgb, mask: Mask) -> None:
        self.changed_outside += int(((before != after).any(axis=2) & ~mask).sum())


def together(found: Mapping[DamageKind, Agreement], kinds: Sequence[DamageKind]) -> Agreement:
    """The kinds as one."""
    return sum((found[kind] for kind in kinds if kind in found), Agreement())


def ssim_map(picture: Rgb, target: Rgb) -> NDArray[np.float64]:
    """SSIM at each pixel, (H, W), mean of the channels; the window of the reports, Gaussian of sigma 1.5."""
    _, full = structural_similarity(
        picture, target, channel_axis=2, data_range=255, gaussian_weights=True, use_sample_covariance=False, full=True
    )
    return np.asarray(full.mean(axis=2), dtype=np.float64)


def gain(figures: Mapping[str, float]) -> float:
    """Decibels that `after` is nearer than `before`; nan where nothing was compared."""
    return figures["after"] - figures["before"] if figures else math.nan


def _filled(scan: Rgb, mask: Mask, network: FillCorrection | None, *, with_grain: bool = True) -> Rgb:
    return np.asarray(fill(scan, mask, network, with_grain=with_grain), dtype=np.uint8)


def _grown(mask: Mask) -> Mask:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * TOLERANCE + 1,) * 2)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc), dtype=np.bool_)
