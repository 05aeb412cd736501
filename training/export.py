"""`python -m training.export`: a finished training's averaged weights as safetensors in half precision.

Recipe, data, seed, steps and figures travel in the file's metadata. It knows nothing of the service.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from training.network import FEATURES, count_convolutions

_AVERAGED = "module."


def averaged_weights(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The averaged weights in fp32 with upstream's names (`body.0.weight`, ...), and the state."""
    state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    average = state["average"]
    weights = {
        name.removeprefix(_AVERAGED): value.contiguous()
        for name, value in average.items()
        if name.startswith(_AVERAGED)
    }
    return weights, state


def export(checkpoint: Path, target: Path, data: str, figures: Path | None) -> Path:
    """Write the file; `figures` is what `training.evaluate --json` wrote."""
    weights, state = averaged_weights(checkpoint)
    metadata = {
        "architecture": f"SRVGGNetCompact, {FEATURES} features, {count_convolutions(weights)} convolutions, x4, RGB",
        "recipe": json.dumps(state["recipe"], sort_keys=True),
        "degradation": "training/degradation.py: clean, light and second order (arXiv:2107.10833)",
        "data": data,
        "seed": str(state["recipe"]["seed"]),
        "steps": str(state["step"]),
        "hours": f"{state['seconds'] / 3600:.2f}",
        "metrics": figures.read_text() if figures is not None else "{}",
        "format": "pt",
    }
    save_file({name: value.half() for name, value in weights.items()}, str(target), metadata)
    return target


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument(
        "--data", default="Berkeley segmentation set (BSDS500), train and test parts, without the held-out tenth"
    )
    parser.add_argument("--figures", type=Path, help="JSON of `python -m training.evaluate`")
    asked = parser.parse_args()
    export(asked.checkpoint, asked.target, asked.data, asked.figures)


if __name__ == "__main__":
    main()
