"""Peaks of memory, each in a process of its own: the engines on one photo, and a whole photo from file to file.

Resident memory counts everything the process holds, torch and the weights included; on a card torch's own peak of
allocated memory is told too. `python -m benchmarks.memory --case` is one such process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

from app.restoration.reference.packages import is_available
from benchmarks.request import Request, Row
from benchmarks.variants import Variant, interleaved, peaks_of, resident_mb

# Sides of the inputs, pixels: four times larger, squared, the results have 12 and 100 megapixels.
FILE_SIDE, HUGE_FILE_SIDE = 866, 2500


def measure(request: Request) -> list[Row]:
    """The engines on the largest photo, once each; then our file-to-file peaks at results of 12 and 100 megapixels."""
    side = max(request.sizes)
    rows = []
    for model in request.models:
        for make in (Variant.ours, *((Variant.upstream,) if is_available() else ())):
            variant = make(request, model, side)
            measured = interleaved([variant], rounds=1, warm_up=0)[variant.name]
            rows.append(Row("memory", f"{model}, {side}x{side}, {variant.name}", {**measured.peaks, **measured.tf32}))
    if not request.quick:
        cases = [(model, FILE_SIDE) for model in request.models] + [(request.models[0], HUGE_FILE_SIDE)]
        rows += [_from_file_to_file(request, model, side) for model, side in cases]
    return rows


def _from_file_to_file(request: Request, model: str, side: int) -> Row:
    """One photo decoded, restored and written as PNG by the service's own parts, in a process of its own."""
    photo = request.folder / f"photo_{side}.png"
    if not photo.exists():
        Image.fromarray(request.picture).resize((side, side), Image.Resampling.BICUBIC).save(photo)
    task = {"weights": str(request.weights), "photo": str(photo), "model": model, "device": request.device}
    command = [sys.executable, "-m", "benchmarks.memory", "--case", json.dumps(task)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Row("memory", f"{model}, file to file, result of {figures.pop('megapixels')} MP", figures)


def run_case(task: dict[str, Any]) -> dict[str, Any]:
    """Restore one photo in this process and look at the peaks; the decoder's child is listed apart."""
    from app.backends.local import open_local_backend
    from app.images import Decoder, ImageLimits, encode
    from app.options import RestoreOptions

    backend = open_local_backend(Path(task["weights"]), device=task["device"], allow_unverified=True)
    decoder = Decoder(ImageLimits())
    decoder.start()
    backend.load()
    started = time.monotonic()
    ready_mb = peaks_of("cpu")["peak_mb"]
    photo = Path(task["photo"])
    options = RestoreOptions(model=task["model"], face_enhance=False)
    restored = backend.restore(decoder.decode(photo), options, lambda fraction, stage: True)
    encoded = encode(restored.picture, photo.with_suffix(".out"), "png", 95, "keep")
    peaks = peaks_of(task["device"])
    decoder_mb = max(resident_mb(child) for child in children())
    decoder.close()
    return {
        "megapixels": round(encoded.width * encoded.height / 1e6),
        "ready_mb": ready_mb,
        **peaks,
        "decoder_mb": decoder_mb,
        "seconds": time.monotonic() - started,
        "tile": restored.params["tile_size"],
    }


def children() -> list[str]:
    """The numbers of this process's children."""
    return [child for path in Path("/proc/self/task").glob("*/children") for child in path.read_text().split()]


def main() -> None:
    """One case in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", required=True, help="the case as JSON")
    print(json.dumps(run_case(json.loads(parser.parse_args().case))))


if __name__ == "__main__":
    main()
