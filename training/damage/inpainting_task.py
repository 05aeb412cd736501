"""What the inpainting network learns: to correct diffusion's fill of a hole towards what stood there, without grain.

The loss has the root of the mean square over all holes of a batch, which is what pooled PSNR asks for, and a little of
the mean difference and of the gradients', which keep edges. The figures are PSNR pooled inside the hole, beside both of
OpenCV's inpainters and the diffusion that is corrected, with the same hole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from app.evaluation.damage.holes import METHODS, FillSample, library_fill
from app.evaluation.damage.pooled import PooledPsnr
from app.evaluation.damage.scans import Mask
from app.restoration.repair.filling import wide_part
from app.restoration.repair.inpainting_network import WIDTHS, make_inpainting
from training.damage.fill_samples import FillSamples, begun_fill
from training.damage.trainer import Batch, Recipe

EPSILON = 2e-3
DIFFERENCE_WEIGHT = 0.2
GRADIENT_WEIGHT = 0.1
CHECKED_SAMPLES = 64
CHECKED_SIDE = 224
CHECKED_SEED = 78


def fill_loss(output: Tensor, target: Tensor, hole: Tensor) -> Tensor:
    """What is made small: (N, 3, H, W) fp32 in [0, 1] twice and the hole (N, 1, H, W) fp32 of 0 and 1, to a scalar."""
    size = hole.sum().clamp_min(1.0) * output.shape[1]
    difference = (output - target) * hole
    root = torch.sqrt(difference.square().sum() / size + EPSILON * EPSILON)
    absolute = difference.abs().sum() / size
    steps = (difference.diff(dim=2).abs().sum() + difference.diff(dim=3).abs().sum()) / size
    return root + DIFFERENCE_WEIGHT * absolute + GRADIENT_WEIGHT * steps


def correct(network: nn.Module, filled: NDArray[np.uint8], hole: Mask, autocast: torch.autocast) -> NDArray[np.uint8]:
    """The network's fill of any size: begun fill (H, W, 3) uint8 and hole (H, W) bool to (H, W, 3) uint8."""
    height, width = hole.shape
    padding = (0, -width % 32, 0, -height % 32)
    x = torch.from_numpy(np.ascontiguousarray(filled.transpose(2, 0, 1)))[None].to(autocast.device).float() / 255.0
    where = torch.from_numpy(hole[None, None]).to(autocast.device).float()
    with torch.inference_mode(), autocast:
        y = network(functional.pad(x, padding, mode="replicate"), functional.pad(where, padding))
    pixels = y[0, :, :height, :width].float().mul(255.0).round().clamp(0, 255).to(torch.uint8)
    return np.where(hole[:, :, None], pixels.permute(1, 2, 0).cpu().numpy(), filled)


class InpaintingTask:
    """See `Task`. A sample is (diffusion's fill (3, s, s) uint8, hole (1, s, s) bool, target (3, s, s) uint8)."""

    recipe = Recipe(
        steps=4_000,
        batch=8,
        side=160,
        learning_rate=4e-4,
        widths=WIDTHS,
        warm_up_steps=150,
        ema_decay=0.998,
    )
    panels: Mapping[str, Sequence[str]] = {
        "training loss": ("loss",),
        "dB inside all holes, held-out photos": ("network_db", "diffusion_db", "navier_stokes_db", "telea_db"),
        "dB inside wide holes": ("network_wide_db", "diffusion_wide_db", "navier_stokes_wide_db", "telea_wide_db"),
    }

    def make_network(self, seed: int, widths: Sequence[int]) -> nn.Module:
        """See `Task`."""
        return make_inpainting(seed, widths)

    def completed(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `Task`."""
        return weights

    def samples(self, paths: Sequence[Path], side: int, seed: int) -> FillSamples:
        """See `Task`."""
        return FillSamples(paths, side, seed)

    def loss(self, network: nn.Module, batch: Batch, autocast: torch.autocast) -> Tensor:
        """See `Task`."""
        filled, hole, target = batch
        x, where = filled.float().div_(255.0).contiguous(memory_format=torch.channels_last), hole.float()
        with autocast:
            output = network(x, where)  # (N, 3, s, s)
        return fill_loss(output.float(), target.float().div_(255.0), where)

    def check(self, network: nn.Module, paths: Sequence[Path], autocast: torch.autocast) -> dict[str, float]:
        """See `Task`. PSNR pooled inside the holes of scans without grain, over all holes and over the wide ones."""
        samples = FillSamples(paths, CHECKED_SIDE, CHECKED_SEED, grain_share=0.0)
        everywhere, wide = PooledPsnr(), PooledPsnr()
        for number in range(CHECKED_SAMPLES):
            sample = samples.sample(number)
            fills = self._fills(network, sample, autocast)
            everywhere.add(fills, sample.target, sample.hole)
            wide.add(fills, sample.target, wide_part(sample.hole))
        figures = {f"{name}_db": value for name, value in everywhere.decibels().items()}
        return figures | {f"{name}_wide_db": value for name, value in wide.decibels().items()}

    def _fills(self, network: nn.Module, sample: FillSample, autocast: torch.autocast) -> dict[str, NDArray[np.uint8]]:
        fills = {name: library_fill(sample.scan, sample.hole, method) for name, method in METHODS.items()}
        begun = begun_fill(sample.scan, sample.hole)
        return {"network": correct(network, begun, sample.hole, autocast), "diffusion": begun, **fills}
