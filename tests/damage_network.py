"""Networks of repair whose weights are written by hand, so that tests know what they mark: pure white is damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from app.restoration.models.weights import SEGMENTATION_FILE
from app.restoration.repair.segmentation_network import DamageSegmentation

_STEEPNESS = 60.0
_LIMIT = 0.97  # of white


def white_is_damage() -> DamageSegmentation:
    """Logits over 0 where red, green and blue are nearly white, far below elsewhere; nothing else is looked at."""
    network = DamageSegmentation((12, 8, 8, 8, 8)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        first_level: Any = network.down[0]
        first_level.layers[-1].bias.fill_(0.5)  # the shortcut from [-0.5, 0.5] to [0, 1]
        for place in range(4):  # of the pixels that were packed
            network.head.weight[place, place::4, 1, 1] = _STEEPNESS
        network.head.bias = torch.nn.Parameter(torch.full((4,), -3 * _LIMIT * _STEEPNESS))
    return network


def install(folder: Path) -> Path:
    """The network as the file that ships, in a weights folder, where it is taken first."""
    state = {name: value.half() if value.ndim == 4 else value for name, value in white_is_damage().state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, str(folder / SEGMENTATION_FILE))
    return folder / SEGMENTATION_FILE
