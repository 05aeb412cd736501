"""The optimizers: Muon (orthogonalized momentum, arXiv:2502.16982) with Adam beside it, and AdamW alone.

A training of some thousand steps stays far from convergence, where Muon gains more a step than Adam alone; see the
model card for the figures. It orthogonalizes in bf16, which a CPU without bf16 emulates: there it took 0.9 of the 1.6 s
of a step of the damage segmentation, for a gain of 2 % of the loss. On a CPU that computes in bf16 it takes 14 ms of 98
instead of 4 of 86; from equal weights, 1,500 steps then ended at a loss of 0.290 instead of 0.293.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Optimizer(Protocol):
    """What a training asks of an optimizer, and what a checkpoint keeps of it."""

    def zero_grad(self) -> None:
        """Forget the gradients."""

    def step(self, rate: float) -> None:
        """Change the weights by their gradients, at this learning rate."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""


class AdamW:
    """torch's AdamW; see `Optimizer`."""

    def __init__(self, network: nn.Module, rate: float) -> None:
        self._adam = torch.optim.AdamW(network.parameters(), rate, betas=(0.9, 0.99))

    def zero_grad(self) -> None:
        """See `Optimizer`."""
        self._adam.zero_grad(set_to_none=True)

    def step(self, rate: float) -> None:
        """See `Optimizer`."""
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """See `Optimizer`."""
        return {"adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Optimizer`."""
        self._adam.load_state_dict(state["adam"])


class MuonWithAdam:
    """Both optimizers as one, for networks with convolutions at both ends; see `Optimizer`.

    `rate` is Adam's learning rate, Muon's updates are scaled to Adam's size.
    """

    def __init__(self, network: nn.Module, rate: float) -> None:
        convolutions = [layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d)]
        self._inner = convolutions[1:-1]
        self._matrices = [nn.Parameter(_matrix(weight.data), requires_grad=True) for weight in self._inner]
        inner = {id(weight) for weight in self._inner}
        rest = [parameter for parameter in network.parameters() if id(parameter) not in inner]
        self._adam = torch.optim.Adam(rest, rate, betas=(0.9, 0.99))
        self._muon = torch.optim.Muon(
            self._matrices, rate, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )

    def zero_grad(self) -> None:
        """See `Optimizer`."""
        self._adam.zero_grad(set_to_none=True)
        for weight in self._inner:
            weight.grad = None

    def step(self, rate: float) -> None:
        """See `Optimizer`."""
        for matrix, weight in zip(self._matrices, self._inner, strict=True):
            matrix.grad = None if weight.grad is None else _matrix(weight.grad)
        for optimizer in (self._adam, self._muon):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """See `Optimizer`."""
        return {"adam": self._adam.state_dict(), "muon": self._muon.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Optimizer`."""
        self._adam.load_state_dict(state["adam"])
        self._muon.load_state_dict(state["muon"])


class OptimizerName(StrEnum):
    """The optimizers by name."""

    ADAMW = "adamw"
    MUON = "muon"


OPTIMIZERS: Mapping[OptimizerName, Callable[[nn.Module, float], Optimizer]] = {
    OptimizerName.ADAMW: AdamW,
    OptimizerName.MUON: MuonWithAdam,
}


def _matrix(weight: Tensor) -> Tensor:
    """A convolution's (out, in, 3, 3) weight or gradient as (out, 9 * in); a view when it lies channels-last."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)
