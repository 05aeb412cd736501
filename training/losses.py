"""The loss: Charbonnier on pixels plus the distance of the spectra. It knows nothing of networks or data."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-3
SPECTRUM_WEIGHT = 0.05


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """Mean of sqrt(d^2 + eps^2) (arXiv:1710.01992); (N, 3, H, W) in [0, 1] to a scalar."""
    return torch.sqrt((output - target).square() + EPSILON * EPSILON).mean()


def spectrum(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the orthonormal spectra, which weighs fine detail more than a mean of pixels does."""
    difference = torch.fft.rfft2(output - target, norm="ortho")
    return torch.view_as_real(difference).abs().mean()


def restoration_loss(output: Tensor, target: Tensor) -> Tensor:
    """What is made small; (N, 3, H, W) fp32 in [0, 1] to a scalar."""
    return charbonnier(output, target) + SPECTRUM_WEIGHT * spectrum(output, target)
