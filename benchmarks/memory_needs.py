"""What photos take in a container: engines, sizes, scales, depths, alpha, faces and ensemble, each in a control group.

One process of the service's own parts restores one photo from file to file below a real memory limit, so that tiles
adapt as they will, and the group's anonymous memory (the decoder's child too) is sampled. `app/jobs/memory_need.py`
has its constants from here: `bytes_per_pixel` of a case is what came on top of the loaded process, less its tile.

Run as root: `python -m benchmarks.memory_needs --weights FOLDER`. Prints a line a case and JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.control_group import ControlGroup, control_group
from benchmarks.request import invented_picture

MEGABYTE = 1 << 20
LIMIT_MB = 2048
_SAMPLE_SECONDS = 0.01
_KINDS = ("rgb8", "rgba8", "rgb16", "rgba16", "grey8")


def cases(*, quick: bool, face_photo: Path | None) -> Iterator[dict[str, Any]]:
    """What is measured: small results for what tiles take, large ones for what each pixel takes.

    Faces only with a photo of some, in which each is restored if the weights folder has the networks.
    """
    fast = {"model": "realesr-animevideov3", "scale": 8.0, "kind": "rgb8", "faces": False, "quality": None}
    yield {**fast, "side": 128}
    yield {**fast, "side": 900}
    if quick:
        return
    for kind in _KINDS[1:]:
        yield {**fast, "side": 700, "kind": kind}
    yield {**fast, "side": 1500, "scale": 1.0}
    yield {**fast, "side": 1500, "scale": 1.0, "kind": "rgb16"}
    for model in ("realesr-general-x4v3", "RealESRGAN_x4plus_anime_6B", "RealESRGAN_x4plus"):
        yield {**fast, "side": 256, "scale": 4.0, "model": model}
    if face_photo is not None:
        yield {**fast, "side": 500, "scale": 4.0, "faces": True, "photo": str(face_photo)}
    yield {**fast, "side": 128, "scale": 4.0, "model": None, "quality": "best"}


def suffix_of(kind: str) -> str:
    """The suffix of the file that `write_photo` makes of a kind."""
    return "tif" if kind.endswith("16") else "jpg" if kind == "jpeg" else "png"


def mime_of(kind: str) -> str:
    """The type of that file."""
    return {"tif": "image/tiff", "jpg": "image/jpeg", "png": "image/png"}[suffix_of(kind)]


def write_photo(path: Path, side: int, kind: str) -> None:
    """A square photo of a kind."""
    rgb = invented_picture(side)
    if kind == "grey8":
        Image.fromarray(rgb[:, :, 0]).save(path)
    elif kind == "rgba8":
        Image.fromarray(np.dstack([rgb, rgb[::-1, :, 0]])).save(path)
    elif kind.endswith("16"):
        import tifffile

        deep = rgb.astype(np.uint16) * 257
        if kind == "rgba16":
            tifffile.imwrite(path, np.dstack([deep, deep[::-1, :, 0]]), photometric="rgb", extrasamples=["unassalpha"])
        else:
            tifffile.imwrite(path, deep, photometric="rgb")
    else:
        Image.fromarray(rgb).save(path)


def measure(case: dict[str, Any], weights: Path, limit_mb: int) -> dict[str, Any]:
    """Peaks of one case in megabytes, below a limit: the process when loaded, and the most that was used."""
    with tempfile.TemporaryDirectory() as name, control_group(limit_mb * MEGABYTE) as group:
        photo = Path(name) / f"photo.{suffix_of(case['kind'])}"
        if case.get("photo"):
            Image.open(case["photo"]).convert("RGB").resize((case["side"],) * 2).save(photo)
        else:
            write_photo(photo, case["side"], case["kind"])
        task = {**case, "photo": str(photo), "weights": str(weights)}
        command = group.inside([sys.executable, "-m", "benchmarks.memory_needs", "--case", json.dumps(task)])
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()  # loaded
        loaded = group.unreclaimable_bytes()
        with _sampling(group) as seen:
            process.stdin.write("go\n")
            process.stdin.flush()
            facts = json.loads(process.stdout.readline() or "{}")
            peak = max(seen)
        process.wait()
        pixels = (case["side"] * case["scale"]) ** 2
        return {
            **case,
            "loaded_mb": loaded // MEGABYTE,
            "peak_mb": peak // MEGABYTE,
            "result_megapixels": pixels / 1e6,
            "bytes_a_result_pixel": (peak - loaded) / pixels,
            "kills": group.kills(),
            **facts,
        }


class _sampling:  # noqa: N801 - a context manager used as a word
    """Samples a group's use in a thread of its own; the block gets the list of samples, bytes."""

    def __init__(self, group: ControlGroup) -> None:
        self._group, self._stop, self._seen = group, threading.Event(), [0]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> list[int]:
        self._thread.start()
        return self._seen

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self._seen.append(self._group.unreclaimable_bytes())


def run_case(task: dict[str, Any]) -> None:
    """Load, say so, wait for a word, restore one photo from file to file, and say how it went."""
    from app.backends.local import open_local_backend
    from app.images import Decoder, ImageLimits, encode
    from app.options import RestoreOptions

    backend = open_local_backend(Path(task["weights"]), device="cpu", allow_unverified=True)
    decoder = Decoder(ImageLimits())
    decoder.start()
    backend.load()
    print("loaded", flush=True)
    sys.stdin.readline()
    photo = Path(task["photo"])
    asked = {"model": task["model"]} if task["model"] else {"quality": task["quality"]}
    options = RestoreOptions(**asked, face_enhance=task["faces"], scale=task["scale"])
    restored = backend.restore(decoder.decode(photo), options, lambda fraction, stage: True)
    encode(restored.picture, photo.with_suffix(".out"), "png", 95, "keep")
    decoder.close()
    print(json.dumps({"tile": restored.params["tile_size"], "seconds": round(restored.seconds, 1)}), flush=True)


def main() -> None:
    """Measure all cases, or one in this process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory_needs", description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--limit-mb", type=int, default=LIMIT_MB)
    parser.add_argument("--quick", action="store_true", help="two cases only")
    parser.add_argument("--photo", type=Path, help="a photo with faces")
    parser.add_argument("--only", type=int, help="one case, by its number from 0")
    parser.add_argument("--case", help="one case as JSON, in this process")
    asked = parser.parse_args()
    if asked.case:
        run_case(json.loads(asked.case))
        return
    rows = []
    for number, case in enumerate(cases(quick=asked.quick, face_photo=asked.photo and asked.photo.resolve())):
        if asked.only not in (None, number):
            continue
        rows.append(measure(case, asked.weights.resolve(), asked.limit_mb))
        print(rows[-1], flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
