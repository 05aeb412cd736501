"""The segmentation network: a U-Net on half-resolution features that gives one logit a pixel: is this damage?

Pixels are packed two by two into channels first and unpacked last, so that nothing is lost and no layer runs at full
size. Plain 3x3 convolutions, batch norm that folds into them, ReLU, nearest enlargement and addition: simple to run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# Channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the sides; multiples of 32 run nearly twice as fast on CPUs with AMX.
WIDTHS = (64, 64, 96, 96, 128)
PACKED = 2
MULTIPLE: int = PACKED * 2 ** (len(WIDTHS) - 1)  # of which the sides must be
FIRST_OF_LEVEL = re.compile(r"down\.\d+\.layers\.0\.weight")  # (width, inputs, 3, 3), in the order of the levels
MIRRORS: tuple[tuple[int, ...], ...] = ((), (3,), (2,))  # of a picture: as it is, left for right, upside down
PRIOR_SHARE = 0.02  # of damaged pixels: where the untrained network starts


class Block(nn.Module):
    """A number of 3x3 convolutions with batch norm and ReLU, around them a shortcut where the widths agree."""

    def __init__(
        self, inputs: int, outputs: int, dilation: int = 1, count: int = 2, *, may_shortcut: bool = True
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(count):
            channels = inputs if index == 0 else outputs
            layers.append(nn.Conv2d(channels, outputs, 3, padding=dilation, dilation=dilation, bias=False))
            layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*layers[:-1])
        self.has_shortcut = may_shortcut and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h, w)."""
        y = self.layers(x)
        return functional.relu(y + x if self.has_shortcut else y)


class DamageSegmentation(nn.Module):
    """(N, 3, H, W) float RGB in [0, 1], H and W multiples of `MULTIPLE`, to (N, 1, H, W) logits."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        packed = 3 * PACKED**2
        inputs = (packed, *widths[:-1])
        # None around the second level, which had none when the first was half as wide: so it could be widened.
        levels = enumerate(zip(inputs, widths, strict=True))
        self.down = nn.ModuleList(Block(*pair, may_shortcut=level != 1) for level, pair in levels)
        self.context = Block(widths[-1], widths[-1], dilation=2, count=1)
        pairs = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        self.narrow = nn.ModuleList(nn.Conv2d(deep, shallow, 1) for deep, shallow in pairs)
        self.up = nn.ModuleList(Block(shallow, shallow) for _, shallow in pairs)
        self.head = nn.Conv2d(widths[0], PACKED**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of damage: (N, 3, H, W) to (N, 1, H, W)."""
        features = functional.pixel_unshuffle(x - 0.5, PACKED)  # (N, 12, H/2, W/2)
        seen = []
        for index, block in enumerate(self.down):
            features = block(features if index == 0 else functional.max_pool2d(features, 2))
            seen.append(features)
        features = self.context(features)
        for narrow, block, beside in zip(self.narrow, self.up, seen[-2::-1], strict=True):
            features = block(functional.interpolate(narrow(features), scale_factor=2, mode="nearest") + beside)
        return functional.pixel_shuffle(self.head(features), PACKED)


def make_segmentation(seed: int, widths: Sequence[int] = WIDTHS) -> DamageSegmentation:
    """An untrained network; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DamageSegmentation(widths)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.normal_(network.head.weight, std=0.01)
    nn.init.constant_(network.head.bias, float(torch.logit(torch.tensor(PRIOR_SHARE))))  # type: ignore[arg-type]
    return network


def load_segmentation(state: Mapping[str, Tensor]) -> DamageSegmentation:
    """A trained network in fp32 from its tensors by name; its widths are read from them.

    Raises:
        RuntimeError: names or shapes belong to another network.
    """
    widths = [value.shape[0] for name, value in state.items() if FIRST_OF_LEVEL.fullmatch(name)]
    network = DamageSegmentation(widths or WIDTHS)
    network.load_state_dict({name: value.float() for name, value in state.items()})
    return network.eval()


def probabilities(network: nn.Module, scan: Tensor, mirrors: Sequence[tuple[int, ...]] = MIRRORS) -> Tensor:
    """Damage probability of one picture of any size: (1, 3, H, W) float in [0, 1] to (H, W) fp32 in [0, 1].

    It is looked at as it is and mirrored along each of `mirrors`, dimensions of the scan, and the logits are averaged.
    """
    height, width = scan.shape[-2:]
    padding = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
    padded = functional.pad(scan, padding, mode="replicate")
    logits = torch.zeros(padded.shape[-2:], dtype=torch.float32, device=padded.device)  # (H', W')
    for dimensions in mirrors:
        logits += network(padded.flip(dimensions)).flip(dimensions)[0, 0].float()
    return (logits / len(mirrors))[:height, :width].sigmoid()
