"""The engines that are compared, each run as a process of its own that answers one timed run per line on its input.

A variant's allocator, precision and packages so never touch another's, and each peak of memory is its own. Rounds go
through all variants in turn, so that a slow spell of the machine hits all. It knows nothing of tables.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bare_runs
from benchmarks.request import WARM_UP_ROUNDS, Request, median

TUNED_ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "2147483647",
    "MALLOC_TOP_PAD_": "268435456",
}


RUNS_IN_A_ROW, SHORT_SECONDS = 3, 3.0


@dataclasses.dataclass(frozen=True)
class Measured:
    """One variant's median seconds, its work (multiplications and additions, 0: unknown) and its peaks of memory.

    `peaks` has `peak_mb` (resident, whole process, load included) and on CUDA `allocated_mb` (by torch, of the device).
    `tf32` says on CUDA whether the variant's fp32 was TF32; empty elsewhere.
    """

    seconds: float
    work: float
    peaks: dict[str, float]
    tf32: dict[str, bool] = dataclasses.field(default_factory=dict)


class Engine:
    """A module of the benchmarks as a process of its own, which answers each line on its input with one of JSON.

    The process starts at the first line, so that one that is not asked yet holds no memory of a card.
    """

    def __init__(self, name: str, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._command = [sys.executable, "-m", *words]
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[str] | None = None

    def ask(self, line: str) -> Any:
        """The answer to one line. Raises RuntimeError when the process died."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self._environment
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(f"the process of '{self.name}' ended; what it said stands above")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


class Variant(Engine):
    """One engine that does its work once a line; `run` tells the seconds."""

    def __init__(self, name: str, engine: str, **extra: Any) -> None:
        environment = extra.pop("environment", None)
        super().__init__(name, ("benchmarks.variants", json.dumps({"engine": engine, **extra})), environment)

    @classmethod
    def ours(cls, request: Request, model: str, side: int, name: str = "ours", **extra: Any) -> Variant:
        """Our engine on the crop of that side."""
        return cls(name, "ours", **_common(request, model, side), **extra)

    @classmethod
    def upstream(cls, request: Request, model: str, side: int, name: str = "upstream", **extra: Any) -> Variant:
        """Upstream's `RealESRGANer(tile=0, pre_pad=0)` on the crop of that side."""
        return cls(name, "upstream", **_common(request, model, side), **extra)

    @classmethod
    def bare(cls, request: Request, name: str, engine: str, **extra: Any) -> Variant:
        """A product or a network without a photo; see `bare_runs`."""
        return cls(name, engine, weights=str(request.weights), device=request.device, **extra)

    def run(self) -> dict[str, Any]:
        """One run: {"seconds", "work", "peak_mb"} and on CUDA "allocated_mb" and "tf32"."""
        answer: dict[str, Any] = self.ask("run")
        return answer


def describe_in_child(asked: str) -> tuple[str, dict[str, Any]]:
    """The device and the machine, asked in a process of its own: this one must not hold memory of a card."""
    command = [sys.executable, "-m", "app.evaluation.machine", asked]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    machine: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return machine["device"], machine


def measured_alone(request: Request, variants: Sequence[Variant], rounds: int) -> dict[str, Measured]:
    """As `interleaved`, but on a card one variant after another, so that no other process holds its memory."""
    if request.on_cpu:
        return interleaved(variants, rounds)
    return {name: row for variant in variants for name, row in interleaved([variant], rounds).items()}


def interleaved(variants: Sequence[Variant], rounds: int, warm_up: int = WARM_UP_ROUNDS) -> dict[str, Measured]:
    """Medians over `rounds` rounds through all variants, after some that do not count; ends their processes.

    A run after seconds of waiting for the others finds cold caches, which costs short runs up to a tenth. So where all
    variants are short, each turn is three runs in a row, of which the middle one counts.
    """
    seconds: dict[str, list[float]] = {variant.name: [] for variant in variants}
    last: dict[str, dict[str, Any]] = {}
    try:
        for _ in range(warm_up):
            last = {variant.name: variant.run() for variant in variants}
        slowest = max((answer["seconds"] for answer in last.values()), default=float("inf"))
        in_a_row = RUNS_IN_A_ROW if slowest < SHORT_SECONDS else 1
        for _ in range(rounds):
            for variant in variants:
                answers = [variant.run() for _ in range(in_a_row)]
                last[variant.name] = answers[-1]
                seconds[variant.name].append(median([answer["seconds"] for answer in answers]))
    finally:
        for variant in variants:
            variant.close()
    return {
        name: Measured(
            median(values),
            last[name]["work"],
            peaks={key: value for key, value in last[name].items() if key.endswith("_mb")},
            tf32={key: value for key, value in last[name].items() if key == "tf32"},
        )
        for name, values in seconds.items()
    }


def _common(request: Request, model: str, side: int) -> dict[str, Any]:
    photo = str(request.crop(side))
    return {"model": model, "weights": str(request.weights), "photo": photo, "device": request.device}


def _ours(task: dict[str, Any]) -> tuple[Callable[[], object], float]:
    from app.images import Picture
    from app.options import RestoreOptions
    from app.restoration import device
    from app.restoration.pipeline import Restorer

    restorer = Restorer(
        Path(task["weights"]),
        device=task["device"],
        precision=task.get("precision", "auto"),
        tile=task.get("tile", 0),
        allow_unverified=True,
    )
    device.prepare(restorer.setup.device.value)
    picture = Picture(np.load(task["photo"]))
    options = RestoreOptions(model=task["model"], face_enhance=False)

    def run() -> None:
        outcome = restorer.restore(picture, options, lambda fraction, stage: True)
        if "keep" in task:
            np.save(task["keep"], outcome.picture.rgb)
            task.pop("keep")  # once; later runs are timed without it

    return run, 0.0


def _upstream(task: dict[str, Any]) -> tuple[Callable[[], object], float]:
    from app.restoration.models.registry import ModelRegistry
    from app.restoration.reference.upscaling import make_upsampler

    registry = ModelRegistry(Path(task["weights"]), allow_unverified=True)
    upsampler = make_upsampler(registry, registry.find(task["model"]), None, task["device"], task.get("tile", 0))
    if task.get("half"):  # what its own constructor does with half=True
        upsampler.half, upsampler.model = True, upsampler.model.half()
    bgr = np.ascontiguousarray(np.load(task["photo"])[:, :, ::-1])
    return lambda: upsampler.enhance(bgr), 0.0


def _make(task: dict[str, Any]) -> tuple[Callable[[], object], float]:
    """The call that is timed, and its work."""
    makers = {
        "ours": _ours,
        "upstream": _upstream,
        "product": bare_runs.make_product,
        "network": bare_runs.make_network,
    }
    return makers[task["engine"]](task)


def peaks_of(device: str) -> dict[str, float]:
    """This process's peaks so far: `peak_mb` resident, and for a card `allocated_mb` by torch."""
    peaks = {"peak_mb": resident_mb("self")}
    if device != "cpu":
        import torch

        peaks["allocated_mb"] = torch.cuda.max_memory_allocated(torch.device(device)) / 2**20
    return peaks


def tf32_of(task: Mapping[str, Any]) -> dict[str, bool]:
    """{"tf32": whether fp32 was TF32 here}, by the switch for products or for convolutions; empty on a CPU."""
    if task["device"] == "cpu":
        return {}
    import torch

    backends = torch.backends
    return {"tf32": backends.cuda.matmul.allow_tf32 if task["engine"] == "product" else bool(backends.cudnn.allow_tf32)}


def resident_mb(process: str, name: str = "VmHWM") -> float:
    """What a process holds (VmRSS), or the most it held since its program began; Linux.

    `getrusage` would count the parent that started it, too.
    """
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:"))) / 1024


def serve(task: dict[str, Any]) -> None:
    """Answer each line of standard input with one run, timed inside this process."""
    answers = sys.stdout
    with contextlib.redirect_stdout(io.StringIO()):  # upstream prints
        call, work = _make(task)
        for _ in sys.stdin:
            started = time.perf_counter()
            call()
            seconds = time.perf_counter() - started
            answer = {"seconds": seconds, "work": work, **peaks_of(task["device"]), **tf32_of(task)}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
