"""The inpainting network: a U-Net that corrects what diffusion has filled into a wide hole.

It begins as the fill that it gets (its last layer starts at zero) and learns what to add, so that it starts where a
network from nothing has to get to first. No batch norm: statistics of a batch shift colours. Pixels are packed four by
four: what can be guessed about a wide hole is smooth, and a step costs a third of what two by two costs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (64, 96, 112, 128)  # channels at 1/4 to 1/32 of the sides
PACKED = 4
MULTIPLE = 32  # of the sides of what it is given
FIRST_OF_LEVEL = re.compile(r"down\.\d+\.first\.weight")  # (width, inputs, 3, 3), in the order of the levels


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which a 1x1 convolution widens where the widths differ.

    Nothing is cut off behind the sum: with a ReLU there, or before the head, the last features of two trainings all
    became zero within some hundred steps, from which nothing comes back.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=dilation, dilation=dilation)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h, w)."""
        y: Tensor = self.second(functional.relu(self.first(functional.relu(x)))) + self.shortcut(x)
        return y


class FillCorrection(nn.Module):
    """A filled picture, (N, 3, H, W) float RGB in [0, 1], and the hole, (N, 1, H, W) of 0 and 1, to a better fill.

    Sides are multiples of `MULTIPLE`. Outside the hole nothing changes.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        inputs = (widths[0], *widths[:-1])
        self.stem = nn.Conv2d(4 * PACKED**2, widths[0], 1)
        self.down = nn.ModuleList(ResidualBlock(before, width) for before, width in zip(inputs, widths, strict=True))
        self.context = ResidualBlock(widths[-1], widths[-1], dilation=2)
        pairs = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        self.narrow = nn.ModuleList(nn.Conv2d(deep, shallow, 1) for deep, shallow in pairs)
        self.up = nn.ModuleList(ResidualBlock(shallow, shallow) for _, shallow in pairs)
        self.head = nn.Conv2d(widths[0], 3 * PACKED**2, 3, padding=1)

    def forward(self, filled: Tensor, hole: Tensor) -> Tensor:
        """(N, 3, H, W) and (N, 1, H, W) to (N, 3, H, W) fp32, not cut to [0, 1]."""
        packed = functional.pixel_unshuffle(torch.cat([filled - 0.5, hole - 0.5], dim=1), PACKED)  # (N, 64, H/4, W/4)
        x = self.stem(packed.to(self.stem.weight))
        seen = []
        for index, block in enumerate(self.down):
            x = block(x if index == 0 else functional.max_pool2d(x, 2))
            seen.append(x)
        x = self.context(x)
        for narrow, block, beside in zip(self.narrow, self.up, seen[-2::-1], strict=True):
            x = block(functional.interpolate(narrow(x), scale_factor=2, mode="nearest") + beside)
        correction = functional.pixel_shuffle(self.head(x), PACKED)  # (N, 3, H, W)
        return filled + hole * correction.float()


def make_inpainting(seed: int, widths: Sequence[int] = WIDTHS) -> FillCorrection:
    """An untrained network, which gives back what it gets; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FillCorrection(widths)
        for block in network.modules():
            if isinstance(block, ResidualBlock):
                nn.init.kaiming_normal_(block.first.weight, nonlinearity="relu")
                nn.init.kaiming_normal_(block.second.weight, nonlinearity="relu")
                with torch.no_grad():
                    block.second.weight.mul_(0.3)  # without batch norm the shortcuts carry the signal at first
    nn.init.zeros_(network.head.weight)
    nn.init.zeros_(network.head.bias)  # type: ignore[arg-type]
    return network


def load_inpainting(state: Mapping[str, Tensor]) -> FillCorrection:
    """A trained network in fp32 from its tensors by name; its widths are read from them.

    Raises:
        RuntimeError: names or shapes belong to another network.
    """
    widths = [value.shape[0] for name, value in state.items() if FIRST_OF_LEVEL.fullmatch(name)]
    network = FillCorrection(widths or WIDTHS)
    network.load_state_dict({name: value.float() for name, value in state.items()})
    return network.eval()
