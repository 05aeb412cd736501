"""What it costs to cut a large result into tiles while it is encoded: encoding alone, cutting alone, both at once.

`python -m benchmarks.pyramids [--megapixels 400] [--format png]`. Each is run in a process of its own; memory is what
came on top of the pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from app.images import Picture, cut_picture, encode
from benchmarks.request import Row, invented_picture
from benchmarks.table import as_table

WAYS = ("encode", "cut", "both")
_BLOCK = 1000
_MEGABYTE = 1 << 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="seconds and memory of cutting a result into tiles")
    parser.add_argument("--megapixels", type=float, default=400)
    parser.add_argument("--format", default="png", choices=("jpg", "png", "tiff", "webp"))
    parser.add_argument("--wide", type=float, default=1.0, help="width over height")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.way:
        print(json.dumps(run(chosen.way, chosen.megapixels, chosen.wide, chosen.format)))
        return
    rows = []
    for way in WAYS:
        command = [sys.executable, "-m", "benchmarks.pyramids", *sys.argv[1:], "--way", way]
        rows.append(Row("pyramids", way, json.loads(subprocess.run(command, check=True, capture_output=True).stdout)))
    print(as_table(rows))
    print(f"load average {os.getloadavg()[0]:.1f}")


def run(way: str, megapixels: float, wide: float, output_format: str) -> dict[str, float]:
    """One way, from pixels in hand."""
    height = round((megapixels * 1e6 / wide) ** 0.5 / _BLOCK) * _BLOCK or _BLOCK
    width = round(megapixels * 1e6 / height / _BLOCK) * _BLOCK
    picture = Picture(np.tile(invented_picture(_BLOCK), (height // _BLOCK, width // _BLOCK, 1)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cut_picture(Picture(picture.rgb[:2000, :2000]), folder).close()  # libvips is loaded
        before = _peak_bytes()
        began = time.perf_counter()
        facts: dict[str, float] = {}

        def cut() -> None:
            pyramid = cut_picture(picture, folder)
            facts.update(cut_seconds=time.perf_counter() - began, tiles_mb=pyramid.bytes / _MEGABYTE)
            pyramid.close()

        thread = threading.Thread(target=cut)
        if way != "encode":
            thread.start()
        if way != "cut":
            encoded = encode(picture, folder / "result", output_format, 95, "keep")
            facts.update(encode_seconds=time.perf_counter() - began, file_mb=encoded.bytes_written / _MEGABYTE)
        if way != "encode":
            thread.join()
        return {**facts, "all_seconds": time.perf_counter() - began, "memory_mb": (_peak_bytes() - before) / _MEGABYTE}


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
