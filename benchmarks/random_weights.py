"""Seeded random weight files for networks whose real files are not at hand, in the shape of the official ones.

The values are drawn as upstream's constructors draw them, so that activations stay in a natural range. It knows nothing
of measuring.
"""

from __future__ import annotations

import math
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

_FEATURES, _GROWTH = 64, 32
Add = Callable[..., None]  # (layer name, channels in, channels out, gain)
_BLOCKS = {"RealESRGAN_x4plus": 23, "RealESRGAN_x2plus": 23, "RealESRGAN_x4plus_anime_6B": 6}
_CONVOLUTIONS = {"realesr-general-x4v3": 32, "realesr-general-wdn-x4v3": 32, "realesr-animevideov3": 16}
MODELS = (*_BLOCKS, *_CONVOLUTIONS)


def put_weights(folder: Path, source: Path | None, models: Sequence[str], seed: int = 0) -> None:
    """Copy each model's file from `source`, or write a random one, into `folder` under its official name."""
    for model in models:
        name = f"{model}.pth"
        if source is not None and (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
        else:
            key = "params" if model in _CONVOLUTIONS else "params_ema"  # as in the official files
            torch.save({key: random_state(model, seed + zlib.crc32(model.encode()))}, folder / name)


def random_state(model: str, seed: int = 0, residual_gain: float = 1.0) -> dict[str, Tensor]:
    """A state dict with the official file's keys and shapes.

    Args:
        model: a name of the model table.
        seed: of the random numbers.
        residual_gain: factor on the dense blocks' weights; 10 makes the residual branches matter as in trained nets.
    """
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def add(name: str, channels_in: int, channels_out: int, gain: float = 1.0) -> None:
        bound = 1.0 / math.sqrt(channels_in * 9)  # torch's default for a 3x3 convolution
        state[f"{name}.weight"] = (
            (torch.rand(channels_out, channels_in, 3, 3, generator=generator) * 2 - 1) * bound * gain
        )
        state[f"{name}.bias"] = (torch.rand(channels_out, generator=generator) * 2 - 1) * bound

    if model in _CONVOLUTIONS:
        _compact(state, add, _CONVOLUTIONS[model])
    else:
        _esrgan(add, _BLOCKS[model], 12 if model == "RealESRGAN_x2plus" else 3, residual_gain)
    return state


def _compact(state: dict[str, Tensor], add: Add, convolutions: int) -> None:
    for index in range(convolutions + 2):
        last = index == convolutions + 1
        add(f"body.{2 * index}", 3 if index == 0 else _FEATURES, 48 if last else _FEATURES)
        if not last:
            state[f"body.{2 * index + 1}.weight"] = torch.full((_FEATURES,), 0.25)


def _esrgan(add: Add, blocks: int, channels_in: int, residual_gain: float) -> None:
    add("conv_first", channels_in, _FEATURES)
    for block in range(blocks):
        for dense in range(1, 4):
            for layer in range(1, 6):
                channels_out = _FEATURES if layer == 5 else _GROWTH
                # upstream's default_init_weights scales these by 0.1 after Kaiming's, which is about this bound
                gain = 0.1 * math.sqrt(6.0) * residual_gain
                add(f"body.{block}.rdb{dense}.conv{layer}", _FEATURES + (layer - 1) * _GROWTH, channels_out, gain)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        add(name, _FEATURES, _FEATURES)
    add("conv_last", _FEATURES, 3)
