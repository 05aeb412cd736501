"""Seeded random weight files for networks whose real files are not at hand, in the shape of the official ones.

The values are drawn as upstream's constructors draw them, so that activations stay in a natural range. It knows nothing
of measuring.
"""

from __future__ import annotations

import math
import shutil
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.restoration.models.spandrel_loading import import_spandrel

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


DETECTOR_FILE = "detection_mobilenet0.25_Final.pth"


def put_face_weights(folder: Path, source: Path | None, files: Sequence[str], seed: int = 0) -> None:
    """Copy face files from `source`, or write random ones of full size in their place."""
    for file in files:
        if source is not None and (source / file).is_file():
            shutil.copyfile(source / file, folder / file)
        else:
            torch.save(random_face_state(file, seed), folder / file)


def random_face_state(file: str, seed: int = 0) -> dict[str, Any]:
    """What the official file of that name holds (keys and shapes), drawn as upstream's constructors draw it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if file.startswith("GFPGAN"):
            return {"params_ema": random_gfpgan().state_dict()}
        if file == "parsing_parsenet.pth":
            return dict(random_parser().state_dict())
        return dict(random_detector(file).state_dict())


def random_gfpgan(out_size: int = 512, narrow: float = 1) -> Any:
    """GFPGAN with noise that matters and pictures within [-1, 1]; smaller than the official one where asked."""
    import_spandrel()
    from spandrel.architectures.GFPGAN import GFPGAN

    shape = {"num_style_feat": 512, "channel_multiplier": 2, "decoder_load_path": None, "fix_decoder": False}
    ways = {"num_mlp": 8, "input_is_latent": True, "different_w": True, "narrow": narrow, "sft_half": True}
    network = GFPGAN(out_size=out_size, **shape, **ways).eval()
    decoder = network.stylegan_decoder
    with torch.no_grad():
        for layer in (decoder.style_conv1, *decoder.style_convs):
            layer.weight.uniform_(0.02, 0.1)
            layer.bias.normal_(0, 0.1)
        for layer in (decoder.to_rgb1, *decoder.to_rgbs):
            layer.modulated_conv.weight.mul_(0.35)
            layer.bias.normal_(0, 0.02)
    return network


def random_parser(size: int = 512) -> Any:
    """ParseNet with running statistics as after some training, whose classes lie in patches over the face."""
    from facexlib.parsing.parsenet import ParseNet

    network = ParseNet(in_size=size, out_size=size, parsing_ch=19).eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
        network.out_mask_conv.conv2d.weight.mul_(20)
        sample = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8) * 2 - 1, size=(64, 64), mode="bilinear")
        means = network(sample)[0].mean((0, 2, 3))
        network.out_mask_conv.conv2d.bias.sub_(means)
    return network


def random_detector(file: str) -> Any:
    """RetinaFace as the file's name says."""
    from facexlib.detection.retinaface import RetinaFace

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RetinaFace("resnet50" if "Resnet50" in file else "mobile0.25", device=torch.device("cpu"))
