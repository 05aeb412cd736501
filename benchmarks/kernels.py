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
        rows.append(
            Row("kernels", f"matrix product, {precision}", {"gflop_per_s": best, **measured[products[0].name].tf32})
        )
        for model in request.models:
            figures = {"gflop_per_s": rates[model], "share_of_product": rates[model] / best, **measured[model].tf32}
            rows.append(Row("kernels", f"{model}, {side}x{side}, {precision}", figures))
    return rows
