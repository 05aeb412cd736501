"""`python -m training.damage.train segmentation --photos FOLDER`: trains one of the networks that repair old prints.

On CUDA and on CPU, in bf16 where the machine computes in it; a stopped run goes on where its last checkpoint stands.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

from app.restoration.device import choose_device, choose_precision
from training.damage.inpainting_task import InpaintingTask
from training.damage.segmentation_task import SegmentationTask
from training.damage.trainer import PRECISIONS, Task, train
from training.optimizer import OptimizerName

TASKS: dict[str, Callable[[], Task]] = {"segmentation": SegmentationTask, "inpainting": InpaintingTask}


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m training.damage.train", description=__doc__)
    parser.add_argument("task", choices=tuple(TASKS))
    parser.add_argument("--photos", type=Path, required=True, help="folder with photos; a tenth is held out")
    parser.add_argument("--out", type=Path, help="for checkpoint, log and curve (default: training_runs/TASK)")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--side", type=int, help="of a training crop, in pixels; a multiple of 32")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--optimizer", type=OptimizerName, choices=tuple(OptimizerName))
    parser.add_argument("--seed", type=int, help="of the samples; another one where earlier weights are trained on")
    parser.add_argument("--start-from", type=Path, help="an exported network whose weights are trained on")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", *PRECISIONS))
    parser.add_argument("--check-every", type=int, default=500, help="steps between two checkpoints with figures")
    parser.add_argument("--loaders", type=int, default=1, help="processes that draw samples")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device = choose_device(asked.device).value
    precision = choose_precision(asked.precision, device).value
    precision = "bf16" if precision == "fp16" else precision  # a gradient leaves the range of fp16
    task = TASKS[asked.task]()
    changes = {name: getattr(asked, name) for name in ("steps", "batch", "side", "learning_rate", "optimizer", "seed")}
    recipe = dataclasses.replace(task.recipe, **{name: value for name, value in changes.items() if value is not None})
    out = asked.out or Path("training_runs") / asked.task
    train(task, asked.photos, out, recipe, device, precision, asked.check_every, asked.loaders, asked.start_from)


if __name__ == "__main__":
    main()
