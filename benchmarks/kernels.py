"""How fast the networks' arithmetic runs, as a share of what this device's plain matrix product reaches.

The rate counts the multiplications and additions that the convolutions need, over the seconds of one bare forward pass;
the matrix product is torch's own, square, the best of two sizes, measured in turn with it.
"""

from __future__ import annotations

from typing import Any

from benchmarks.request import Request, Row
from benchmarks.variants import Variant, interleaved

_CPU_SIDES, _CUDA_SIDES = (1024, 2048), (4096, 8192)
_REPEATS_ON_CUDA = 20  # a single product takes about a millisecond there


def measure(request: Request) -> list[Row]:
    """One matrix product and one network per shape, for each precision of the device."""
    side = min(request.sizes)
    repeats = 1 if request.on_cpu else _REPEATS_ON_CUDA
    rows = []
    for precision in ("fp32", "bf16") if request.on_cpu else ("fp32", "bf16", "fp16"):
        facts: dict[str, Any] = {"precision": precision, "repeats": repeats}
        sides = _CPU_SIDES if request.on_cpu else _CUDA_SIDES
        products = [Variant.bare(request, f"product {n}", "product", side=n, **facts) for n in sides]
        networks = [
            Variant.bare(request, model, "network", model=model, side=side, **facts) for model in request.models
        ]
        measured = interleaved([*products, *networks], request.rounds)
        rates = {name: row.work / row.seconds / 1e9 for name, row in measured.items()}
        best = max(rates[variant.name] for variant in products)
        rows.append(Row("kernels", f"matrix product, {precision}", {"gflop_per_s": best}))
        for model in request.models:
            figures = {"gflop_per_s": rates[model], "share_of_product": rates[model] / best}
            rows.append(Row("kernels", f"{model}, {side}x{side}, {precision}", figures))
    return rows


def product_work(side: int) -> float:
    """Multiplications and additions of a square matrix product."""
    return 2.0 * side**3


def make_product(task: dict[str, Any]) -> tuple[Any, float]:
    """(one call, its work) of a product of two square matrices on the task's device."""
    import torch

    from app.restoration.device import DTYPES

    device = torch.device(task["device"])
    generator = torch.Generator().manual_seed(0)
    shape = (task["side"], task["side"])
    a, b = (torch.randn(shape, generator=generator).to(device, DTYPES[task["precision"]]) for _ in range(2))
    c = torch.empty_like(a)  # written over and over, so that no fresh memory is counted
    return _repeated(lambda: torch.mm(a, b, out=c), task), product_work(task["side"]) * task["repeats"]


def make_network(task: dict[str, Any]) -> tuple[Any, float]:
    """(one call, its work) of a forward pass over a square tile that lies on the device already."""
    from pathlib import Path

    import torch

    from app.restoration import device as devices
    from app.restoration.models.registry import ModelRegistry

    registry = ModelRegistry(Path(task["weights"]), allow_unverified=True)
    devices.prepare(task["device"])
    network = registry.load(registry.find(task["model"]), None, task["device"], task["precision"])
    side = task["side"]
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(task["device"])
    return _repeated(lambda: network(x), task), 2e6 * network.facts.work * side * side * task["repeats"]


def _repeated(call: Any, task: dict[str, Any]) -> Any:
    """The call as often as asked, ended only when the device has ended."""
    import torch

    def run() -> None:
        with torch.inference_mode():
            for _ in range(task["repeats"]):
                call()
        if task["device"] != "cpu":
            torch.cuda.synchronize()

    return run
