"""Decoding and encoding of plain photos in two checkouts of this project, interleaved: what a change of either costs.

Run `python -m benchmarks.codecs BEFORE [AFTER]` with two folders that hold the project; both run with this Python. Each
checkout is a process of its own, and the two take turns, so that a slow spell of the machine hits both. It prints a
table and one JSON line, and exits 1 when a step became slower than `--most` times what it was.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FORMATS = ("jpg", "png")
STEPS = tuple(f"{step} {name}" for name in FORMATS for step in ("header", "decode", "encode"))
_WARM_UP_ROUNDS = 2
_QUALITY = 95


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One step in both checkouts, medians in milliseconds; `ratio` is the median of the rounds' own ratios."""

    step: str
    before_ms: float
    after_ms: float
    ratio: float


class Checkout:
    """One checkout's process, which does a step for each line and answers with its seconds."""

    def __init__(self, folder: Path, photos: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--serve", str(photos)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
        )

    def seconds(self, step: str) -> float:
        """How long one step took, timed inside the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{step}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the process of a checkout ended; what it said stands above")
        return float(json.loads(answer))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main(words: Sequence[str] | None = None) -> int:
    """Compare two checkouts; 1 when a step became too slow."""
    asked = make_parser().parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        make_photos(Path(name), asked.megapixels)
        found = compare(asked.before.resolve(), asked.after.resolve(), Path(name), asked.rounds)
    print(f"{'':12} {'before':>9} {'after':>9} {'ratio':>6}")
    for row in found:
        print(f"{row.step:12} {row.before_ms:6.1f} ms {row.after_ms:6.1f} ms {row.ratio:6.3f}")
    slower = [row.step for row in found if row.ratio > asked.most and row.after_ms - row.before_ms > asked.least_ms]
    rows = [dataclasses.asdict(row) for row in found]
    print(json.dumps({"megapixels": asked.megapixels, "rounds": asked.rounds, "rows": rows, "slower": slower}))
    return 1 if slower else 0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codecs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path, metavar="BEFORE", help="folder with the project as it was")
    parser.add_argument("after", type=Path, nargs="?", default=ROOT, metavar="AFTER", help="as it is (this one)")
    parser.add_argument("--megapixels", type=float, default=12.0)
    parser.add_argument("--rounds", type=int, default=15, help="that count; medians are over these")
    parser.add_argument("--most", type=float, default=1.05, help="ratio above which a step counts as slower")
    parser.add_argument("--least-ms", type=float, default=1.0, help="difference below which it does not")
    return parser


def make_photos(folder: Path, megapixels: float) -> None:
    """A photo of four by three in each format: soft shapes with the grain of a sensor, no metadata."""
    import numpy as np
    from PIL import Image

    height = max(4, round((megapixels * 1e6 * 3 / 4) ** 0.5))
    width = height * 4 // 3
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / height
    waves = [np.sin(7 * x + k) * np.cos(5 * y + 2 * k) * 90 + 128 for k in range(3)]
    grain = np.random.default_rng(1).normal(0, 4, (height, width, 3)).astype(np.float32)
    image = Image.fromarray(np.clip(np.stack(waves, axis=2) + grain, 0, 255).astype(np.uint8))
    image.save(folder / "photo.jpg", quality=92)
    image.save(folder / "photo.png", compress_level=6)


def compare(before: Path, after: Path, photos: Path, rounds: int) -> list[Comparison]:
    """Every step in both checkouts by turns; who goes first changes with each round."""
    times: dict[str, tuple[list[float], list[float]]] = {step: ([], []) for step in STEPS}
    with _running(before, photos) as old, _running(after, photos) as new:
        for number in range(_WARM_UP_ROUNDS + rounds):
            for step in STEPS:
                order = ((0, old), (1, new)) if number % 2 else ((1, new), (0, old))
                for place, checkout in order:
                    seconds = checkout.seconds(step)
                    if number >= _WARM_UP_ROUNDS:
                        times[step][place].append(seconds)
    return [_compared(step, *both) for step, both in times.items()]


def _compared(step: str, before: list[float], after: list[float]) -> Comparison:
    ratio = statistics.median(late / early for early, late in zip(before, after, strict=True))
    return Comparison(step, statistics.median(before) * 1000, statistics.median(after) * 1000, ratio)


@contextlib.contextmanager
def _running(folder: Path, photos: Path) -> Iterator[Checkout]:
    checkout = Checkout(folder, photos)
    try:
        yield checkout
    finally:
        checkout.close()


def serve(photos: Path) -> None:
    """Do one step for each line of standard input: the header check, the decoder's child, the encoder."""
    from app.images import Decoder, ImageLimits, encode, read_header

    limits = ImageLimits()
    decoder = Decoder(limits)
    pictures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            step, name = line.split()
            photo = photos / f"photo.{name}"
            began = time.perf_counter()
            if step == "header":
                read_header(photo, limits)
            elif step == "decode":
                pictures[name] = decoder.decode(photo)
            else:
                encode(pictures[name], Path(folder) / "result", name, _QUALITY, "keep")
            print(json.dumps(time.perf_counter() - began), flush=True)
    decoder.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]))
    else:
        sys.exit(main())
