"""GFPGAN (arXiv:2101.04061, the "clean" architecture of GFPGANv1.3 and v1.4) in a form made to run, channels-last.

Weights come in spandrel's module; here they are laid out again: the style is moved from the weights' batch dimension to
where channels-last survives, what commutes with enlarging runs before it, scale and shift share their first
convolution, and the unused intermediate pictures are left out. The noise is the same for every face, so equal input
gives equal output whatever ran before or beside it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.restoration.device import profile_of
from app.restoration.models.networks import copy_channels_last

NOISE_SEED = 20210111
_SLOPE = 0.2
_GAIN = math.sqrt(2.0)  # upstream's "for conversion" after every styled convolution
_EPSILON = 1e-8
Restore = Callable[[Tensor], Tensor]  # (N, 3, 512, 512) fp32 RGB in [-1, 1] to the same, not clamped


def build_gfpgan(module: Any, device: str, dtype: torch.dtype, *, face_by_face: bool | None = None) -> Restore:
    """A loaded GFPGANv1Clean (fp32, left untouched) as a function for `device`, running in `dtype`.

    Args:
        module: spandrel's network.
        device: torch device name.
        dtype: float32 or bfloat16.
        face_by_face: run one face after another with the style in the weights, which are smaller than the
            activations; a face then comes out the same to the bit in any company. False: the batch as a whole, the
            style in the activations before and after each convolution. None: by the device's profile.

    Returns:
        A function of (N, 3, 512, 512) fp32 RGB in [-1, 1] to the restored faces in the same form, not clamped. It
        keeps nothing between calls. float16 must not be asked for: the styles overflow in it.
    """
    if dtype == torch.float16:
        raise ValueError("GFPGAN does not run in float16")
    encoder = _Encoder(module, torch.device(device), dtype)
    by_face = profile_of(device).faces_one_by_one if face_by_face is None else face_by_face
    decoder = _Decoder(module.stylegan_decoder, torch.device(device), dtype, face_by_face=by_face)

    def restore(faces: Tensor) -> Tensor:
        with torch.inference_mode():
            batches = _samples(faces) if by_face else [faces]
            return _concatenated(
                [decoder(*encoder(_channels_last(batch.to(device=device, dtype=dtype)))) for batch in batches]
            )

    return restore


def make_noise(sizes: list[int], seed: int = NOISE_SEED) -> list[Tensor]:
    """One (1, 1, s, s) fp32 plane of normal noise for each size, in the order in which upstream draws them."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.empty(1, 1, size, size).normal_(generator=generator) for size in sizes]


def _enlarge(x: Tensor) -> Tensor:
    """(N, C, h, w) to (N, C, 2h, 2w), bilinearly."""
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class _Encoder:
    """The U-Net: reads the face, and gives the style codes and, for each size, a scale and a shift."""

    def __init__(self, module: Any, device: torch.device, dtype: torch.dtype) -> None:
        self._first, self._last = (
            copy_channels_last(layer, device, dtype) for layer in (module.conv_body_first, module.final_conv)
        )
        self._down = [copy_channels_last(block, device, dtype) for block in module.conv_body_down]
        self._up = [copy_channels_last(block, device, dtype) for block in module.conv_body_up]
        pairs = zip(module.condition_scale, module.condition_shift, strict=True)
        self._conditions = [_Condition(scale, shift, device, dtype) for scale, shift in pairs]
        self._linear = copy_channels_last(module.final_linear, device, torch.float32)
        self._style_length = int(module.num_style_feat)

    def __call__(self, faces: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """(N, 3, S, S) to styles (N, L, style length) fp32 and one (scale, shift) for each size from 8 up."""
        x = functional.leaky_relu_(self._first(faces), _SLOPE)  # (N, C, S, S)
        skips = []
        for block in self._down:
            x = _down(block, x)  # (N, C', h / 2, w / 2)
            skips.append(x)
        x = functional.leaky_relu_(self._last(x), _SLOPE)  # (N, C, 4, 4)
        flat = x.float().contiguous().flatten(1)  # (N, 16 * C), channel by channel, as the linear layer was trained
        styles = self._linear(flat).unflatten(1, (-1, self._style_length))  # (N, L, style length)
        conditions = []
        for block, condition in zip(self._up, self._conditions, strict=True):
            x = _up(block, x + skips.pop())  # (N, C', 2h, 2w)
            conditions.append(condition(x))
        return styles, conditions


def _down(block: Any, x: Tensor) -> Tensor:
    """Upstream's ResBlock with mode "down", (N, C, h, w) to (N, C', h / 2, w / 2).

    Halving bilinearly is the mean of two by two.
    """
    out = functional.leaky_relu_(block.conv1(x), _SLOPE)
    out = functional.leaky_relu_(block.conv2(functional.avg_pool2d(out, 2)), _SLOPE)  # (N, C', h / 2, w / 2)
    return out.add_(block.skip(functional.avg_pool2d(x, 2)))


def _up(block: Any, x: Tensor) -> Tensor:
    """Upstream's ResBlock with mode "up", (N, C, h, w) to (N, C', 2h, 2w).

    Its 1x1 skip runs before the enlarging, at a quarter of the work.
    """
    out = functional.leaky_relu_(block.conv1(x), _SLOPE)
    out = functional.leaky_relu_(block.conv2(_enlarge(out)), _SLOPE)  # (N, C', 2h, 2w)
    return out.add_(_enlarge(block.skip(x)))


class _Condition:
    """Scale and shift of one size: two small networks over one input, their first convolutions run as one."""

    def __init__(self, scale: Any, shift: Any, device: torch.device, dtype: torch.dtype) -> None:
        self._weight = torch.cat([scale[0].weight, shift[0].weight]).detach().to(device, dtype)
        self._weight = self._weight.contiguous(memory_format=torch.channels_last)
        self._bias = torch.cat([scale[0].bias, shift[0].bias]).detach().to(device, dtype)
        self._scale, self._shift = (copy_channels_last(net[2], device, dtype) for net in (scale, shift))

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) to scale and shift, (N, C', h, w) each, channels-last."""
        both = functional.leaky_relu_(
            functional.conv2d(x, self._weight, self._bias, padding=1), _SLOPE
        )  # (N, 2C, h, w)
        for_scale, for_shift = both.chunk(2, 1)
        return self._scale(_channels_last(for_scale)), self._shift(_channels_last(for_shift))


def _channels_last(x: Tensor) -> Tensor:
    """The same (N, C, h, w), channels-last in memory."""
    return x.contiguous(memory_format=torch.channels_last)


def _samples(batch: Tensor) -> list[Tensor]:
    """The batch as views of one sample each."""
    return [batch[place : place + 1] for place in range(len(batch))]


def _concatenated(samples: list[Tensor]) -> Tensor:
    """The samples as one batch; a single one is not copied."""
    return samples[0] if len(samples) == 1 else torch.cat(samples)


@dataclasses.dataclass(frozen=True)
class _Styled:
    """One styled convolution: weight (O, I, k, k) fp32, the linear layer that makes its style, bias and noise."""

    weight: Tensor
    squares: Tensor  # (O, I), the weight squared and summed over the kernel
    modulation: nn.Linear
    bias: Tensor  # (O,) fp32
    noise: Tensor | None = None  # (1, 1, h, w), already times its strength
    enlarges: bool = False

    def demodulation(self, style: Tensor) -> Tensor:
        """(N, I) styles to the (N, O) factors that give every output unit strength."""
        return torch.rsqrt(style.square() @ self.squares.T + _EPSILON) * _GAIN


class _Decoder:
    """StyleGAN2 with spatial feature transforms on half of the channels."""

    def __init__(self, module: Any, device: torch.device, dtype: torch.dtype, *, face_by_face: bool) -> None:
        self._device, self._dtype, self._face_by_face = device, dtype, face_by_face
        self._constant = _channels_last(module.constant_input.weight.detach().to(device, dtype))  # (1, C, 4, 4)
        self._half = bool(module.sft_half)
        sizes = [4] + [2 ** (3 + i // 2) for i in range(len(module.style_convs))]
        layers = [module.style_conv1, *module.style_convs]
        noises = make_noise(sizes)
        self._layers = [self._styled(layer, noise) for layer, noise in zip(layers, noises, strict=True)]
        self._pictures = [self._to_picture(layer) for layer in (module.to_rgb1, *module.to_rgbs)]

    def _styled(self, layer: Any, noise: Tensor) -> _Styled:
        inner = layer.modulated_conv
        weight = inner.weight[0].detach().float()
        return _Styled(
            weight.to(self._device),
            weight.square().sum((2, 3)).to(self._device),
            copy_channels_last(inner.modulation, self._device, torch.float32),
            layer.bias.detach().float().flatten().to(self._device),
            (noise * layer.weight.detach()).to(self._device, self._dtype),
            inner.sample_mode == "upsample",
        )

    def _to_picture(self, layer: Any) -> _Styled:
        inner = layer.modulated_conv
        weight = inner.weight[0].detach().float().to(self._device)
        modulation = copy_channels_last(inner.modulation, self._device, torch.float32)
        return _Styled(weight, weight.square().sum((2, 3)), modulation, layer.bias.detach().flatten().to(self._device))

    def __call__(self, styles: Tensor, conditions: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Styles (N, L, style length) and the conditions of each size to (N, 3, S, S) fp32."""
        x = self._constant.expand(len(styles), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        x = self._convolve(self._layers[0], x, styles[:, 0])
        picture = self._draw(self._pictures[0], x, styles[:, 1])  # (N, 3, 4, 4)
        for step, (scale, shift) in enumerate(conditions):
            x = self._convolve(self._layers[2 * step + 1], x, styles[:, 2 * step + 1])  # (N, C, 2h, 2w)
            self._transform(x, scale, shift)
            x = self._convolve(self._layers[2 * step + 2], x, styles[:, 2 * step + 2])
            drawn = self._draw(self._pictures[step + 1], x, styles[:, 2 * step + 3])
            picture = _enlarge(picture).add_(drawn)  # (N, 3, 2h, 2w)
        return picture

    def _transform(self, x: Tensor, scale: Tensor, shift: Tensor) -> None:
        """Scale and shift the second half of the channels of (N, C, h, w), or all, in place."""
        part = x[:, x.shape[1] // 2 :] if self._half else x
        torch.addcmul(shift, part, scale, out=part)

    def _convolve(self, layer: _Styled, x: Tensor, style: Tensor) -> Tensor:
        """A styled 3x3 convolution with noise, bias and activation: (N, I, h, w) to (N, O, h, w), or twice the size."""
        factors = layer.modulation(style)  # (N, I)
        after = layer.demodulation(factors)  # (N, O)
        if self._face_by_face:
            weight = layer.weight * factors[0][None, :, None, None] * after[0][:, None, None, None]
            x = _enlarge(x) if layer.enlarges else x
            out = functional.conv2d(x, _channels_last(weight.to(x.dtype)), layer.bias.to(x.dtype), padding=1)
        else:
            x = x * factors.to(x.dtype)[:, :, None, None]
            x = _enlarge(x) if layer.enlarges else x
            out = functional.conv2d(x, _channels_last(layer.weight.to(x.dtype)), padding=1)
            out = out.mul_(after.to(x.dtype)[:, :, None, None]).add_(layer.bias.to(x.dtype)[None, :, None, None])
        if layer.noise is not None:
            out.add_(layer.noise)
        return functional.leaky_relu_(out, _SLOPE)

    def _draw(self, layer: _Styled, x: Tensor, style: Tensor) -> Tensor:
        """A styled 1x1 convolution to the three colours, (N, 3, h, w) fp32."""
        weights = layer.weight[:, :, 0, 0] * layer.modulation(style)[:, None, :]  # (N, 3, I)
        parts = zip(_samples(x), weights.to(x.dtype), strict=True)
        drawn = _concatenated([functional.conv2d(one, weight[:, :, None, None]) for one, weight in parts])
        return drawn.float().add_(layer.bias[None, :, None, None])
