"""The quality report as a user makes it: folders in, results and three files out, and a sentence for what goes wrong.

Networks are real ones where NIR_TEST_WEIGHTS names them, else seeded random files of the official shape.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import site
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from app.commands import bootstrap, evaluate
from app.errors import BadRequest
from app.evaluation.columns import Asked, make_columns
from app.evaluation.inputs import find_photos
from app.exit_codes import EXIT_INTERRUPTED
from app.restoration.reference import packages
from benchmarks.random_weights import put_weights

ROOT = Path(__file__).resolve().parents[1]
FAST, ANIME = "realesr-general-x4v3", "realesr-animevideov3"
EMBEDDED = "nir-embedded-x4"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small pictures gain nothing from threads, which wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def some_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    put_weights(folder, None, (FAST, ANIME))
    return folder


@pytest.fixture
def project(tmp_path: Path, some_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of its own with weights that restore quickly, and an empty test_inputs."""
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("WEIGHTS_FOLDER", str(some_weights)),
        ("ALLOW_UNVERIFIED_WEIGHTS", "true"),
        ("DEVICE", "cpu"),
        ("PRECISION", "fp32"),
    ):
        monkeypatch.setenv(name, value)
    (tmp_path / "test_inputs").mkdir()
    return tmp_path


def run(project: Path, *words: str) -> int:
    return evaluate.main(words, root=project)


def photo(height: int = 40, width: int = 48, left: int = 150) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.ascontiguousarray(data.astronaut()[60 : 60 + height, left : left + width])


def put(path: Path, pixels: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo() if pixels is None else pixels).save(path)
    return path


def report_of(project: Path, folder: str = "test_results") -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (project / folder / "report.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


def lines_of(project: Path) -> list[dict[str, str]]:
    with (project / "test_results" / "report.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_photos_are_restored_measured_and_reported(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(project / "test_inputs" / "one.png")
    put(project / "test_inputs" / "deeper" / "two.jpg", photo(36, 40))
    assert run(project, "--model", FAST, ANIME, "--faces", "off") == 0
    results = project / "test_results"
    for column in (FAST, ANIME):
        with Image.open(results / column / "one.png", formats=["PNG"]) as image:
            assert image.size == (192, 160)
        assert (results / column / "deeper" / "two.png").is_file()
    report = report_of(project)
    assert report["mode"] == "fidelity"
    assert [column["name"] for column in report["columns"]] == [FAST, ANIME]
    assert {row["photo"] for row in report["photos"]} == {"one.png", "deeper/two.jpg"}
    for row in report["photos"]:
        for cell in row["results"]:
            assert cell["model"] == cell["column"]
            assert cell["figures"]["fidelity_psnr"] > 5
            assert 0 <= cell["figures"]["fidelity_ssim"] <= 1
            assert (results / cell["result"]).is_file()
    lines = lines_of(project)
    assert len(lines) == 4
    assert float(lines[0]["fidelity_psnr"]) == report["photos"][0]["results"][0]["figures"]["fidelity_psnr"]
    shown = capsys.readouterr().out
    assert "Fidelity PSNR" in shown
    assert "100%" in shown
    assert str(project) not in (results / "report.json").read_text() + (results / "report.html").read_text()


def test_every_figure_is_told_with_channel_and_border(project: Path) -> None:
    put(project / "test_inputs" / "one.png", photo(64, 64))
    run(project, "--degrade", "--faces", "off")
    page = (project / "test_results" / "report.html").read_text()
    for figure in report_of(project)["figures"]:
        if figure["key"] != "gain_psnr_y":
            assert re.search(r"border \d", figure["convention"]), figure
            assert re.search(r"RGB|luma", figure["convention"]), figure
        assert figure["title"] in page
    assert "on luma (Y of YCbCr, BT.601, 16 to 235), border 4" in page


def test_degraded_photos_are_measured_against_themselves(project: Path) -> None:
    put(project / "test_inputs" / "odd.png", photo(67, 83))
    assert run(project, "--degrade", "--noise", "5", "--jpeg", "70", "--faces", "off") == 0
    with Image.open(project / "test_results" / "inputs" / "odd.png", formats=["PNG"]) as image:
        assert image.size == (20, 16)
    report = report_of(project)
    assert report["degradation"] == {"factor": 4, "noise_sigma": 5.0, "jpeg_quality": 70, "seed": 0}
    plain, ours = report["photos"][0]["results"]
    assert plain["column"] == "bicubic"
    assert plain["figures"]["gain_psnr_y"] == 0
    gain = ours["figures"]["psnr_y"] - plain["figures"]["psnr_y"]
    assert ours["figures"]["gain_psnr_y"] == pytest.approx(gain, abs=1e-5)
    assert plain["figures"]["psnr_y"] > 15


def test_references_are_found_by_name_and_a_wrong_size_is_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = photo(130, 121)
    put(project / "test_inputs" / "good.png", large[::4, ::4][:32, :30])
    put(project / "truth" / "GOOD.bmp", large)  # larger by a remainder of less than the scale
    put(project / "test_inputs" / "other.png", large[::4, ::4])
    put(project / "truth" / "other.png", large[:100])
    put(project / "test_inputs" / "alone.png", large[::4, ::4])
    assert run(project, "--reference", "truth", "--faces", "off") == 1
    report = report_of(project)
    codes = {row["photo"]: row["error"] and row["error"]["code"] for row in report["photos"]}
    assert codes == {"good.png": None, "other.png": "sizes_differ", "alone.png": "no_reference"}
    said = capsys.readouterr().err
    assert "124x132 pixels, its reference 121x100" in said
    assert [row["photo"] for row in report["photos"]][-1] == "good.png"  # trouble comes first


def test_one_bad_file_never_stops_the_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "test_inputs" / "a.jpg").write_bytes(b"<html>no photo</html>")
    cut = put(project / "whole.png").read_bytes()
    (project / "test_inputs" / "b.png").write_bytes(cut[: len(cut) // 2])
    put(project / "test_inputs" / "c.png")
    assert run(project, "--model", FAST, "no-such-model", "--faces", "off") == 1
    report = report_of(project)
    failures = {(row["photo"], row["column"]): row["code"] for row in report["failures"]}
    assert failures == {
        ("a.jpg", ""): "unsupported_format",
        ("b.png", ""): "undecodable_image",
        ("c.png", "no-such-model"): "unknown_model",
    }
    assert (project / "test_results" / FAST / "c.png").is_file()
    assert {line["error_code"] for line in lines_of(project)} == {"", *failures.values()}
    assert "There is no model" in capsys.readouterr().err


def test_what_nobody_foresaw_costs_its_photo_only(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.evaluation import figures

    honest = figures.fidelity

    def fails_once(original: Any, restored: Any) -> Any:
        monkeypatch.setattr(figures, "fidelity", honest)
        raise ZeroDivisionError

    monkeypatch.setattr(figures, "fidelity", fails_once)
    put(project / "test_inputs" / "a.png")
    put(project / "test_inputs" / "b.png")
    assert run(project, "--faces", "off") == 1
    report = report_of(project)
    assert [row["code"] for row in report["failures"]] == ["internal"]
    assert sum(row["results"][0]["error"] is None for row in report["photos"]) == 1


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("nowhere",), 2, "no folder nowhere"),
        ((), 1, "no photo in test_inputs"),
        (("--scale", "9"), 2, "'scale' must be between 1 and 8"),
        (("--degrade", "--scale", "2.5"), 2, "whole --scale"),
        (("--jpeg", "50"), 2, "belong to --degrade"),
        (("--degrade", "--jpeg", "0"), 2, "between 1 and 100"),
        (("--model", FAST, FAST), 2, "asked for twice"),
        (("--output", "test_inputs"), 2, "cannot share a folder"),
        (("--reference", "nowhere"), 2, "no folder nowhere"),
    ],
)
def test_a_call_that_cannot_work_ends_with_a_sentence(
    project: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, sentence: str
) -> None:
    if words:
        put(project / "test_inputs" / "one.png")
    assert run(project, *words) == code
    assert sentence in capsys.readouterr().err
    assert not (project / "test_results").exists()


def test_a_missing_key_is_told_before_any_work(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(project / "test_inputs" / "one.png")
    assert run(project, "--backend", "siliconflow") == 2
    assert "SILICONFLOW_API_KEY" in capsys.readouterr().err


def test_each_way_of_restoring_is_a_column() -> None:
    columns = make_columns(Asked(["m1", "m2"], ["fast"], ["local", "siliconflow"], ["on", "off"]), {"scale": "2"})
    names = [column.name for column in columns]
    assert names[:6] == [f"{pick}, faces {face}" for pick in ("m1", "m2", "fast") for face in ("on", "off")]
    assert names[6:] == ["siliconflow, faces on", "siliconflow, faces off"]
    assert {column.options.scale for column in columns} == {2.0}
    assert [column.options.face_enhance for column in columns[:2]] == [True, False]
    assert columns[0].folder == "m1-faces-on"
    assert make_columns(Asked(), {})[0].name == "default"
    for clash in ("bicubic", "inputs"):
        with pytest.raises(BadRequest, match="asked for twice"):
            make_columns(Asked([clash]), {})


def test_photos_are_found_in_depth_and_results_are_not_photos(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a_jpg.png", "deep/b.PNG", ".hidden/c.png", "notes.txt", "out/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_photos(tmp_path, apart_from=tmp_path / "out")
    assert [(photo.label, photo.stem) for photo in found] == [
        ("a.jpg", "a_jpg_2"),
        ("a.png", "a_png"),
        ("a_jpg.png", "a_jpg"),
        ("deep/b.PNG", "deep/b"),
    ]


def test_grey_deep_transparent_and_tiny_photos_are_measured(project: Path) -> None:
    inputs = project / "test_inputs"
    put(inputs / "grey.png", photo()[:, :, 0])
    put(inputs / "deep.png", photo()[:, :, 0].astype(np.uint16) * 257)
    put(inputs / "clear.png", np.dstack([photo(), np.full((40, 48), 90, np.uint8)]))
    put(inputs / "tiny.png", np.full((1, 3, 3), 7, np.uint8))
    assert run(project, "--faces", "off") == 0
    for row in report_of(project)["photos"]:
        assert row["results"][0]["figures"]["fidelity_ciede2000"] is not None
        assert (row["results"][0]["figures"]["fidelity_ssim"] is None) == (row["photo"] == "tiny.png")


def test_ctrl_c_leaves_a_report_of_what_was_done(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(project / "test_inputs" / "a.png")
    put(project / "test_inputs" / "b.png")
    opened = evaluate.open_backends

    class PressedInTheMiddle:
        """The real backend; at the second photo Ctrl-C is pressed."""

        name = "local"

        def __init__(self, backend: Any) -> None:
            self.backend, self.photos = backend, 0

        def restore(self, picture: Any, options: Any, on_progress: Any) -> Any:
            self.photos += 1
            if self.photos == 2:
                signal.raise_signal(signal.SIGINT)
            return self.backend.restore(picture, options, on_progress)

    def open_backends(*words: Any) -> Any:
        backends, device = opened(*words)
        return {"local": PressedInTheMiddle(backends["local"])}, device

    monkeypatch.setattr(evaluate, "open_backends", open_backends)
    before = signal.getsignal(signal.SIGINT)
    assert run(project, "--faces", "off") == EXIT_INTERRUPTED
    assert signal.getsignal(signal.SIGINT) is before
    report = report_of(project)
    assert report["interrupted"] is True
    assert [row["photo"] for row in report["photos"]] == ["a.png"]
    assert not list((project / "test_results").rglob("b.*"))
    assert "press Ctrl-C again" in capsys.readouterr().err


def test_evaluate_is_an_entrance_that_starts_itself_again_in_the_environment(tmp_path: Path) -> None:
    # An environment as run.py leaves it, which borrows this one's packages.
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    (folder / "requirements.sha256").write_text(f"{bootstrap.fingerprint(ROOT)} plain", encoding="ascii")
    command = [sys.executable, str(ROOT / "evaluate.py"), "--help"]
    environment = {**os.environ, "VENV_FOLDER": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    answer = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert "Installing" not in answer.stdout
    for word in ("evaluate.py", "--degrade", "--reference", "--model", "--faces", "report.html"):
        assert word in answer.stdout


def test_niqe_is_basicsrs_and_kept_from_pictures_that_have_none() -> None:
    from app.evaluation.naturalness import niqe

    if not packages.is_available():
        pytest.skip("basicsr is not installed here (it needs Python 3.11 or 3.12)")
    from basicsr.metrics.niqe import calculate_niqe

    cat = np.ascontiguousarray(data.chelsea())
    assert niqe(cat) == pytest.approx(calculate_niqe(cat[:, :, ::-1], crop_border=0), abs=1e-4)
    assert niqe(cat[:150, :280]) is None  # two blocks: no statistics
    assert niqe(np.full((300, 300, 3), 128, np.uint8)) is None  # a flat picture has none either


@pytest.mark.parametrize("model", [FAST, EMBEDDED])
def test_degraded_figures_are_the_same_twice(
    model: str, real_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if model == EMBEDDED and not (ROOT / "weights" / f"{EMBEDDED}.safetensors").is_file():
        pytest.skip("the embedded model's file is not in weights/ here")
    folder = real_weights if model == FAST else ROOT / "weights"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEIGHTS_FOLDER", str(folder))
    monkeypatch.setenv("ALLOW_UNVERIFIED_WEIGHTS", "true")
    for name in ("astronaut", "chelsea", "coffee"):
        put(tmp_path / "test_inputs" / f"{name}.png", getattr(data, name)()[:256, 100:356])
    reports = []
    for folder_name in ("first", "second"):
        words = ("--degrade", "--noise", "4", "--jpeg", "60", "--faces", "off", "--model", model)
        assert run(tmp_path, *words, "--output", folder_name) == 0
        reports.append(report_of(tmp_path, folder_name))
    rows = [
        [(cell["column"], cell["figures"]) for row in report["photos"] for cell in row["results"]] for report in reports
    ]
    for (column, first), (_, second) in zip(*rows, strict=True):
        for key, value in first.items():
            assert value == pytest.approx(second[key], abs=5e-3), (column, key)
    means = {column["name"]: column["mean"] for column in reports[0]["columns"]}
    assert means[model]["psnr_y"] > 20
    assert means[model]["gain_psnr_y"] != 0  # it is not the baseline that repeats itself
