"""Face parsing: facexlib's ParseNet (from PSFRGAN, CC BY-NC-SA 4.0) in a form made to run, and segmentation masks.

Also the plain mask that stands in where the network is not installed or not wanted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from app.restoration.faces.alignment import SIDE_PIXELS

# Which of the 19 classes belong to the face, as upstream: skin, features, ears, hair, earrings; no hat, neck or cloth.
_FACE_CLASSES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15)
_CLASSES = 19
_BORDER_PIXELS = 10  # upstream sets these to 0
_SOFT_BORDER_PIXELS = 48
_SIGMA_PIXELS = 11 * 2**0.5  # upstream blurs twice with 11
_PLAIN_SHRINK_PIXELS, _PLAIN_BLUR_PIXELS = 26, 51  # upstream's square mask: a twentieth of the side, and twice that
Mask = NDArray[np.uint8]  # (512, 512), 255: all face
Parse = Callable[[Tensor], list[Mask]]  # (N, 3, 512, 512) fp32 RGB in [-1, 1] to N hard masks


def build_parser(state: Mapping[str, Tensor], device: str, dtype: torch.dtype) -> Parse:
    """ParseNet with the weights of `state`, as a function for `device` in `dtype`.

    Args:
        state: state dict of facexlib's `parsing_parsenet.pth`.
        device: torch device name.
        dtype: float32 or bfloat16.

    Returns:
        A function of (N, 3, 512, 512) fp32 RGB in [-1, 1] to one hard (512, 512) uint8 mask a face, 0 or 255. It keeps
        nothing between calls.

    Raises:
        RuntimeError: the state's keys or shapes belong to another network.
    """
    from facexlib.parsing.parsenet import ParseNet

    network = ParseNet(in_size=SIDE_PIXELS, out_size=SIDE_PIXELS, parsing_ch=_CLASSES).eval()
    network.load_state_dict(dict(state))
    return parser_of(network, device, dtype)


def parser_of(network: Any, device: str, dtype: torch.dtype) -> Parse:
    """A loaded ParseNet of any size (fp32) as a function; see `build_parser`. Its picture output is left out."""
    target = torch.device(device)
    encoder, body, decoder = (
        _chain([_block(block, target, dtype) for block in part])
        for part in (network.encoder, network.body, network.decoder)
    )
    last = _layer(network.out_mask_conv, target, dtype)
    table = torch.zeros(_CLASSES, dtype=torch.uint8, device=target)
    table[list(_FACE_CLASSES)] = 255

    def parse(faces: Tensor) -> list[Mask]:
        with torch.inference_mode():
            x = faces.to(device=target, dtype=dtype, memory_format=torch.channels_last)
            features = encoder(x)  # (N, 256, S / 16, S / 16)
            decoded = decoder(features + body(features))  # (N, 64, S, S)
            masks = table[last(decoded).argmax(1)].cpu().numpy()  # (N, 19, S, S) logits to (N, S, S)
        return list(masks)

    return parse


def _chain(steps: list[Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
    """The steps one after another, each (N, C, h, w) to (N, C', h', w')."""

    def run(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return run


def _block(block: Any, device: torch.device, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """One of ParseNet's layers or residual blocks as a function."""
    if not hasattr(block, "conv1"):
        return _layer(block, device, dtype)
    first, second = _layer(block.conv1, device, dtype), _layer(block.conv2, device, dtype)
    shortcut = _layer(block.shortcut_func, device, dtype) if hasattr(block.shortcut_func, "conv2d") else None

    def run(x: Tensor) -> Tensor:
        return second(first(x)).add_(x if shortcut is None else shortcut(x))

    return run


def _layer(layer: Any, device: torch.device, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """ParseNet's ConvLayer: enlarge, reflect, convolve, normalise (folded into the convolution), activate."""
    convolution, norm = layer.conv2d, layer.norm.norm
    if isinstance(norm, nn.BatchNorm2d):
        convolution = fuse_conv_bn_eval(convolution, norm)
    weight = convolution.weight.detach().to(device, dtype).contiguous(memory_format=torch.channels_last)
    bias = None if convolution.bias is None else convolution.bias.detach().to(device, dtype)
    stride, enlarges = convolution.stride, _enlarges(layer)
    activation = layer.relu.func if isinstance(layer.relu.func, nn.LeakyReLU) else None

    def run(x: Tensor) -> Tensor:
        if enlarges:
            x = functional.interpolate(x, scale_factor=2, mode="nearest")  # (N, C, 2h, 2w)
        out = functional.conv2d(pad_reflect(x), weight, bias, stride)  # (N, C', h, w), or half of it with stride 2
        return out if activation is None else functional.leaky_relu_(out, activation.negative_slope)

    return run


def _enlarges(layer: Any) -> bool:
    """Whether a ConvLayer enlarges first; it keeps that in a function, so it is asked with a small tensor."""
    return bool(layer.scale_func(torch.zeros(1, 1, 2, 2)).shape[2] == 4)


def pad_reflect(x: Tensor) -> Tensor:
    """(N, C, h, w) with one pixel reflected on every side; channels-last in, channels-last out."""
    return functional.pad(x, (1, 1, 1, 1), mode="reflect")


def soft_mask(hard: Mask, *, soft_border: bool) -> Mask:
    """Feather a hard mask in the frame, so that the feather's width follows the face's size in the result.

    Args:
        hard: (512, 512) uint8, 0 or 255.
        soft_border: fade out towards the frame's border. Without it the mask ends hard 10 pixels before the border,
            as upstream's does, which shows as a line where hair reaches it.

    Returns:
        (512, 512) uint8, 0..255.
    """
    mask = cv2.GaussianBlur(hard.astype(np.float32), (0, 0), _SIGMA_PIXELS)
    if soft_border:
        mask *= _border_fade()
    mask[:_BORDER_PIXELS] = mask[-_BORDER_PIXELS:] = 0
    mask[:, :_BORDER_PIXELS] = mask[:, -_BORDER_PIXELS:] = 0
    soft: Mask = np.rint(mask).astype(np.uint8)
    return soft


@functools.cache
def plain_mask() -> Mask:
    """The (512, 512) uint8 mask of a face without parsing: the frame, shrunk and feathered as upstream's square."""
    mask = np.zeros((SIDE_PIXELS, SIDE_PIXELS), np.float32)
    mask[_PLAIN_SHRINK_PIXELS:-_PLAIN_SHRINK_PIXELS, _PLAIN_SHRINK_PIXELS:-_PLAIN_SHRINK_PIXELS] = 255
    soft: Mask = np.rint(cv2.GaussianBlur(mask, (_PLAIN_BLUR_PIXELS, _PLAIN_BLUR_PIXELS), 0)).astype(np.uint8)
    soft[0], soft[-1], soft[:, 0], soft[:, -1] = 0, 0, 0, 0
    soft.setflags(write=False)
    return soft


@functools.cache
def _border_fade() -> NDArray[np.float32]:
    """(512, 512): 0 up to upstream's border, then a smooth rise to 1."""
    place = np.minimum(np.arange(SIDE_PIXELS), np.arange(SIDE_PIXELS)[::-1]).astype(np.float32)
    rise = np.clip((place - _BORDER_PIXELS) / _SOFT_BORDER_PIXELS, 0, 1)
    line = rise * rise * (3 - 2 * rise)
    return (line[:, None] * line[None, :]).astype(np.float32)
