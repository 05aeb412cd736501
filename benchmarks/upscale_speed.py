"""Our engine against upstream's `RealESRGANer(tile=0, pre_pad=0)`: same photo, same weights, one interleaved run.

Each engine is a process of its own; rounds go through them in turn, so that a slow spell of the machine hits all.
Prints a table for people and one JSON line for machines. Run: `python -m benchmarks.upscale_speed --weights FOLDER
--photo FILE`. Where a model's file is missing, seeded random weights of its shape stand in.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.random_weights import put_weights
from benchmarks.variants import TUNED_ALLOCATOR, Variant


def measure(model: str, weights: Path, photo: Path, rounds: int, device: str) -> dict[str, object]:
    """Medians over `rounds` interleaved rounds after two that do not count."""
    common: dict[str, Any] = {"model": model, "weights": weights, "photo": photo, "device": device}
    variants = [
        Variant("upstream", "upstream", **common),
        Variant("upstream, tuned allocator", "upstream", environment=TUNED_ALLOCATOR, **common),
        Variant("ours, fp32", "ours", precision="fp32", **common),
        Variant("ours", "ours", **common),
    ]
    seconds: dict[str, list[float]] = {variant.name: [] for variant in variants}
    peaks: dict[str, float] = {}
    for number in range(rounds + 2):
        for variant in variants:
            answer = variant.run()
            peaks[variant.name] = answer["peak_mb"]
            if number >= 2:
                seconds[variant.name].append(answer["seconds"])
    for variant in variants:
        variant.close()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "model": model,
        "rounds": rounds,
        "median_seconds": medians,
        "peak_mb": peaks,
        "times_upstream": medians["upstream"] / medians["ours"],
        "times_upstream_tuned_allocator": medians["upstream, tuned allocator"] / medians["ours"],
    }


def show(row: dict[str, object]) -> None:
    """The table for people."""
    medians, peaks = row["median_seconds"], row["peak_mb"]
    assert isinstance(medians, dict)
    assert isinstance(peaks, dict)
    print(f"\n{row['model']} ({row['rounds']} rounds, medians)")
    for name, value in medians.items():
        ratio = medians["upstream"] / value
        tuned = medians["upstream, tuned allocator"] / value
        print(f"  {name:28s} {value * 1000:9.1f} ms  {ratio:5.2f}x  {tuned:5.2f}x of tuned  peak {peaks[name]:6.0f} MB")


def main() -> None:
    """Measure the models asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="folder with weight files")
    parser.add_argument("--photo", type=Path, required=True, help="photo whose middle is restored")
    parser.add_argument("--side", type=int, default=256, help="side of the crop, pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--models", nargs="+", default=["realesr-general-x4v3", "RealESRGAN_x4plus"])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put_weights(folder, asked.weights, asked.models)
        rgb = np.asarray(Image.open(asked.photo, formats=["JPEG", "PNG"]).convert("RGB"))
        top, left = (max(0, (side - asked.side) // 2) for side in rgb.shape[:2])
        np.save(folder / "photo.npy", rgb[top : top + asked.side, left : left + asked.side])
        rows = [measure(model, folder, folder / "photo.npy", asked.rounds, asked.device) for model in asked.models]
    for row in rows:
        show(row)
    print(
        json.dumps(
            {"machine": platform.processor() or platform.machine(), "python": sys.version.split()[0], "rows": rows}
        )
    )


if __name__ == "__main__":
    main()
