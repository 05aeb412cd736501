"""All of a training in one file: network, averaged network, optimizer, step, seconds and recipe; it goes on exactly."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from training.optimizer import Optimizer


class Resumable(Protocol):
    """What a checkpoint holds of a trainer; `recipe` is a dataclass."""

    network: nn.Module
    average: AveragedModel
    step: int
    seconds: float
    recipe: Any

    @property
    def optimizer(self) -> Optimizer:
        """What has changed the weights."""


def save(trainer: Resumable, path: Path) -> None:
    """Write all of it aside and rename it, so that a stopped training finds a whole file."""
    state = {
        "network": trainer.network.state_dict(),
        "average": trainer.average.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "step": trainer.step,
        "seconds": trainer.seconds,
        "recipe": {name: _plain(value) for name, value in dataclasses.asdict(trainer.recipe).items()},
    }
    aside = path.with_suffix(".part")
    torch.save(state, aside)
    aside.replace(path)


def _plain(value: object) -> object:
    """A name of an enum as its string: only plain values are read back from a file."""
    return value.value if isinstance(value, StrEnum) else value


def resume(trainer: Resumable, path: Path, device: str) -> dict[str, Any]:
    """Bring a trainer to where a checkpoint stands; returns the checkpoint's recipe, which is not taken over.

    Raises `FileNotFoundError`, or what torch raises for a file that is none or of other shapes.
    """
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    trainer.network.load_state_dict(state["network"])
    trainer.average.load_state_dict(state["average"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.step, trainer.seconds = int(state["step"]), float(state["seconds"])
    recipe: dict[str, Any] = state["recipe"]
    return recipe
