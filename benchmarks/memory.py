"""Peak memory of one photo from file to file: decode, restore, encode, each case in a process of its own.

Prints a table for people and one JSON line for machines; the decoder's child is listed apart. Run: `python -m
benchmarks.memory --weights FOLDER --photo FILE`. Where a model's file is missing, random weights of its shape stand in.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.random_weights import put_weights

_MB = 1024  # ru_maxrss counts kilobytes
# (model, side of the input in pixels): 866 x 4 squared is 12 megapixels, 2500 x 4 squared is 100.
CASES = (("realesr-general-x4v3", 866), ("realesr-general-x4v3", 2500), ("RealESRGAN_x4plus", 866))


def run_case(weights: Path, photo: Path, model: str, output_format: str) -> dict[str, Any]:
    """Restore one photo in this process and look at the peaks."""
    from app.backends.local import open_local_backend
    from app.images import Decoder, ImageLimits, encode
    from app.options import RestoreOptions

    backend = open_local_backend(weights, allow_unverified=True)
    decoder = Decoder(ImageLimits())
    decoder.start()
    backend.load()
    started = time.monotonic()
    ready_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MB
    options = RestoreOptions(model=model, face_enhance=False)
    restored = backend.restore(decoder.decode(photo), options, lambda fraction, stage: True)
    restored_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MB
    encoded = encode(restored.picture, photo.with_suffix(".out"), output_format, 95, "keep")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MB
    decoder.close()
    return {
        "model": model,
        "megapixels": round(encoded.width * encoded.height / 1e6, 1),
        "format": encoded.extension,
        "ready_mb": round(ready_mb),
        "restored_mb": round(restored_mb),
        "peak_mb": round(peak_mb),
        "decoder_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / _MB),
        "seconds": round(time.monotonic() - started, 1),
        "tile": restored.params["tile_size"],
    }


def _spawn(folder: Path, photo: Path, model: str, output_format: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", "--case", model, "--weights", str(folder)]
    command += ["--photo", str(photo), "--format", output_format]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """All cases in turn, or one (`--case`) in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--format", default="png")
    parser.add_argument("--case", help="only this model, the photo as it is, in this process")
    parser.add_argument("--huge", action="store_true", help="100 megapixels through the x4plus shape too (minutes)")
    asked = parser.parse_args()
    if asked.case:
        print(json.dumps(run_case(asked.weights, asked.photo, asked.case, asked.format)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put_weights(folder, asked.weights, ["realesr-general-x4v3", "RealESRGAN_x4plus"])
        image = Image.open(asked.photo, formats=["JPEG", "PNG"]).convert("RGB")
        for model, side in (*CASES, ("RealESRGAN_x4plus", 2500))[: 4 if asked.huge else 3]:
            photo = folder / f"photo_{side}.png"
            image.resize((side, side), Image.Resampling.BICUBIC).save(photo)
            rows.append(_spawn(folder, photo, model, asked.format))
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
