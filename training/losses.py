"""The loss: the root of each patch's mean squared error, half of it in luma, plus the distance of the spectra.

Luma counts beside the colours because the eye sees it most, and because noise that differs from channel to channel is
mostly colour, and would rule. The root lies between the mean square (strong errors of rich patches rule) and PSNR
itself (flat patches rule), and its best answer to doubt is the mean, which PSNR asks for; Charbonnier
(arXiv:1710.01992) served the first 8,000 steps. It knows nothing of networks or data.
"""

from __future__ import annotations

import torch
from torch import Tensor

from app.restoration.engine import LUMA

EPSILON = 2e-3
SPECTRUM_WEIGHT = 0.05
LUMA_SHARE = 0.5


def root_mean_square(output: Tensor, target: Tensor) -> Tensor:
    """Mean over the patches of sqrt(mean(d^2) + eps^2), d in RGB and in luma; (N, 3, H, W) in [0, 1] to a scalar."""
    difference = output - target
    red, green, blue = difference.unbind(dim=1)  # (N, H, W) each
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    colours = difference.square().mean(dim=(1, 2, 3))  # (N,)
    squares = torch.lerp(colours, luma.square().mean(dim=(1, 2)), LUMA_SHARE)
    return torch.sqrt(squares + EPSILON * EPSILON).mean()


def spectrum(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the orthonormal spectra, which weighs fine detail more than a mean of pixels does."""
    difference = torch.fft.rfft2(output - target, norm="ortho")
    return torch.view_as_real(difference).abs().mean()


def restoration_loss(output: Tensor, target: Tensor) -> Tensor:
    """What is made small; (N, 3, H, W) fp32 in [0, 1] to a scalar."""
    return root_mean_square(output, target) + SPECTRUM_WEIGHT * spectrum(output, target)
