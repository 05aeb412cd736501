"""`python -m training.damage.export CHECKPOINT TARGET`: the averaged weights of either network as safetensors.

With `--mean-with` the mean of several trainings' weights that have a beginning in common (arXiv:2203.05482).

Convolutions in half precision; the few numbers a channel (biases, norms) stay in fp32, which costs nothing. Recipe,
data, seed, steps and figures travel in the file's metadata.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from app.restoration.repair.inpainting_network import load_inpainting
from app.restoration.repair.segmentation_network import load_segmentation, without_shared
from training.export import averaged_weights

_DATA = "Berkeley segmentation set (BSDS500), train and test parts, without the held-out tenth; all damage is drawn"


def export(checkpoint: Path, target: Path, data: str, figures: Path | None, mean_with: Sequence[Path] = ()) -> Path:
    """Write the file; `figures` is what `training.damage.evaluate --json` wrote, `mean_with` other checkpoints.

    Raises:
        RuntimeError: a checkpoint is that of another network.
    """
    weights, state = averaged_weights(checkpoint)
    if mean_with:
        weights = mean_of([weights, *(averaged_weights(other)[0] for other in mean_with)])
    is_inpainting = any(name.endswith(".first.weight") for name in weights)
    network = (load_inpainting if is_inpainting else load_segmentation)(weights)
    widths = ", ".join(map(str, state["recipe"]["widths"]))
    metadata = {
        "architecture": f"{type(network).__name__}: U-Net on packed pixels, {widths} channels, RGB",
        "recipe": json.dumps(state["recipe"], sort_keys=True),
        "data": data,
        "seed": str(state["recipe"]["seed"]),
        "steps": str(state["step"]),
        "hours": f"{state['seconds'] / 3600:.2f}",
        "metrics": figures.read_text() if figures is not None else "{}",
        "format": "pt",
    }
    save_file({name: _stored(value) for name, value in without_shared(weights).items()}, str(target), metadata)
    return target


def mean_of(networks: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of networks' weights by name; of whole numbers, which count batches, the first one's.

    Raises:
        RuntimeError: they are not of one shape.
    """
    first, *others = networks
    shapes = {name: value.shape for name, value in first.items()}
    if any({name: value.shape for name, value in other.items()} != shapes for other in others):
        raise RuntimeError("the checkpoints hold networks of different shapes")
    return {name: _mean([network[name] for network in networks]) for name in first}


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(dim=0) if values[0].is_floating_point() else values[0]


def _stored(value: Tensor) -> Tensor:
    return value.half() if value.ndim == 4 else value


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(prog="python -m training.damage.export", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--data", default=_DATA)
    parser.add_argument("--figures", type=Path, help="JSON of `python -m training.damage.evaluate`")
    parser.add_argument("--mean-with", type=Path, nargs="+", default=[], help="other checkpoints to take the mean with")
    asked = parser.parse_args()
    export(asked.checkpoint, asked.target, asked.data, asked.figures, asked.mean_with)


if __name__ == "__main__":
    main()
