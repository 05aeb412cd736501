"""Nearest enlargement by two and the 3x3 convolution behind it as one, at the small size: 4 of 9 of the work.

The four output pixels that come from one input pixel see it and its neighbours through kernels of two by two, whose
taps are sums of the original ones (sub-pixel decomposition, arXiv:1609.07009).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def fuse_upsample_convolutions(layers: list[Any]) -> list[nn.Module]:
    """Replace each nearest enlargement by two and its 3x3 convolution by an `UpsampleConv`; the other layers stay.

    Args:
        layers: modules that run one after another, (N, C, H, W) to (N, C', s*H, s*W).
    """
    fused: list[nn.Module] = []
    for layer in layers:
        if fused and _is_nearest_by_two(fused[-1]) and is_plain(layer):
            fused[-1] = UpsampleConv(layer)
        else:
            fused.append(layer)
    return fused


class UpsampleConv(nn.Module):
    """(N, C, H, W) to (N, O, 2H, 2W): what `convolution(nearest(x, 2))` gives, up to rounding."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        assert convolution.bias is not None
        weight = convolution.weight.detach()
        phases = [_merge_taps(_merge_taps(weight, down).mT, right).mT for down in (0, 1) for right in (0, 1)]
        self.weight = nn.Parameter(torch.cat(phases), requires_grad=False)  # (4 * O, C, 2, 2)
        self.bias = nn.Parameter(convolution.bias.detach().repeat(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, O, 2H, 2W), any float dtype of the weights."""
        photos, _, height, width = x.shape
        made = functional.conv2d(x, self.weight, self.bias, padding=1)  # (N, 4 * O, H + 1, W + 1)
        wide = made.shape[1] // 4
        made = made.permute(0, 2, 3, 1).reshape(photos, height + 1, width + 1, 4, wide)  # four phases, channels last
        enlarged = made.new_empty((photos, height, 2, width, 2, wide))  # rows and columns of each input pixel apart
        for down in (0, 1):
            for right in (0, 1):
                piece = made[:, down : down + height, right : right + width, 2 * down + right]
                enlarged[:, :, down, :, right] = piece
        rows: Tensor = enlarged.view(photos, 2 * height, 2 * width, wide)  # (N, 2H, 2W, O)
        return rows.permute(0, 3, 1, 2)  # (N, O, 2H, 2W), channels-last in memory


def _merge_taps(weight: Tensor, down: int) -> Tensor:
    """Three rows of taps as the two that the upper (0) or lower (1) output pixel has; (O, C, 3, k) to (O, C, 2, k)."""
    above, middle, below = weight.unbind(2)
    return torch.stack((above + middle, below) if down else (above, middle + below), 2)


def _is_nearest_by_two(layer: Any) -> bool:
    return isinstance(layer, nn.Upsample) and layer.mode == "nearest" and layer.scale_factor in (2, 2.0)


def is_plain(layer: object) -> bool:
    """Whether a layer is a 3x3 convolution with bias, zero padding of 1, and neither stride, dilation nor groups."""
    if not isinstance(layer, nn.Conv2d) or layer.bias is None or layer.groups != 1 or layer.padding_mode != "zeros":
        return False
    sizes = (layer.kernel_size, layer.padding, layer.stride, layer.dilation)
    return sizes == ((3, 3), (1, 1), (1, 1), (1, 1))
