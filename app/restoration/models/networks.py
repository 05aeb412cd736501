"""A network as a callable with facts: ESRGAN and compact networks, run in mixed precision.

The first convolution and the skip connections (and the last convolution of ESRGAN) stay in fp32, the body runs in the
asked precision, channels-last: measured 1 dB (compact) to 6 dB (ESRGAN) closer to fp32 than all-bf16, at no cost. On a
CPU, ESRGAN's trunk and end run rewritten (`dense_blocks`, `upsample_conv_fusion`): 6.55 -> 5.77 s at 256x256 on two
cores. Tried and dropped on a CPU: torch.compile (at most 1.1 times faster, for 5 to 32 s of compiling each shape),
input-split dense blocks (slower: the extra adds cost more than the saved concatenations), int8 (26 dB), oneDNN's fused
convolutions with the residual factors folded into the weights (1.02 times; 1.3 dB worse), Winograd F(2,3) by rows
around 1x3 convolutions (1.09 times on compact networks; 5 dB worse).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.restoration.device import DTYPES, DeviceProfile, profile_of
from app.restoration.models.dense_blocks import RESIDUAL, Trunk, make_trunk
from app.restoration.models.upsample_conv_fusion import fuse_upsample_convolutions

_BAND_REACH_ROWS = 2
_ESRGAN_CONTEXT_PIXELS, _ESRGAN_BLEND_PIXELS = 16, 8
_LAYERS_PER_PART = 2  # one convolution: another photo waits for one part at most
_TAIL_PACE = 0.7  # ESRGAN's enlarging end takes so much of the trunk's time for the same work (measured on two cores)

Module = TypeVar("Module", bound=nn.Module)
OnPart = Callable[[float], None]  # fraction of one run done; may raise to end it
Forward = Callable[[Tensor, OnPart], Tensor]  # (N, 3, H, W) to (N, 3, scale*H, scale*W); see `Network`


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the tiler and the planner must know of a network.

    Attributes:
        architecture: `esrgan` or `compact`.
        scale: the network's own factor.
        context: pixels it must see beyond a tile; covers the receptive field of compact networks, which reach one
            pixel a convolution. ESRGAN's is over 300 pixels wide in theory and was measured to fade within 16.
        blend: pixels over which two tiles are mixed, 0 where context makes them equal.
        multiple: sides must be multiples of this (pixel-unshuffle in front).
        work: multiply-adds per input pixel, in millions.
        precisions: what it may run in.
    """

    architecture: str
    scale: int
    context: int
    blend: int
    multiple: int
    work: float
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16")


@dataclasses.dataclass(frozen=True)
class Network:
    """A ready network: (N, 3, H, W) fp32 RGB in [0, 1] on `device` to (N, 3, scale*H, scale*W) fp32, not clamped.

    `exact` is the same network in fp32, made when first needed, for tiles that reduced precision spoiled. Where the
    device's profile says so, `run` tells how far it is.
    """

    name: str
    facts: Facts
    device: str
    precision: str
    run: Forward
    exact: Callable[[], Network]
    profile: DeviceProfile

    def __call__(self, x: Tensor, on_part: OnPart = lambda fraction: None) -> Tensor:
        """Run it without recording gradients.

        Args:
            x: (N, 3, H, W) fp32 RGB in [0, 1] on `device`; H and W are multiples of `facts.multiple`.
            on_part: told the fraction of this run that is done, where the profile says that parts are reported.

        Returns:
            (N, 3, scale*H, scale*W) fp32 RGB on `device`, not clamped.

        Raises:
            RuntimeError: what torch raises, out of memory included. What `on_part` raises.
        """
        with torch.inference_mode():
            return self.run(x, on_part)


def build(name: str, module: nn.Module, facts: Facts, device: str, precision: str) -> Network:
    """A loaded spandrel module as a network for one device.

    Args:
        name: for logs and records.
        module: `SRVGGNetCompact` or `RRDBNet` in fp32; left untouched and kept, for `Network.exact`.
        facts: as `compact_facts` or `esrgan_facts` read them from it.
        device: torch device name.
        precision: fp32, bf16 or fp16, what the body runs in.
    """
    forward = {"compact": _compact, "esrgan": _esrgan}[facts.architecture]
    profile = profile_of(device)

    @functools.cache  # made when first needed, and only once
    def exact() -> Network:
        return build(name, module, facts, device, "fp32")

    run = forward(module, facts, profile, torch.device(device), DTYPES[precision])
    return Network(name, facts, device, precision, run, exact, profile)


def compact_facts(module: Any) -> Facts:
    """Facts of a spandrel `SRVGGNetCompact` (Real-ESRGAN's `srvgg_arch.py`), read from its layers."""
    convolutions = [layer for layer in module.body if isinstance(layer, nn.Conv2d)]
    work = sum(layer.weight.numel() for layer in convolutions) / 1e6
    return Facts("compact", int(module.upscale), len(convolutions), 0, 1, work)


def esrgan_facts(module: Any, scale: int) -> Facts:
    """Facts of a spandrel `RRDBNet` (arXiv:1809.00219) with the true factor `scale`, pixel-unshuffle counted in."""
    multiple = int(module.shuffle_factor or 1)
    weights = sum(p.numel() for p in module.model[1].parameters()) / 1e6
    tail_pixels = (scale * multiple) ** 2
    tail = sum(p.numel() for layer in list(module.model)[2:] for p in layer.parameters()) * tail_pixels / 1e6
    work = (weights + tail) / multiple**2
    context = _ESRGAN_CONTEXT_PIXELS * multiple
    return Facts("esrgan", scale, context, _ESRGAN_BLEND_PIXELS * multiple, multiple, work)


def copy_channels_last(module: Module, device: torch.device, dtype: torch.dtype) -> Module:
    """A copy on the device in `dtype`, its weights channels-last, without gradients; the source stays as it was."""
    moved = copy.deepcopy(module).to(device=device, dtype=dtype)
    return moved.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def _compact(module: Any, facts: Facts, profile: DeviceProfile, device: torch.device, dtype: torch.dtype) -> Forward:
    """SRVGGNetCompact: convolutions with activations, pixel shuffle, plus the nearest-enlarged input."""
    first = copy_channels_last(module.body[0], device, torch.float32)
    layers = list(module.body)[1:]
    starts = range(0, len(layers), _LAYERS_PER_PART)
    parts = [
        copy_channels_last(nn.Sequential(*layers[start : start + _LAYERS_PER_PART]), device, dtype) for start in starts
    ]

    def run(x: Tensor, on_part: OnPart) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        features = first(x).to(dtype)  # (N, 64, H, W)
        for number, part in enumerate(parts, 1):
            features = part(features)  # (N, 64, H, W); after the last part (N, 3*s*s, H, W)
            if profile.reports_parts:
                on_part(number / len(parts))
        residual = features.float()
        # Adding each input pixel to its s*s outputs before the shuffle equals adding the nearest-enlarged input after
        # it, in half the time: memory stays in order.
        split = residual.permute(0, 2, 3, 1).unflatten(3, (3, -1))  # (N, H, W, 3, s*s)
        split = split + x.permute(0, 2, 3, 1).unsqueeze(4)
        return functional.pixel_shuffle(split.flatten(3).permute(0, 3, 1, 2), facts.scale)  # (N, 3, sH, sW)

    return run


def _esrgan(module: Any, facts: Facts, profile: DeviceProfile, device: torch.device, dtype: torch.dtype) -> Forward:
    """RRDBNet: first convolution, trunk with skip, nearest up-sampling convolutions, last convolution."""
    layers = list(module.model)
    *inner, trunk_last = layers[1].sub
    first, trunk_last, last = (
        copy_channels_last(layer, device, torch.float32) for layer in (layers[0], trunk_last, layers[-1])
    )
    trunk = (make_trunk(inner, dtype) if profile.fuses_layers else None) or _make_plain_trunk(inner, device, dtype)
    enlarging = fuse_upsample_convolutions(layers[2:-1]) if profile.fuses_layers else layers[2:-1]
    tail = copy_channels_last(nn.Sequential(*enlarging), device, dtype)
    trunk_work = sum(p.numel() for p in module.model[1].parameters()) / 1e6
    trunk_share = trunk_work / (trunk_work + _TAIL_PACE * (facts.work * facts.multiple**2 - trunk_work))

    def run(x: Tensor, on_part: OnPart) -> Tensor:
        if facts.multiple > 1:
            x = functional.pixel_unshuffle(x, facts.multiple)  # (N, 3*m*m, H/m, W/m)
        features = first(x.contiguous(memory_format=torch.channels_last))  # (N, 64, H/m, W/m)
        done, all_blocks = itertools.count(1), len(inner) * len(x)

        def on_block() -> None:
            if profile.reports_parts:
                on_part(trunk_share * next(done) / all_blocks)

        def enlarge(rows: Tensor, share_done: float) -> Tensor:
            enlarged: Tensor = last(tail(rows.to(dtype)).float())
            if profile.reports_parts:
                on_part(trunk_share + (1.0 - trunk_share) * share_done)
            return enlarged

        features = features + trunk_last(trunk(features, on_block))
        return _in_bands(enlarge, features, profile.tail_band_rows)  # (N, 3, sH, sW)

    return run


def _in_bands(tail: Callable[[Tensor, float], Tensor], features: Tensor, band_rows: int) -> Tensor:
    """Run the enlarging end of the network over bands of rows: the same numbers in an eighth of the memory.

    (N, 64, h, w) features to (N, 3, factor*h, factor*w), both fp32. `tail` is told which share is done with this band.
    Whole, a 256x256 tile makes 64-channel maps of 1024x1024, up to 268 MB each. The four convolutions, enlarged twice
    in between, reach 1.25 rows of the input.
    """
    height = features.shape[2]
    if not band_rows or height <= band_rows:
        return tail(features, 1.0)
    pieces = []
    for top in range(0, height, band_rows):
        first, last = max(0, top - _BAND_REACH_ROWS), min(height, top + band_rows + _BAND_REACH_ROWS)
        piece = tail(
            features[:, :, first:last], min(1.0, (top + band_rows) / height)
        )  # (N, 3, factor * (last - first), factor * w)
        factor = piece.shape[2] // (last - first)
        pieces.append(piece[:, :, (top - first) * factor :][:, :, : min(band_rows, height - top) * factor])
    return torch.cat(pieces, 2)  # (N, 3, factor * h, factor * w)


def _make_plain_trunk(inner: list[Any], device: torch.device, dtype: torch.dtype) -> Trunk:
    """The blocks one after another; (N, C, H, W) fp32 to the same."""
    blocks = [copy_channels_last(block, device, dtype) for block in inner]

    def run(stream: Tensor, on_block: Callable[[], None]) -> Tensor:
        for block in blocks:
            stream = _residual_block(block, stream, dtype)
            for _ in range(len(stream)):
                on_block()
        return stream

    return run


def _residual_block(block: Any, stream: Tensor, dtype: torch.dtype) -> Tensor:
    """One RRDB block, x + 0.2 * D3(D2(D1(x))), (N, 64, H, W) fp32 to the same, in `dtype` inside.

    Rounding the stream to bf16 at every block costs 4 dB against fp32; keeping it costs no time. Keeping the sums
    inside a block in fp32 as well would bring 1 dB more for 3 % of the time. ESRGAN+ blocks (1x1 convolutions) run as
    they are.
    """
    dense = (block.RDB1, block.RDB2, block.RDB3)
    if any(part.conv1x1 is not None for part in dense):
        return block(stream.to(dtype)).float()  # type: ignore[no-any-return]
    inner = stream.to(dtype)
    for part in dense:
        features = inner  # (N, 64 + 32 * k, H, W) after the k-th convolution
        for layer in (part.conv1, part.conv2, part.conv3, part.conv4):
            features = torch.cat((features, layer(features)), 1)
        inner = torch.add(inner, part.conv5(features), alpha=RESIDUAL)
    return torch.add(stream, inner, alpha=RESIDUAL)
