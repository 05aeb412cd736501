"""The figures of `benchmarks.cuda_check` (steps 8 to 10): how busy a card is, its layers' rates, and CUDA graphs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional

from app.restoration import device as devices
from benchmarks.cuda_steps import Finding, Setting, enlarge

BUSY_SHARE = 0.9  # of x4plus at a result of 12 megapixels
LAYERS = ((64, 32), (96, 32), (128, 32), (160, 32), (192, 64), (64, 64))  # channels in and out, of ESRGAN's blocks
_RUNS = 20


def busy(setting: Setting) -> Iterator[Finding]:
    """Step 8: seconds of the first run and of later ones, and the card's share of the time."""
    if setting.on_cpu:
        yield Finding("busy", None, "left out: it needs a card")
        return
    devices.prepare(setting.device)
    for model in setting.models:
        network = setting.network(model, devices.choose_precision("auto", setting.device).value)
        for side in (866, 2500):
            pixels = setting.crop(side, side)
            first, *later = [_seconds(lambda: enlarge(network, pixels)) for _ in range(4)]  # noqa: B023
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                wall = _seconds(lambda: enlarge(network, pixels))  # noqa: B023
            share = sum(row.self_device_time_total for row in profile.key_averages()) / 1e6 / wall
            must = network.facts.architecture == "esrgan" and side == 866
            text = f"first {first:.3f} s, then {min(later):.3f} s, the card works {share:.0%} of it"
            yield Finding(f"{model}, {side}x{side}", share >= BUSY_SHARE if must else None, text)


def layers(setting: Setting) -> Iterator[Finding]:
    """Step 9: rates of single layers, of the plain matrix product, and of copies."""
    if setting.on_cpu:
        yield Finding("layers", None, "left out: it needs a card")
        return
    devices.prepare(setting.device)
    with torch.inference_mode():
        for inputs, outputs in LAYERS:
            for batch in (1, 4):
                x = _channels_last(torch.rand(batch, inputs, 544, 544), setting.device)
                weight = _channels_last(torch.rand(outputs, inputs, 3, 3), setting.device)
                first, each = _timed(lambda: functional.conv2d(x, weight, padding=1), setting.device)  # noqa: B023
                rate = 2 * 9 * inputs * outputs * batch * 544**2 / each / 1e12
                yield Finding(f"{inputs} to {outputs}, batch {batch}", None, f"{rate:.0f} TFLOP/s, first {first:.3f} s")
        a = torch.rand(8192, 8192, device=setting.device).bfloat16()
        _, each = _timed(lambda: a @ a, setting.device)
        yield Finding("matrix product 8192, bf16", None, f"{2 * 8192**3 / each / 1e12:.0f} TFLOP/s")
        pageable = torch.zeros(36_000_000, dtype=torch.uint8)
        for name, host in (("pinned", pageable.pin_memory()), ("pageable", pageable)):
            _, each = _timed(lambda: host.to(setting.device, non_blocking=True), setting.device)  # noqa: B023
            yield Finding(f"copy to the card, {name}", None, f"{0.036 / each:.1f} GB/s")


def graphs(setting: Setting) -> Iterator[Finding]:
    """Step 10: a captured graph gives equal bytes; its time beside the eager run's."""
    if setting.on_cpu:
        yield Finding("graphs", None, "left out: it needs a card")
        return
    devices.prepare(setting.device)
    for model in setting.models:
        network = setting.network(model, devices.choose_precision("auto", setting.device).value)
        for side in (64, 128, 256, 544):
            equal, eager, replayed = _captured(network, torch.rand(1, 3, side, side, device=setting.device))
            text = f"eager {eager * 1000:.2f} ms, replayed {replayed * 1000:.2f} ms"
            yield Finding(f"{model}, {side}", equal, f"{'equal' if equal else 'other'} bytes, {text}")


def _captured(network: Any, x: torch.Tensor) -> tuple[bool, float, float]:
    """Whether a replayed graph equals the eager run on (1, 3, h, w), and the seconds of both."""
    device = str(x.device)
    side_stream = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side_stream):  # plans must be made before a graph is captured
        for _ in range(3):
            wanted = network(x)
    torch.cuda.synchronize(x.device)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        made = network(x)
    graph.replay()
    torch.cuda.synchronize(x.device)
    equal = torch.equal(made, wanted)
    return equal, _timed(lambda: network(x), device)[1], _timed(graph.replay, device)[1]


def _channels_last(x: torch.Tensor, device: str) -> torch.Tensor:
    return x.to(device, torch.bfloat16, memory_format=torch.channels_last)


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _timed(call: Callable[[], object], device: str) -> tuple[float, float]:
    """Seconds of the first call, and of each of those that follow."""
    card = torch.device(device)

    def run(times: int) -> None:
        for _ in range(times):
            call()
        torch.cuda.synchronize(card)

    return _seconds(lambda: run(1)), _seconds(lambda: run(_RUNS)) / _RUNS
