"""The segmentation network: a U-Net on half-resolution features that gives one logit a pixel: is this damage?

Pixels are packed two by two into channels first and unpacked last, so that nothing is lost and no layer runs at full
size. It runs twice with the same convolutions and other norms: what the first pass found comes back to the finest
features, so that the second can tell a faint continuation of a scratch from an edge of the scene. Plain 3x3
convolutions, batch norm that folds into them, ReLU, nearest enlargement and addition: simple to run.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# Channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the sides; multiples of 32 run nearly twice as fast on CPUs with AMX.
WIDTHS = (64, 64, 96, 96, 128)
PACKED = 2
MULTIPLE: int = PACKED * 2 ** (len(WIDTHS) - 1)  # of which the sides must be
FIRST_OF_LEVEL = re.compile(r"down\.\d+\.layers\.0\.weight")  # (width, inputs, 3, 3), in the order of the levels
_LATER_LEVEL = re.compile(r"down\.([1-9]\d*)\.(.+)")  # the first level is computed once
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
        if self.has_shortcut:
            y += x
        return functional.relu_(y)


def with_own_norms(block: Block) -> Block:
    """A block with the same convolutions, weights shared, and norms of its own that begin as copies."""
    again = copy.deepcopy(block)
    shared = (old if isinstance(old, nn.Conv2d) else new for old, new in zip(block.layers, again.layers, strict=True))
    again.layers = nn.Sequential(*shared)
    return again


class DamageSegmentation(nn.Module):
    """(N, 3, H, W) float RGB in [0, 1], H and W multiples of `MULTIPLE`, to (N, 1, H, W) logits."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        packed = 3 * PACKED**2
        inputs = (packed, *widths[:-1])
        # None around the second level, which had none when the first was half as wide: so it could be widened.
        levels = enumerate(zip(inputs, widths, strict=True))
        down = [Block(*pair, may_shortcut=level != 1) for level, pair in levels]
        self.down = nn.ModuleList(down)
        self.context = Block(widths[-1], widths[-1], dilation=2, count=1)
        pairs = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        self.narrow = nn.ModuleList(nn.Conv2d(deep, shallow, 1) for deep, shallow in pairs)
        up = [Block(shallow, shallow) for _, shallow in pairs]
        self.up = nn.ModuleList(up)
        self.feedback = nn.Conv2d(widths[0], widths[0], 1)
        self.down_again = nn.ModuleList(with_own_norms(block) for block in down[1:])
        self.context_again = with_own_norms(self.context)
        self.up_again = nn.ModuleList(with_own_norms(block) for block in up)
        self.head = nn.Conv2d(widths[0], PACKED**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of damage: (N, 3, H, W) to (N, 1, H, W)."""
        return self._logits(self._features(x)[-1])

    def in_passes(self, x: Tensor) -> list[Tensor]:
        """The logits of each of the two passes, (N, 1, H, W); see `forward`."""
        return [self._logits(found) for found in self._features(x)]

    def _logits(self, features: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.head(features), PACKED)

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What each pass ends with, (N, width, H/2, W/2)."""
        fine = self.down[0](functional.pixel_unshuffle(x - 0.5, PACKED))
        first = self._pass(fine, self.down[1:], self.context, self.up)
        known = functional.relu_(self.feedback(first).add_(fine))
        return first, self._pass(known, self.down_again, self.context_again, self.up_again)

    def _pass(self, fine: Tensor, down: Iterable[nn.Module], context: nn.Module, up: Iterable[nn.Module]) -> Tensor:
        """Down to the coarsest level and up again: (N, width, H/2, W/2) to the same."""
        features: Tensor = fine
        seen = [fine]
        for block in down:
            features = block(functional.max_pool2d(features, 2))
            seen.append(features)
        features = context(features)
        for narrow, block, beside in zip(self.narrow, up, seen[-2::-1], strict=True):
            features = block(functional.interpolate(narrow(features), scale_factor=2, mode="nearest") + beside)
        return features


def make_segmentation(seed: int, widths: Sequence[int] = WIDTHS) -> DamageSegmentation:
    """An untrained network; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DamageSegmentation(widths)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.normal_(network.head.weight, std=0.01)
        nn.init.zeros_(network.feedback.weight)
        nn.init.zeros_(network.feedback.bias)  # type: ignore[arg-type]
    nn.init.constant_(network.head.bias, float(torch.logit(torch.tensor(PRIOR_SHARE))))  # type: ignore[arg-type]
    return network


def with_both_passes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a file holds, by name, and what the second pass shares with the first.

    Of a network of one pass, as earlier versions had, the second pass becomes a repetition that changes nothing.
    Weights are (outputs, inputs, 3, 3) or (outputs, inputs, 1, 1), all else is (outputs,); in fp32 or half of it.
    """
    again = {}
    for name, value in state.items():
        if (level := _LATER_LEVEL.fullmatch(name)) is not None:
            again[f"down_again.{int(level[1]) - 1}.{level[2]}"] = value
        elif name.startswith(("context.", "up.")):
            again[name.replace(".", "_again.", 1)] = value
    if (head := state.get("head.weight")) is not None:
        again["feedback.weight"] = head.new_zeros(head.shape[1], head.shape[1], 1, 1)
        again["feedback.bias"] = head.new_zeros(head.shape[1])
    return {**again, **state}


def without_shared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by name that a file needs, in fp32 or half of it.

    The convolutions of the second pass, (outputs, inputs, 3, 3), are those of the first and left out.
    """
    return {name: value for name, value in state.items() if "_again." not in name or value.ndim != 4}


def load_segmentation(state: Mapping[str, Tensor]) -> DamageSegmentation:
    """A trained network in fp32 from its tensors by name, see `with_both_passes`; its widths are read from them.

    Raises:
        RuntimeError: names or shapes belong to another network.
    """
    widths = [value.shape[0] for name, value in state.items() if FIRST_OF_LEVEL.fullmatch(name)]
    network = DamageSegmentation(widths or WIDTHS)
    network.load_state_dict({name: value.float() for name, value in with_both_passes(state).items()})
    return network.eval()
