"""The network that is trained: upstream's compact one, small enough for a CPU. It knows nothing of data or files."""

from __future__ import annotations

import torch
from torch import nn

from app.restoration.reference import add_shim
from training.degradation import SCALE

FEATURES = 64
CONVOLUTIONS = 16  # 0.62 million parameters, half of realesr-general-x4v3; trains and runs twice as fast


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
