"""Training of either network: AdamW or Muon, warm-up and cosine, averaged weights, checkpoints to go on from, a log.

What is learned is a `Task`: a network, samples, a loss and figures. A batch hangs on its step alone, so a resumed
training sees what an uninterrupted one sees.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

from training import checkpoints, run_log
from training.averaging import exponential_mean
from training.optimizer import OPTIMIZERS, OptimizerName
from training.photos import split

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
SAY_EVERY = 100  # steps

_log = logging.getLogger(__name__)

Batch = Sequence[Tensor]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that decides what comes out, beside the task, the photos and the drawing."""

    steps: int
    batch: int
    side: int
    learning_rate: float
    widths: tuple[int, ...]
    warm_up_steps: int = 500
    ema_decay: float = 0.999
    clip_norm: float = 1.0
    seed: int = 20261125
    optimizer: OptimizerName = OptimizerName.ADAMW
    started_from: str = ""  # the training whose weights this one began with

    def rate(self, step: int) -> float:
        """The learning rate: linear warm-up, then half a cosine down to a hundredth."""
        if step < self.warm_up_steps:
            return self.learning_rate * (step + 1) / self.warm_up_steps
        done = (step - self.warm_up_steps) / max(1, self.steps - self.warm_up_steps)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done))))


class Task(Protocol):
    """What one of the networks learns."""

    recipe: Recipe  # the usual one
    panels: Mapping[str, Sequence[str]]  # of the curve: label -> columns of the log, `loss` and what `check` gives

    def make_network(self, seed: int, widths: Sequence[int]) -> nn.Module:
        """An untrained network; equal arguments give equal weights."""

    def completed(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The weights of an earlier network by name, with what such a network did not have yet."""

    def samples(self, paths: Sequence[Path], side: int, seed: int) -> Dataset[Any]:
        """Samples by number, without end: tuples of tensors (C, side, side), which are batched."""

    def loss(self, network: nn.Module, batch: Batch, autocast: torch.autocast) -> Tensor:
        """A scalar from a batch on the network's device; the network runs within `autocast`, the loss in fp32."""

    def check(self, network: nn.Module, paths: Sequence[Path], autocast: torch.autocast) -> dict[str, float]:
        """Figures of the averaged network on photos that it is not trained on."""


class Trainer:
    """A network, its average and its optimizer, and how they are saved and taken up again."""

    def __init__(self, task: Task, recipe: Recipe, device: str, precision: str) -> None:
        self.task, self.recipe, self.device = task, recipe, device
        dtype = PRECISIONS[precision]
        self.autocast = torch.autocast(device, dtype, enabled=dtype is not torch.float32)
        self.network = task.make_network(recipe.seed, recipe.widths).to(device).to(memory_format=torch.channels_last)
        mean = exponential_mean(recipe.ema_decay)
        self.average = AveragedModel(self.network, multi_avg_fn=mean, use_buffers=True).eval()
        self.optimizer = OPTIMIZERS[recipe.optimizer](self.network, recipe.learning_rate)
        self.step = 0
        self.seconds = 0.0

    def advance(self, batch: Batch) -> float:
        """One step on a batch of the task's samples, (N, C, s, s) each; returns the loss."""
        self.optimizer.zero_grad()
        loss = self.task.loss(self.network, [part.to(self.device) for part in batch], self.autocast)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.optimizer.step(self.recipe.rate(self.step))
        self.average.update_parameters(self.network)
        self.step += 1
        return float(loss.detach())

    def save(self, path: Path) -> None:
        """All of it into one file, written aside and renamed."""
        checkpoints.save(self, path)

    def resume(self, path: Path) -> None:
        """Go on where a checkpoint stands; the number of steps and the rate may have been changed meanwhile."""
        before = checkpoints.resume(self, path, self.device)
        self.recipe = dataclasses.replace(self.recipe, started_from=before.get("started_from", ""))

    def start_from(self, path: Path) -> None:
        """Begin at step 0 with the weights of an exported network, as wide or narrower (`training.damage.export`)."""
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
            facts = file.metadata() or {}
        for network in (self.network, self.average.module):
            network.load_state_dict(widened(self.task.completed(weights), network.state_dict()))
        before = json.loads(facts.get("recipe", "{}")).get("started_from", "")
        steps = f"{facts.get('steps', '?')} steps, {facts.get('hours', '?')} h"
        self.recipe = dataclasses.replace(self.recipe, started_from=f"{before} + {steps}" if before else steps)


def widened(weights: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a narrower network within those of a wider one, which then computes the same.

    Args:
        weights: of the narrower network, by name.
        fresh: of the wider one, untrained, by the same names.

    Returns:
        Tensors of the shapes of `fresh`. New channels keep their untrained weights, and nothing that was there reads
        them yet (Net2Net, arXiv:1511.05641, without its copies).
    """
    grown = {}
    for name, old in weights.items():
        new = fresh[name].clone()
        if new.dim() == 4:  # (outputs, inputs, 3, 3)
            new[: old.shape[0], old.shape[1] :] = 0.0
        new[tuple(slice(length) for length in old.shape)] = old
        grown[name] = new
    return grown


def averaged_network(task: Task, checkpoint: Path, device: str = "cpu") -> nn.Module:
    """The averaged network of a checkpoint, ready to be used."""
    state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    network = task.make_network(0, tuple(state["recipe"]["widths"]))
    weights = {name: value for name, value in state["average"].items() if name.startswith("module.")}
    network.load_state_dict({name.removeprefix("module."): value for name, value in weights.items()})
    return network.to(device).to(memory_format=torch.channels_last).eval()


def train(
    task: Task,
    folder: Path,
    out: Path,
    recipe: Recipe,
    device: str,
    precision: str,
    check_every: int,
    loaders: int = 1,
    start_from: Path | None = None,
) -> Trainer:
    """Train to the recipe's last step with samples from `loaders` processes (0: from this one).

    Leaves `checkpoint.pt`, `log.csv`, `curve.png` and `recipe.json` in `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    seen, unseen = split(folder)
    trainer = Trainer(task, recipe, device, precision)
    if (out / "checkpoint.pt").exists():
        trainer.resume(out / "checkpoint.pt")
    elif start_from is not None:
        trainer.start_from(start_from)
    (out / "recipe.json").write_text(json.dumps({**dataclasses.asdict(trainer.recipe), "photos": len(seen)}, indent=1))
    losses: deque[float] = deque(maxlen=check_every)
    started = time.monotonic() - trainer.seconds
    for batch in _batches(task.samples(seen, recipe.side, recipe.seed), recipe, trainer.step, loaders):
        losses.append(trainer.advance(batch))
        trainer.seconds = time.monotonic() - started
        if trainer.step % SAY_EVERY == 0:
            _log.info("step %d, %.2f h, loss %.4f", trainer.step, trainer.seconds / 3600, np.mean(losses))
        if trainer.step % check_every == 0 or trainer.step == recipe.steps:
            trainer.save(out / "checkpoint.pt")
            row = {"step": trainer.step, "hours": trainer.seconds / 3600, "loss": sum(losses) / len(losses)}
            figures = task.check(trainer.average.module, unseen, trainer.autocast)
            run_log.append(out / "log.csv", {**row, **figures})
            run_log.draw(out / "log.csv", out / "curve.png", task.panels)
    return trainer


def _give_way(_: int) -> None:
    """Loaders run where the network leaves a core free: two of them, 139 ms a step instead of 162 on two cores."""
    os.nice(19)


def _batches(samples: Dataset[Any], recipe: Recipe, first_step: int, loaders: int) -> Iterator[Batch]:
    """Every batch from a step to the last one."""
    ahead: dict[str, Any] = {"prefetch_factor": 6, "multiprocessing_context": "spawn", "worker_init_fn": _give_way}
    numbers = range(first_step * recipe.batch, recipe.steps * recipe.batch)
    many = ahead if loaders else {}
    loader: DataLoader[Batch] = DataLoader(samples, recipe.batch, sampler=numbers, num_workers=loaders, **many)
    return iter(loader)
