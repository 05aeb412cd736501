"""`python -m benchmarks`: all measurements in one run, with the machine described: a table, and one JSON line.

It knows the parts by name and imports each when its turn comes, so that a part whose packages are missing is left out
with a word and the rest runs; what is measured and how belongs to the parts.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.evaluation.machine import in_words
from benchmarks.request import SHAPES, LeftOut, Request, Row, invented_picture
from benchmarks.table import as_table
from benchmarks.variants import describe_in_child

# in the order in which they run: the part's name, its module, and what it measures
PARTS = {
    "upscale": ("benchmarks.upscale_speed", "our engine against RealESRGANer"),
    "faces": ("benchmarks.faces", "our faces against GFPGANer"),
    "tiles": ("benchmarks.tiles", "sizes of tiles"),
    "precision": ("benchmarks.precision", "precisions of this device"),
    "memory": ("benchmarks.memory", "peaks of memory"),
    "kernels": ("benchmarks.kernels", "arithmetic against the plain matrix product"),
    "service": ("benchmarks.service", "the whole service against the bare engine"),
}
_CPU_SIDES, _CUDA_SIDES = (128, 256), (256, 1024)
_NEEDED_MODELS = (*SHAPES, "realesr-general-wdn-x4v3")


def main(words: Sequence[str] | None = None) -> int:
    """Measure the parts asked for; 1 when one of them failed."""
    asked = make_parser().parse_args(words)
    device, machine = describe_in_child(asked.device)
    print(f"{in_words(machine)}\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        request, invented = make_request(asked, Path(name), device)
        print(f"Weights: {_weights_words(invented)}. Medians of {request.rounds} rounds.", flush=True)
        rows, left_out, failed = run(asked.parts, request)
    for part, sentence in left_out.items():
        print(f"\n{part}: left out. {sentence}")
    facts = {"rounds": request.rounds, "sizes": request.sizes, "models": request.models, "random_weights": invented}
    answer: dict[str, Any] = {"machine": machine, **facts, "rows": [dataclasses.asdict(row) for row in rows]}
    print(f"\n{json.dumps({**answer, 'left_out': left_out, 'failed': failed}, allow_nan=False)}")
    return 1 if failed else 0


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    about = "; ".join(f"{name}: {words}" for name, (_, words) in PARTS.items())
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=f"Measures this machine. Parts: {about}.")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="random ones stand in for missing files")
    parser.add_argument("--photo", type=Path, help="photo that crops are cut from (default: one is invented)")
    parser.add_argument("--sizes", type=int, nargs="+", help="sides of the crops, pixels (128 256, on a card 256 1024)")
    parser.add_argument("--models", nargs="+", default=list(SHAPES), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5, help="that count; medians are over these")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--quick", action="store_true", help="the compact shape and the smaller photo only")
    return parser


def make_request(asked: argparse.Namespace, folder: Path, device: str) -> tuple[Request, list[str]]:
    """The request with its weights in place, and the models whose weights are random."""
    from benchmarks.random_weights import MODELS, put_weights

    sizes = tuple(sorted(asked.sizes or (_CPU_SIDES if device == "cpu" else _CUDA_SIDES)))
    models = tuple(asked.models[:1] if asked.quick else asked.models)
    wanted = [name for name in dict.fromkeys((*models, *_NEEDED_MODELS)) if name in MODELS]
    put_weights(folder, asked.weights, wanted)
    for path in asked.weights.glob("*.pth"):  # those of faces have hundreds of megabytes: linked, not copied
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.absolute())
    invented = [name for name in models if not (asked.weights / f"{name}.pth").is_file()]
    request = Request(
        weights=folder,
        folder=folder,
        picture=_picture(asked.photo),
        sizes=sizes[:1] if asked.quick else sizes,
        models=models,
        rounds=max(1, asked.rounds),
        device=device,
        quick=asked.quick,
    )
    return request, invented


def run(parts: Sequence[str], request: Request) -> tuple[list[Row], dict[str, str], dict[str, str]]:
    """Rows of all parts, sentences about those left out, and about those that failed; each part is shown when done."""
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    failed: dict[str, str] = {}
    for part in parts:
        module, words = PARTS[part]
        print(f"\n{part}: {words} ...", flush=True)
        try:
            found: list[Row] = importlib.import_module(module).measure(request)
        except LeftOut as reason:
            left_out[part] = str(reason)
        except ImportError as error:
            left_out[part] = f"The package {error.name} is not installed here."
        except Exception as error:  # noqa: BLE001 - the other parts are measured all the same
            failed[part] = f"{type(error).__name__}: {error}"
            print(f"{part} failed: {failed[part]}", file=sys.stderr)
        else:
            rows += found
            print(as_table(found), flush=True)
    return rows, left_out, failed


def _picture(photo: Path | None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if photo is None:
        return invented_picture()
    with Image.open(photo, formats=["JPEG", "PNG"]) as image:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _weights_words(invented: Sequence[str]) -> str:
    return f"random ones for {', '.join(invented)}" if invented else "the files at hand"


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
