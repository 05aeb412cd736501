"""What the segmentation network learns: to mark drawn damage on old prints, and nothing on undamaged ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from app.evaluation.damage.agreement import Agreement, agreement
from app.restoration.repair.segmentation_network import WIDTHS, make_segmentation, with_both_passes
from training.damage.finder import Finder
from training.damage.losses import segmentation_loss
from training.damage.samples import Samples
from training.damage.trainer import Batch, Recipe

CHECKED_SAMPLES = 96
CHECKED_SIDE = 224
CHECKED_SEED = 77
THRESHOLD = 0.5
FIRST_PASS_WEIGHT = 0.25  # of its loss: what comes back to the second pass then is what was found


class SegmentationTask:
    """See `Task`. A sample is (scan (3, s, s) uint8, mask (1, s, s) bool, unsure (1, s, s) bool)."""

    recipe = Recipe(steps=40_000, batch=8, side=224, learning_rate=2e-3, widths=WIDTHS)
    panels: Mapping[str, Sequence[str]] = {
        "training loss": ("loss",),
        "held-out photos": ("f1", "precision", "recall"),
        "marked of undamaged, %": ("undamaged_mean_percent", "undamaged_worst_percent"),
    }

    def make_network(self, seed: int, widths: Sequence[int]) -> nn.Module:
        """See `Task`."""
        return make_segmentation(seed, widths)

    def completed(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `Task`."""
        return with_both_passes(weights)

    def samples(self, paths: Sequence[Path], side: int, seed: int) -> Samples:
        """See `Task`."""
        return Samples(paths, side, seed)

    def loss(self, network: nn.Module, batch: Batch, autocast: torch.autocast) -> Tensor:
        """See `Task`."""
        scans, mask, unsure = batch
        x = scans.float().div_(255.0).contiguous(memory_format=torch.channels_last)
        with autocast:
            passes: Any = network.in_passes(x)  # type: ignore[operator]  # two of (N, 1, s, s)
        first, second = (segmentation_loss(logits.float(), mask, unsure) for logits in passes)
        return second + FIRST_PASS_WEIGHT * first

    def check(self, network: nn.Module, paths: Sequence[Path], autocast: torch.autocast) -> dict[str, float]:
        """See `Task`. With the trained kinds of damage; `training.damage.evaluate` measures thoroughly."""
        finder, samples = Finder(network, autocast), Samples(paths, CHECKED_SIDE, CHECKED_SEED)
        total, undamaged = Agreement(), []
        for number in range(CHECKED_SAMPLES):
            sample = samples.sample(number)
            marked = finder.mark(finder(sample.scan), THRESHOLD)
            total += agreement(marked, sample.mask, sample.unsure)
            if not sample.mask.any():
                undamaged.append(100.0 * float(marked.mean()))
        figures: dict[str, Any] = {"f1": total.f1, "precision": total.precision, "recall": total.recall}
        figures["undamaged_mean_percent"] = np.mean(undamaged or [0.0])
        figures["undamaged_worst_percent"] = max(undamaged, default=0.0)
        return {name: float(value) for name, value in figures.items()}
