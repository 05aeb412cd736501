"""`python -m training.damage.train --photos FOLDER`: trains the network that finds damage on old prints.

AdamW, warm-up and cosine, averaged weights (EMA), bf16 where the machine computes in it, on CUDA and on CPU. A stopped
run goes on where its last checkpoint stands and sees the samples that an uninterrupted one sees.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from app.restoration.device import choose_device, choose_precision
from training import run_log
from training.averaging import exponential_mean
from training.damage.losses import segmentation_loss
from training.damage.metrics import Agreement, agreement
from training.damage.samples import Sample, Samples
from training.damage.segmentation import WIDTHS, DamageSegmentation, make_segmentation, probabilities
from training.photos import split

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
PANELS = {
    "training loss": ("loss",),
    "held-out, threshold 0.5": ("f1", "precision", "recall"),
    "marked of undamaged, %": ("undamaged_mean_percent", "undamaged_worst_percent"),
}
SAY_EVERY = 100  # steps
CHECKED_SAMPLES = 96
CHECKED_SIDE = 256
CHECKED_SEED = 77
THRESHOLD = 0.5

_log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor, Tensor]  # (N, 3, s, s) uint8, (N, 1, s, s) bool, (N, 1, s, s) bool


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that decides what comes out, beside the photos and the drawing."""

    steps: int = 36_000
    batch: int = 8
    side: int = 224
    learning_rate: float = 2e-3
    warm_up_steps: int = 500
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    clip_norm: float = 1.0
    seed: int = 20261125
    widths: tuple[int, ...] = WIDTHS

    def rate(self, step: int) -> float:
        """The learning rate: linear warm-up, then half a cosine down to a hundredth."""
        if step < self.warm_up_steps:
            return self.learning_rate * (step + 1) / self.warm_up_steps
        done = (step - self.warm_up_steps) / max(1, self.steps - self.warm_up_steps)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done))))


class Trainer:
    """A network, its average and its optimizer, and how they are saved and taken up again."""

    def __init__(self, recipe: Recipe, device: str, precision: str) -> None:
        self.recipe, self.device, self.precision = recipe, device, PRECISIONS[precision]
        self.network = make_segmentation(recipe.seed, recipe.widths).to(device)
        self.network.to(memory_format=torch.channels_last)
        self.average = AveragedModel(
            self.network, multi_avg_fn=exponential_mean(recipe.ema_decay), use_buffers=True
        ).eval()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.step = 0
        self.seconds = 0.0

    def advance(self, batch: Batch) -> float:
        """One step on (scans (N, 3, s, s) uint8, masks and unsure (N, 1, s, s) bool); returns the loss."""
        scans, mask, unsure = (part.to(self.device) for part in batch)
        x = scans.float().div_(255.0).contiguous(memory_format=torch.channels_last)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, self.precision, enabled=self.precision is not torch.float32):
            logits = self.network(x)
        loss = segmentation_loss(logits.float(), mask, unsure)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        self.step += 1
        return float(loss.detach())

    def find(self, scan: Tensor) -> Tensor:
        """The averaged network on one scan, (3, H, W) uint8, to probabilities (H, W) fp32."""
        x = scan[None].to(self.device).float().div_(255.0).contiguous(memory_format=torch.channels_last)
        enabled = self.precision is not torch.float32
        with torch.inference_mode(), torch.autocast(self.device, self.precision, enabled=enabled):
            return probabilities(self.average.module, x).cpu()

    def save(self, path: Path) -> None:
        """All of it into one file, written aside and renamed."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "recipe": dataclasses.asdict(self.recipe),
        }
        aside = path.with_suffix(".part")
        torch.save(state, aside)
        aside.replace(path)

    def resume(self, path: Path) -> None:
        """Go on where a checkpoint stands; the number of steps and the rate may have been changed meanwhile."""
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])


def averaged_network(checkpoint: Path, device: str = "cpu") -> DamageSegmentation:
    """The averaged network of a checkpoint, ready to find damage."""
    state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    network = make_segmentation(0, tuple(state["recipe"]["widths"]))
    weights = {name: value for name, value in state["average"].items() if name.startswith("module.")}
    network.load_state_dict({name.removeprefix("module."): value for name, value in weights.items()})
    network.to(device).to(memory_format=torch.channels_last)
    return network.eval()


def train(
    folder: Path, out: Path, recipe: Recipe, device: str, precision: str, check_every: int, loaders: int = 1
) -> Trainer:
    """Train to the recipe's last step with samples from `loaders` processes (0: from this one).

    Leaves `checkpoint.pt`, `log.csv`, `curve.png` and `recipe.json` in `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    seen, unseen = split(folder)
    held_out = Samples(unseen, min(CHECKED_SIDE, recipe.side), CHECKED_SEED)
    checked = [held_out.sample(index) for index in range(CHECKED_SAMPLES)]
    (out / "recipe.json").write_text(json.dumps({**dataclasses.asdict(recipe), "photos": len(seen)}, indent=1))
    trainer = Trainer(recipe, device, precision)
    if (out / "checkpoint.pt").exists():
        trainer.resume(out / "checkpoint.pt")
    losses: deque[float] = deque(maxlen=check_every)
    started = time.monotonic() - trainer.seconds
    for batch in _batches(Samples(seen, recipe.side, recipe.seed), recipe, trainer.step, loaders):
        losses.append(trainer.advance(batch))
        trainer.seconds = time.monotonic() - started
        if trainer.step % SAY_EVERY == 0:
            _log.info("step %d, %.2f h, loss %.4f", trainer.step, trainer.seconds / 3600, np.mean(losses))
        if trainer.step % check_every == 0 or trainer.step == recipe.steps:
            trainer.save(out / "checkpoint.pt")
            row = {"step": trainer.step, "hours": trainer.seconds / 3600, "loss": sum(losses) / len(losses)}
            run_log.append(out / "log.csv", {**row, **check(trainer, checked)})
            run_log.draw(out / "log.csv", out / "curve.png", PANELS)
    return trainer


def _batches(samples: Samples, recipe: Recipe, first_step: int, loaders: int) -> Iterator[Batch]:
    """Every batch from a step to the last one; a batch hangs on its step alone."""
    ahead: dict[str, Any] = {"prefetch_factor": 6, "multiprocessing_context": "spawn"} if loaders else {}
    numbers = range(first_step * recipe.batch, recipe.steps * recipe.batch)
    loader: DataLoader[Batch] = DataLoader(
        samples,
        recipe.batch,
        sampler=numbers,
        num_workers=loaders,
        **ahead,
    )
    return iter(loader)


def check(trainer: Trainer, samples: list[Sample]) -> dict[str, float]:
    """Figures on held-out samples with the trained kinds of damage; `training.damage.evaluate` measures thoroughly."""
    total, undamaged = Agreement(), []
    for sample in samples:
        scan = torch.from_numpy(np.ascontiguousarray(sample.scan.transpose(2, 0, 1)))  # (3, H, W)
        marked = trainer.find(scan).numpy() > THRESHOLD
        total = total + agreement(marked, sample.mask, sample.unsure)
        if not sample.mask.any():
            undamaged.append(100.0 * float(marked.mean()))
    return {
        "f1": total.f1,
        "precision": total.precision,
        "recall": total.recall,
        "undamaged_mean_percent": float(np.mean(undamaged or [0.0])),
        "undamaged_worst_percent": max(undamaged, default=0.0),
    }


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m training.damage.train", description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder with photos; a tenth is held out")
    parser.add_argument("--out", type=Path, default=Path("training_runs/damage"), help="for checkpoint, log and curve")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--side", type=int, default=Recipe.side, help="of a training crop, in pixels; a multiple of 32")
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", *PRECISIONS))
    parser.add_argument("--check-every", type=int, default=500, help="steps between two checkpoints with figures")
    parser.add_argument("--loaders", type=int, default=1, help="processes that draw samples")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device = choose_device(asked.device).value
    precision = choose_precision(asked.precision, device).value
    precision = "bf16" if precision == "fp16" else precision  # a gradient leaves the range of fp16
    recipe = Recipe(asked.steps, asked.batch, asked.side, asked.learning_rate)
    train(asked.photos, asked.out, recipe, device, precision, asked.check_every, asked.loaders)


if __name__ == "__main__":
    main()
