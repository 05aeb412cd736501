"""`python -m training.train --photos FOLDER`: trains the compact network that ships with the project.

Muon and Adam, warm-up and cosine, averaged weights (EMA), bf16 where the machine computes in it; a stopped run goes on
where its last checkpoint stands. Runs on CUDA and on CPU, also as several processes that share each batch:
`torchrun --nproc-per-node 2 -m training.train ...`. Read `weights/README.md` for what came out.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from app.restoration.device import choose_device, choose_precision
from training import checkpoints, processes, run_log
from training.activation import quicken
from training.averaging import exponential_mean
from training.check import KINDS, Rgb, cropped, mean_gain_db
from training.export import averaged_weights
from training.losses import restoration_loss
from training.network import CONVOLUTIONS, count_convolutions, deepened, make_network
from training.optimizer import MuonWithAdam
from training.pairs import POOL_PATCHES, Pairs
from training.photos import read_rgb, split

CHECKED_PHOTOS = 8
PANELS = {
    "root of the mean square + spectrum": ("loss",),
    "dB over bicubic, held-out photos": tuple(f"{kind}_gain_db" for kind in KINDS),
}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that decides what comes out, beside the photos."""

    steps: int = 14_400
    batch: int = 12
    patch: int = 40
    learning_rate: float = 8e-4
    warm_up_steps: int = 400
    ema_decay: float = 0.999
    clip_norm: float = 0.5
    pool: int = POOL_PATCHES
    seed: int = 20261121
    convolutions: int = CONVOLUTIONS
    started_from: str = "nothing"

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
        self.network = make_network(recipe.seed, convolutions=recipe.convolutions).to(
            device, memory_format=torch.channels_last
        )  # type: ignore[call-overload]
        quicken(self.network)
        self.average = AveragedModel(self.network, multi_avg_fn=exponential_mean(recipe.ema_decay))
        self.optimizer = MuonWithAdam(self.network, recipe.learning_rate)
        self.step = 0
        self.seconds = 0.0

    def update_retry_after(self, low: Tensor, high: Tensor) -> float:
        """One step on a batch of (N, 3, p, p) and (N, 3, 4p, 4p) uint8; returns the loss."""
        x = low.to(self.device).float().div_(255.0).contiguous(memory_format=torch.channels_last)
        target = high.to(self.device).float().div_(255.0)
        self.optimizer.zero_grad()
        with torch.autocast(self.device, self.precision, enabled=self.precision is not torch.float32):
            output = self.network(x)
        loss = restoration_loss(output.float(), target)
        loss.backward()  # type: ignore[no-untyped-call]
        processes.average_gradients(self.network)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.optimizer.step(self.recipe.rate(self.step))
        self.average.update_parameters(self.network)
        self.step += 1
        return float(loss.detach())

    def enlarge(self, small: Rgb) -> Rgb:
        """The averaged network on one photo, (H, W, 3) uint8 RGB to (4H, 4W, 3)."""
        x = torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1))).to(self.device)
        with torch.inference_mode(), torch.autocast(self.device, self.precision, enabled=self.device != "cpu"):
            y = self.average.module(x[None].float().div(255.0))[0].float()
        pixels: Rgb = y.mul(255.0).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        return pixels

    def save(self, path: Path) -> None:
        """All of it into one file, written aside and renamed."""
        checkpoints.save(self, path)

    def resume(self, path: Path) -> None:
        """Go on where a checkpoint stands; the number of steps and the rate may have been changed meanwhile."""
        recipe = checkpoints.resume(self, path, self.device)
        self.recipe = dataclasses.replace(self.recipe, started_from=recipe["started_from"])

    def start_from(self, path: Path) -> None:
        """Begin with the averaged weights of an earlier, perhaps shallower training of our own, at step 0."""
        weights, state = averaged_weights(path)
        for network in (self.network, self.average.module):
            network.load_state_dict(deepened(weights, self.recipe.convolutions))
        before = f"{count_convolutions(weights)} convolutions, {state['step']} steps, {state['seconds'] / 3600:.2f} h"
        self.recipe = dataclasses.replace(self.recipe, started_from=before)


def train(
    folder: Path,
    out: Path,
    recipe: Recipe,
    device: str,
    precision: str,
    check_every: int,
    loaders: int = 1,
    start_from: Path | None = None,
) -> Trainer:
    """Train to the recipe's last step with pairs from `loaders` processes.

    Leaves `checkpoint.pt`, `log.csv`, `curve.png` and `recipe.json` in `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    seen, unseen = split(folder)
    checked = [cropped(read_rgb(path)) for path in unseen[:CHECKED_PHOTOS]]
    (out / "recipe.json").write_text(json.dumps({**dataclasses.asdict(recipe), "photos": len(seen)}, indent=1))
    trainer = Trainer(recipe, device, precision)
    if (out / "checkpoint.pt").exists():
        trainer.resume(out / "checkpoint.pt")
    elif start_from is not None:
        trainer.start_from(start_from)
    batches = _batches(seen, recipe, trainer.step, 0 if processes.count() > 1 else loaders)
    losses: deque[float] = deque(maxlen=check_every)
    with _progress(disable=not processes.is_first()) as progress:
        task = progress.add_task("training", total=recipe.steps, completed=trainer.step, loss=0.0)
        while trainer.step < recipe.steps:
            started = time.monotonic()
            losses.append(trainer.update_retry_after(*next(batches)))
            trainer.seconds += time.monotonic() - started
            progress.update(task, completed=trainer.step, loss=sum(losses) / len(losses))
            if processes.is_first() and (trainer.step % check_every == 0 or trainer.step == recipe.steps):
                _check(trainer, checked, sum(losses) / len(losses), out)
    return trainer


def _batches(photos: list[Path], recipe: Recipe, first_step: int, loaders: int) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's share of each batch, made in `loaders` other processes (0: in this one).

    A resumed run draws other pairs than before, not the same ones again.
    """
    seed = recipe.seed + first_step * processes.count() + processes.rank()
    ahead: dict[str, Any] = {"prefetch_factor": 8, "multiprocessing_context": "spawn"} if loaders else {}
    pairs = Pairs(photos, recipe.patch, seed, recipe.pool)
    loader = DataLoader(pairs, recipe.batch // processes.count(), num_workers=loaders, **ahead)
    return itertools.chain.from_iterable(itertools.repeat(loader))


def _check(trainer: Trainer, photos: list[Rgb], loss: float, out: Path) -> None:
    """Save, measure and draw."""
    trainer.save(out / "checkpoint.pt")
    gains = {f"{kind}_gain_db": mean_gain_db(photos, kind, trainer.enlarge) for kind in KINDS}
    row = {"step": trainer.step, "hours": trainer.seconds / 3600, "loss": loss, **gains}
    run_log.append(out / "log.csv", row)
    run_log.draw(out / "log.csv", out / "curve.png", PANELS)


def _progress(disable: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
    )
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), disable=disable)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder with photos; a tenth is held out")
    parser.add_argument(
        "--out", type=Path, default=Path("training_runs/default"), help="folder for checkpoint, log, curve"
    )
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--patch", type=int, default=Recipe.patch, help="side of a low-resolution patch in pixels")
    parser.add_argument("--convolutions", type=int, default=Recipe.convolutions, help="inner ones; the network's depth")
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    parser.add_argument("--start-from", type=Path, help="checkpoint of an earlier training, made deeper if need be")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", *PRECISIONS))
    parser.add_argument("--check-every", type=int, default=1000, help="steps between two checkpoints with figures")
    asked = parser.parse_args()
    device = choose_device(asked.device).value
    precision = choose_precision(asked.precision, device).value
    precision = "bf16" if precision == "fp16" else precision  # a gradient leaves the range of fp16
    recipe = Recipe(asked.steps, asked.batch, asked.patch, asked.learning_rate, convolutions=max(1, asked.convolutions))
    with processes.joined(device):
        train(asked.photos, asked.out, recipe, device, precision, asked.check_every, start_from=asked.start_from)


if __name__ == "__main__":
    main()
