"""A segmentation network made by hand that takes what is nearly white for damage: tests know what it must find."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from app.restoration.models.weights import SEGMENTATION_FILE
from app.restoration.repair.segmentation_network import PACKED, DamageSegmentation

_WIDTHS = (8, 8, 8, 8, 8)
# Probability of a grey of 1.0: 0.98, of 0.95: 0.88, of 0.9: 0.5, of 0.8: 0.02.
_SLOPE, _HALF = 40.0, 0.9


def put_white_finder(folder: Path) -> None:
    """Write the network's file into a weights folder."""
    network = DamageSegmentation(_WIDTHS)
    pixels = PACKED**2
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 4 or parameter.ndim == 1:
                parameter.zero_()
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.fill_(1.0)
        first, second = network.down[0].layers[0], network.down[0].layers[3]  # type: ignore[index,union-attr]
        for pixel in range(pixels):  # the grey of each of the packed pixels, over one half
            first.weight[pixel, pixel::pixels, 1, 1] = 1.0 / 3.0
            second.weight[pixel, pixel, 1, 1] = 1.0
            network.head.weight[pixel, pixel, 1, 1] = _SLOPE
        network.head.bias.fill_(-_SLOPE * (_HALF - 0.5))
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / SEGMENTATION_FILE)
