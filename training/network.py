"""The network that is trained: upstream's compact one, small enough for a CPU, and how a trained one is made deeper.

It knows nothing of data or files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from app.restoration.reference.packages import add_shim
from training.degradation import SCALE

FEATURES = 64
CONVOLUTIONS = 24  # 0.92 million parameters, three quarters of realesr-general-x4v3 and of its time


def make_network(seed: int, features: int = FEATURES, convolutions: int = CONVOLUTIONS) -> nn.Module:
    """An untrained `SRVGGNetCompact` (Real-ESRGAN, `srvgg_arch.py`): (N, 3, H, W) in [0, 1] to (N, 3, 4H, 4W), RGB.

    The last convolution starts small, so that the first output is the nearest-neighbour picture and not noise.
    """
    add_shim()
    from basicsr.archs.srvgg_arch import SRVGGNetCompact

    torch.manual_seed(seed)
    network: nn.Module = SRVGGNetCompact(3, 3, features, convolutions, SCALE, "prelu")
    convolution_layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    for layer in convolution_layers[:-1]:
        nn.init.kaiming_normal_(layer.weight, a=0.25)  # PReLU starts with a slope of 0.25
        nn.init.zeros_(layer.bias) if layer.bias is not None else None
    with torch.no_grad():
        convolution_layers[-1].weight.mul_(0.1)
    return network


def count_convolutions(weights: dict[str, Tensor]) -> int:
    """How many inner convolutions weights with upstream's names (`body.0.weight`, ...) have."""
    return sum(name.endswith(".weight") and value.dim() == 4 for name, value in weights.items()) - 2


def deepened(weights: dict[str, Tensor], convolutions: int) -> dict[str, Tensor]:
    """The same function with more inner convolutions, spread evenly (Net2DeeperNet, arXiv:1511.05641).

    What is put in passes its input on unchanged: an identity kernel, and an activation whose slope is 1.

    Raises:
        ValueError: the weights have more convolutions than are asked for.
    """
    old = count_convolutions(weights)
    if old > convolutions:
        raise ValueError(f"These weights have {old} convolutions; ask for at least as many, not for {convolutions}.")
    kept = {1 + round(index * convolutions / old) for index in range(old)}
    grown: dict[str, Tensor] = {}
    source = 0
    for target in range(convolutions + 1):
        if target == 0 or target in kept:
            grown |= {
                f"body.{2 * target + part}.{name}": weights[f"body.{2 * source + part}.{name}"]
                for part, name in ((0, "weight"), (0, "bias"), (1, "weight"))
            }
            source += 1
        else:
            grown |= _identity(f"body.{2 * target}", f"body.{2 * target + 1}", weights["body.0.bias"])
    last = 2 * (convolutions + 1)
    return grown | {f"body.{last}.{name}": weights[f"body.{2 * source}.{name}"] for name in ("weight", "bias")}


def _identity(convolution: str, activation: str, like: Tensor) -> dict[str, Tensor]:
    kernel = nn.init.dirac_(like.new_zeros(like.numel(), like.numel(), 3, 3))
    return {
        f"{convolution}.weight": kernel,
        f"{convolution}.bias": torch.zeros_like(like),
        f"{activation}.weight": torch.ones_like(like),
    }
