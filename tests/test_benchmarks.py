"""The benchmarks' own arithmetic, and one whole run on a machine that has only torch and the model packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import bare_runs, codecs, precision, table, variants
from benchmarks.request import Request, Row, invented_picture
from benchmarks.variants import Variant, interleaved

ROOT = Path(__file__).resolve().parents[1]
ANIME, FAST = "realesr-animevideov3", "realesr-general-x4v3"
# What the service and its tools need, and a machine with torch and the model packages does not have.
ABSENT = (
    *("fastapi", "starlette", "uvicorn", "sqlalchemy", "pydantic", "pydantic_settings", "rich", "skimage", "psutil"),
    *(
        "tifffile",
        "isal",
        "httpx2",
        "httpcore2",
        "websockets",
        "limits",
        "itsdangerous",
        "prometheus_client",
        "zipstream",
    ),
)
BLOCKER = f"""
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def request_of(folder: Path, **changes: Any) -> Request:
    picture = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)
    values: dict[str, Any] = {
        "weights": folder,
        "folder": folder,
        "picture": picture,
        "sizes": (16, 24),
        "models": (FAST,),
        "rounds": 3,
        "device": "cpu",
    }
    return Request(**{**values, **changes})


class Noted:
    """Stands where a variant's process would, with times that are known; notes the order of the runs."""

    def __init__(self, name: str, seconds: list[float], order: list[str]) -> None:
        self.name, self.seconds, self.order = name, iter(seconds), order
        self.closed = False

    def run(self) -> dict[str, float]:
        self.order.append(self.name)
        return {"seconds": next(self.seconds), "work": 8.0, "peak_mb": 100.0 + len(self.order)}

    def close(self) -> None:
        self.closed = True


def test_rounds_go_through_all_variants_in_turn_and_medians_leave_the_warm_up_out() -> None:
    order: list[str] = []
    a, b = Noted("a", [99, 1, 5, 3], order), Noted("b", [99, 2, 2, 50], order)
    measured = interleaved([a, b], rounds=3, warm_up=1)  # type: ignore[list-item]
    assert order == ["a", "b"] * 4
    assert (measured["a"].seconds, measured["b"].seconds) == (3, 2)
    assert measured["b"].work == 8.0
    assert measured["b"].peaks == {"peak_mb": 108.0}
    assert a.closed
    assert b.closed


def test_short_runs_come_three_in_a_row_for_all_and_the_middle_one_counts() -> None:
    order: list[str] = []
    a, b = Noted("a", [1, 3, 1, 2, 9, 1, 1], order), Noted("b", [2, 2, 2, 2, 2, 2, 2], order)
    measured = interleaved([a, b], rounds=2, warm_up=1)  # type: ignore[list-item]
    assert order == ["a", "b", *("aaabbb" * 2)]
    assert measured["a"].seconds == 1.5
    order.clear()
    long = Noted("long", [4, 4, 4], order)
    interleaved([Noted("a", [1, 1, 1], order), long], rounds=2, warm_up=1)  # type: ignore[list-item]
    assert order == ["a", "long"] * 3


def test_on_a_card_each_variant_runs_alone_where_memory_is_measured(tmp_path: Path) -> None:
    order: list[str] = []

    class Alone(Noted):
        def run(self) -> dict[str, float]:
            assert all(other.closed for other in made if other is not self and other.name < self.name)
            return super().run()

    made = [Alone("a", [9, 9, 4, 4], order), Alone("b", [9, 9, 4, 4], order)]
    measured = variants.measured_alone(request_of(tmp_path, device="cuda:0"), made, rounds=2)  # type: ignore[arg-type]
    assert order == ["a"] * 4 + ["b"] * 4
    assert set(measured) == {"a", "b"}
    together = [Noted("a", [9, 9, 4, 4], order), Noted("b", [9, 9, 4, 4], order)]
    order.clear()
    variants.measured_alone(request_of(tmp_path), together, rounds=2)  # type: ignore[arg-type]
    assert order == ["a", "b"] * 4


def test_a_process_that_was_not_asked_yet_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    Variant("never asked", "ours", device="cuda:0").close()


def test_the_machine_is_described_in_a_process_of_its_own() -> None:
    device, machine = variants.describe_in_child("cpu")
    assert (device, machine["device"]) == ("cpu", "cpu")
    assert machine["torch"]


def test_tf32_is_stated_for_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    assert variants.tf32_of({"engine": "ours", "device": "cpu"}) == {}
    assert variants.tf32_of({"engine": "upstream", "device": "cuda:0"}) == {"tf32": True}  # torch's default
    assert variants.tf32_of({"engine": "product", "device": "cuda:0"}) == {"tf32": False}
    row = {"seconds": 9.0, "work": 1.0, "tf32": False}
    noted = Noted("a", [9.0], [])
    monkeypatch.setattr(noted, "run", lambda: row)
    assert interleaved([noted], rounds=1)["a"].tf32 == {"tf32": False}  # type: ignore[list-item]


def test_the_card_that_is_measured_is_waited_for_not_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    task = {"device": "cpu", "precision": "fp32", "side": 8, "repeats": 1}
    call, _ = bare_runs.make_product(task)
    task["device"] = "cuda:1"
    call()
    assert waited == [torch.device("cuda:1")]


def test_a_variant_that_dies_is_named_and_the_others_are_ended(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []
    other = Noted("other", [1.0], order)
    dead = Variant("the dead one", "no such engine", weights=str(tmp_path), device="cpu")
    with pytest.raises(RuntimeError, match="the dead one"):
        interleaved([other, dead], rounds=1, warm_up=0)  # type: ignore[list-item]
    assert other.closed
    assert "no such engine" in capfd.readouterr().err


def test_crops_come_from_the_middle_and_small_pictures_are_repeated(tmp_path: Path) -> None:
    request = request_of(tmp_path)
    assert (np.load(request.crop(20)) == request.picture[10:30, 20:40]).all()
    assert np.load(request.crop(100)).shape == (100, 100, 3)


def test_the_invented_picture_is_repeatable_and_falls_off_as_photos_do() -> None:
    picture = invented_picture(128)
    assert (picture == invented_picture(128)).all()
    assert (picture != invented_picture(128, seed=1)).any()
    power = np.abs(np.fft.fft(picture[:, :, 0].astype(float) - picture.mean(), axis=1)).mean(axis=0)
    assert power[2:6].mean() > 4 * power[40:60].mean()


def test_the_counted_work_is_that_of_the_layers(tmp_path: Path, random_weights: Path) -> None:
    task = {"weights": str(random_weights), "device": "cpu", "precision": "fp32", "repeats": 1}
    _, work = bare_runs.make_network({**task, "model": FAST, "side": 256})
    # 3 to 64 channels, 32 times 64 to 64, 64 to 48: nine taps each, two operations, every pixel
    assert work == pytest.approx(2 * 9 * (3 * 64 + 32 * 64 * 64 + 64 * 48) * 256 * 256, rel=0.01)
    call, work = bare_runs.make_product({**task, "side": 64, "repeats": 3})
    call()
    assert work == 3 * 2 * 64**3


def test_closeness_is_psnr() -> None:
    flat = np.full((9, 9, 3), 50, np.uint8)
    assert precision.psnr(flat, flat) is None
    assert precision.psnr(flat, flat + np.uint8(5)) == pytest.approx(20 * np.log10(255 / 5))


def test_the_table_lines_figures_up_under_their_units() -> None:
    rows = [Row("p", "short", {"median_ms": 1234.5}), Row("p", "a long name", {"median_ms": 2.0, "share_of_x": 0.5})]
    assert table.as_table(rows).splitlines() == [
        "             median ms  share of x",
        "short             1234",
        "a long name       2.00         50%",
    ]


def test_every_part_has_its_module() -> None:
    for name, (module, _) in command.PARTS.items():
        path = ROOT / f"{module.replace('.', '/')}.py"
        assert path.is_file(), name
        assert "def measure(request: Request) -> list[Row]" in path.read_text(encoding="utf-8"), name


def test_the_whole_run_works_where_only_torch_and_the_model_packages_are(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKER, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    words = ["--parts", "precision", "service", "--rounds", "1", "--sizes", "16", "--device", "cpu"]
    words += ["--models", ANIME, "--weights", "nowhere", "--quick"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["torch"]
    assert found["random_weights"] == [ANIME]
    assert set(found["left_out"]) == {"service"}
    assert "is not installed" in found["left_out"]["service"]
    assert {row["part"] for row in found["rows"]} == {"precision"}
    by_name = {row["what"]: row["figures"] for row in found["rows"]}
    assert by_name[f"{ANIME}, 16x16, bf16"]["psnr_to_fp32_db"] > 30
    assert "median ms" in done.stdout


def test_variants_tell_the_peak_of_their_own_process() -> None:
    assert variants.peaks_of("cpu")["peak_mb"] > 50


def test_two_checkouts_are_compared_in_turns_and_a_slower_step_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    words = (str(ROOT), "--megapixels", "0.01", "--rounds", "2")
    assert codecs.main((*words, "--most", "1000")) == 0
    assert codecs.main((*words, "--most", "0", "--least-ms", "-1000")) == 1
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["slower"] == [row["step"] for row in found["rows"]] == list(codecs.STEPS)
    assert all(row["before_ms"] > 0 and row["after_ms"] > 0 for row in found["rows"])
