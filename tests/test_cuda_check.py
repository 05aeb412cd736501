"""The command that checks a card: its verdicts, report and exit codes, with its steps run on the CPU at small sizes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.restoration import device as devices
from benchmarks import cuda_check, cuda_figures, cuda_steps
from benchmarks.cuda_steps import Finding, Setting

ROOT = Path(__file__).resolve().parents[1]
ANIME = "realesr-animevideov3"
# Everything the project installs but torch, NumPy, Pillow and spandrel with what these three need themselves.
ABSENT = (
    *("cv2", "facexlib", "gfpgan", "realesrgan", "basicsr", "scipy", "skimage", "tifffile", "isal", "psutil"),
    *("fastapi", "starlette", "uvicorn", "sqlalchemy", "pydantic", "pydantic_settings", "rich", "httpx2", "httpcore2"),
    *("websockets", "limits", "itsdangerous", "prometheus_client", "zipstream", "pillow_heif", "numba", "lpips"),
)
BLOCKER = f"""
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting("cpu", tmp_path, (ANIME,), shrink=8)


def verdicts(findings: Iterator[Finding]) -> dict[str, bool | None]:
    return {finding.what: finding.passed for finding in findings}


def test_parity_holds_on_the_cpu_and_a_network_that_is_off_fails(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (f"{ANIME}, fp32", f"{ANIME}, bf16")
    found = verdicts(cuda_steps.parity(setting))
    assert [found[name] for name in names] == [True, True]
    assert found[f"{ANIME}, fp32 with TF32"] is None
    plain = cuda_steps.enlarge

    def off(network: Any, pixels: Any, *rest: Any, **named: Any) -> Any:
        made, report = plain(network, pixels, *rest, **named)
        changed = made.astype(int) + (8 if network.precision == "bf16" else 2)
        return (made if off_calls.append(1) or len(off_calls) == 1 else np.clip(changed, 0, 255)), report  # type: ignore[func-returns-value]

    off_calls: list[int] = []
    monkeypatch.setattr(cuda_steps, "enlarge", off)
    assert [verdicts(cuda_steps.parity(setting))[name] for name in names] == [False] * 2


def test_tiles_agree_on_the_cpu_and_a_seam_fails(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(verdicts(cuda_steps.tiles(setting)).values())
    plain = cuda_steps.enlarge

    def with_seam(network: Any, pixels: Any, tile: int = 0, **named: Any) -> Any:
        made, report = plain(network, pixels, tile, **named)
        if 0 < tile < 4096:
            made = made.copy()
            made[:, made.shape[1] // 2] ^= 64
        return made, report

    monkeypatch.setattr(cuda_steps, "enlarge", with_seam)
    found = verdicts(cuda_steps.tiles(setting))
    assert [passed for what, passed in found.items() if "tile" in what].count(False) == 4


def test_equal_bytes_twice_in_a_thread_and_in_a_second_process(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verdicts(cuda_steps.repeatable(setting)) == {ANIME: True}
    digests = iter("aab")
    monkeypatch.setattr(cuda_steps, "digest", lambda *_: next(digests))
    answer = subprocess.CompletedProcess([], 0, stdout="a\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert verdicts(cuda_steps.repeatable(setting)) == {ANIME: False}


def test_faces_are_the_same_on_the_cpu_as_on_the_cpu(setting: Setting) -> None:
    with torch.random.fork_rng():
        found = verdicts(cuda_steps.faces(setting))
    assert found.pop("reflection padding") is None
    assert len(found) == 6
    assert all(found.values())


@pytest.mark.parametrize(
    "step", [cuda_steps.memory_caps, cuda_steps.poison, cuda_figures.busy, cuda_figures.layers, cuda_figures.graphs]
)
def test_what_needs_a_card_is_left_out_without_one(step: Any, setting: Setting) -> None:
    (finding,) = step(setting)
    assert finding.passed is None
    assert "left out" in finding.text


def test_memory_caps_pass_only_with_halving_a_like_picture_and_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's answers about a card of 6 GB are put in place; the networks run on the CPU."""
    cap, left = [6.0], [0]
    properties = type("Properties", (), {"total_memory": 6 * 2**30})
    for name in ("set_device", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: left[0])
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda part, _: cap.append(part * 6))
    monkeypatch.setattr(devices, "fix_kernels", lambda _: None)
    monkeypatch.setattr(devices, "choose_precision", lambda *_: devices.Choice("bf16", ""))
    network = Setting("cpu", tmp_path).network(ANIME, "fp32")

    def tight(x: torch.Tensor, on_part: Any) -> torch.Tensor:
        if x.shape[2] * x.shape[3] > cap[-1] * 100_000 // 16:
            raise words
        return network.run(x, on_part)

    words: Exception = RuntimeError("GET was unable to find an engine to execute this computation")
    limited = dataclasses.replace(network, run=tight)
    monkeypatch.setattr(Setting, "network", lambda *_: limited)
    setting = Setting("cuda:0", tmp_path, (ANIME,), shrink=8)
    found = verdicts(cuda_steps.memory_caps(setting))
    assert found == {f"{ANIME}, {gb} GB": True for gb in ("4", "2", "1", "0.6")} | {"halving took place": True}
    words = RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
    assert verdicts(cuda_steps.memory_caps(setting))[f"{ANIME}, 1 GB"] is False


def test_a_finding_that_failed_fails_its_step_and_figures_alone_decide_nothing() -> None:
    good, bad, figure = Finding("a", True, ""), Finding("b", False, ""), Finding("c", None, "")
    assert cuda_check.verdict_of([good, figure]) is True
    assert cuda_check.verdict_of([good, bad]) is False
    assert cuda_check.verdict_of([figure]) is None
    assert cuda_check.report({1: [good], 2: [figure]}) == cuda_check.PASSED
    assert cuda_check.report({1: [good], 2: [bad]}) == cuda_check.FAILED


def test_a_step_that_raises_fails_with_the_first_line(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    def step(_: Setting) -> Iterator[Finding]:
        yield Finding("a", True, "well")
        raise RuntimeError("CUDA error: misaligned address\nCompile with ...")

    assert cuda_check.run_here(step, setting) == cuda_check.PASSED
    first, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["passed"], last["passed"], last["text"]) == (
        True,
        False,
        "RuntimeError: CUDA error: misaligned address",
    )


def test_a_step_whose_process_dies_or_hangs_fails_and_the_next_one_runs(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(script: str, seconds: float = 60.0) -> list[Finding]:
        monkeypatch.setattr(cuda_check, "STEP_SECONDS", seconds)
        popen = subprocess.Popen
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", lambda command, **named: popen([sys.executable, "-c", script], **named))
            return cuda_check.run_apart(1, setting)

    finding = json.dumps({"what": "a", "passed": True, "text": "well"})
    (a, dead) = run(f"print('{finding}', flush=True); import os; os._exit(7)")
    assert (a.passed, dead.passed, dead.text) == (True, False, "ended with code 7")
    assert [found.text for found in run("print('no finding')")] == ["said nothing"]
    assert [found.text for found in run("import time; time.sleep(60)", 0.5)] == ["ended with code -9"]
    assert "FAIL" in capsys.readouterr().out


def command(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command where only torch, NumPy, Pillow and spandrel are installed."""
    (folder / "sitecustomize.py").write_text(BLOCKER, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "benchmarks.cuda_check", *words]
    return subprocess.run(
        arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_command_runs_with_torch_numpy_pillow_and_spandrel_alone(tmp_path: Path) -> None:
    words = ("--device", "cpu", "--shrink", "8", "--models", ANIME, "--weights", str(tmp_path))
    done = command(*words, "--steps", "1", "2", "4", "6", folder=tmp_path)
    assert done.returncode == cuda_check.PASSED, done.stdout + done.stderr
    assert f"pass  {ANIME}, fp32: max 0" in done.stdout
    assert "pass  4. equal bytes" in done.stdout
    assert "left out: the package cv2 is not installed" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_without_a_card_the_command_says_so_and_has_its_own_code(tmp_path: Path) -> None:
    done = command(folder=tmp_path)
    assert (done.returncode, done.stdout) == (cuda_check.NO_CARD, "There is no card to check: no CUDA device found.\n")


def test_a_card_that_is_there_and_does_not_work_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = {"device_reason": "NVIDIA P40 is not supported by the installed build", "device_is_fallback": True}
    monkeypatch.setattr(cuda_check, "describe_in_child", lambda asked: ("cpu", machine))
    assert cuda_check.main([]) == cuda_check.FAILED
    assert "The card fails: NVIDIA P40 is not supported" in capsys.readouterr().out
