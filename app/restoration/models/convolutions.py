"""Which convolutions the rewritten layers of a CPU can take over. It knows nothing of what is done with them."""

from __future__ import annotations

from torch import nn


def is_plain(layer: object) -> bool:
    """Whether a layer is a 3x3 convolution with bias, zero padding of 1, and neither stride, dilation nor groups."""
    if not isinstance(layer, nn.Conv2d) or layer.bias is None or layer.groups != 1 or layer.padding_mode != "zeros":
        return False
    sizes = (layer.kernel_size, layer.padding, layer.stride, layer.dilation)
    return sizes == ((3, 3), (1, 1), (1, 1), (1, 1))
