"""Our engine in each precision of this device: seconds, and how far the result is from that in fp32."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from benchmarks.request import Request, Row
from benchmarks.variants import Variant, interleaved


def measure(request: Request) -> list[Row]:
    """fp32 and bf16, and fp16 on a card, on the smallest photo."""
    side = min(request.sizes)
    names = ("fp32", "bf16") if request.on_cpu else ("fp32", "bf16", "fp16")
    rows = []
    for model in request.models:
        files = {name: request.folder / f"precision_{model}_{name}.npy" for name in names}
        variants = [
            Variant.ours(request, model, side, name=name, precision=name, keep=str(files[name])) for name in names
        ]
        measured = interleaved(variants, request.rounds)
        exact = np.load(files["fp32"])
        for name, row in measured.items():
            figures: dict[str, object] = {"median_ms": row.seconds * 1000}
            figures |= row.tf32
            figures["times_fp32"] = measured["fp32"].seconds / row.seconds
            if name != "fp32":
                figures["psnr_to_fp32_db"] = psnr(exact, np.load(files[name]))
            rows.append(Row("precision", f"{model}, {side}x{side}, {name}", figures))
    return rows


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float | None:
    """PSNR over all samples of two uint8 pictures, dB; None for equal ones."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 10.0 * math.log10(255.0**2 / error) if error else None
