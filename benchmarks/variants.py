"""The engines that are compared, each run as a process of its own that restores one photo per line on its input.

A variant's allocator, precision and packages so never touch another's. It knows nothing of rounds or medians.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TUNED_ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "2147483647",
    "MALLOC_TOP_PAD_": "268435456",
}


class Variant:
    """One engine in its own process; `run` restores the photo once and returns seconds."""

    def __init__(self, name: str, engine: str, model: str, weights: Path, photo: Path, **extra: Any) -> None:
        self.name = name
        environment = {**os.environ, **(extra.pop("environment", None) or {})}
        task = {"engine": engine, "model": model, "weights": str(weights), "photo": str(photo), **extra}
        command = [sys.executable, "-m", "benchmarks.variants", json.dumps(task)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self) -> dict[str, Any]:
        """One restoration: {"seconds", "peak_mb"}."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _ours(task: dict[str, Any]) -> Callable[[], object]:
    from app.images import Picture
    from app.options import RestoreOptions
    from app.restoration import device
    from app.restoration.pipeline import Restorer

    restorer = Restorer(
        Path(task["weights"]),
        device=task.get("device", "auto"),
        precision=task.get("precision", "auto"),
        tile=task.get("tile", 0),
        allow_unverified=True,
    )
    device.prepare(restorer.device.value)
    picture = Picture(np.load(task["photo"]))
    options = RestoreOptions(model=task["model"])
    return lambda: restorer.restore(picture, options, lambda fraction, stage: True)


def _upstream(task: dict[str, Any]) -> Callable[[], object]:
    from app.restoration.device import choose_device
    from app.restoration.models import ModelShelf
    from app.restoration.reference import make_upsampler

    shelf = ModelShelf(Path(task["weights"]), allow_unverified=True)
    device = choose_device(task.get("device", "auto")).value
    upsampler = make_upsampler(shelf, shelf.find(task["model"]), None, device, task.get("tile", 0))
    bgr = np.ascontiguousarray(np.load(task["photo"])[:, :, ::-1])
    return lambda: upsampler.enhance(bgr)


def serve(task: dict[str, Any]) -> None:
    """Answer each line of standard input with one restoration, timed inside this process."""
    import resource

    answers = sys.stdout
    with contextlib.redirect_stdout(io.StringIO()):  # upstream prints
        restore = {"ours": _ours, "upstream": _upstream}[task["engine"]](task)
        for _ in sys.stdin:
            started = time.perf_counter()
            restore()
            seconds = time.perf_counter() - started
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps({"seconds": seconds, "peak_mb": peak_mb}), file=answers, flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
