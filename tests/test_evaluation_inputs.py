"""Which photos and references an evaluation reads, with a stand-in for the backend."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from app.commands import evaluate, evaluate_damage
from app.evaluation.inputs import find_photos
from tests.command_line import put_photo
from tests.harness import LanczosBackend


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder whose local backend is a stand-in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "open_backends", lambda *_: ({"local": LanczosBackend(1 << 16)}, "cpu"))
    return tmp_path


def test_a_reference_may_be_as_large_as_a_result(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_INPUT_MEGAPIXELS", "0.01")
    put_photo(folder / "test_inputs" / "a.png", 60, 48)
    put_photo(folder / "truth" / "a.png", 240, 192)
    assert evaluate.main(["--reference", "truth", "--faces", "off"], root=folder) == 0
    (row,) = json.loads((folder / "test_results" / "report.json").read_text())["photos"]
    assert row["error"] is None
    put_photo(folder / "test_inputs" / "a.png", 240, 192)
    assert evaluate.main(["--faces", "off"], root=folder) == 1, "the limit of photos stays"


def test_results_may_be_written_around_the_photos(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_photo(folder / "report" / "photos" / "a.png")
    put_photo(folder / "report" / "default" / "a.png")
    assert evaluate.main(["report/photos", "--output", "report", "--faces", "off"], root=folder) == 0
    for words in (["report/default"], ["report/photos", "--reference", "report/default"]):
        capsys.readouterr()
        assert evaluate.main([*words, "--output", "report", "--faces", "off"], root=folder) == 2
        assert "cannot share a folder" in capsys.readouterr().err


def test_photos_and_references_are_found_inside_the_results_folder(tmp_path: Path) -> None:
    for name in ("photos/a.png", "truth/a.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (found,) = find_photos(tmp_path / "photos", apart_from=tmp_path, reference=tmp_path / "truth")
    assert (found.label, found.reference) == ("a.png", tmp_path / "truth" / "a.png")


@pytest.mark.parametrize("words", [[], ["--degrade", "--noise", "2"]])
def test_a_name_that_is_no_utf_8_costs_no_report(folder: Path, words: list[str]) -> None:
    put_photo(folder / "test_inputs" / "b.png", 60, 48)
    put_photo(folder / "test_inputs" / "a.png", 60, 48).rename(folder / "test_inputs" / os.fsdecode(b"caf\xe9.png"))
    assert evaluate.main(["--faces", "off", *words], root=folder) == 0
    results = folder / "test_results"
    rows = json.loads((results / "report.json").read_text(encoding="utf-8"))["photos"]
    assert {row["photo"] for row in rows} == {"b.png", "caf\\xe9.png"}
    with (results / "report.csv").open(encoding="utf-8-sig", newline="") as file:
        assert "default/caf\\xe9.png" in {line["result"] for line in csv.DictReader(file)}
    links = re.findall(r'href="(default/[^"]+)"', (results / "report.html").read_text(encoding="utf-8"))
    assert len(links) == 2
    assert all((results / os.fsdecode(unquote_to_bytes(link))).is_file() for link in links)


@pytest.mark.parametrize("words", [["--faces", "off"], ["--damage"]])
def test_a_place_where_no_report_can_lie_is_told_before_the_work(
    folder: Path, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((evaluate, "open_backends"), (evaluate_damage, "read_photos")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("the work has begun"))
    put_photo(folder / "test_inputs" / "a.png")
    (folder / "out").write_text("a file")
    assert evaluate.main(["--output", "out", *words], root=folder) == 2
    assert "cannot be written to out (File exists)" in capsys.readouterr().err


def test_a_disk_that_fills_up_costs_the_files_and_not_the_figures(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluate, "write_report_files", full)
    put_photo(folder / "test_inputs" / "a.png")
    assert evaluate.main(["--faces", "off"], root=folder) == 1
    said = capsys.readouterr()
    assert "Fidelity PSNR" in said.out
    assert "No space left on device" in said.err


def test_a_negative_seed_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_photo(folder / "test_inputs" / "a.png", 60, 48)
    assert evaluate.main(["--faces", "off", "--degrade", "--noise", "3", "--seed", "-9999999999"], root=folder) == 2
    assert "--seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("photos", "references"),
    [
        (("a.jpg", "a.png"), ("a.jpg", "a.png")),
        (("A.jpg", "a.jpg"), ("A.png", "a.png")),
        (("a.jpg", "b.jpg"), ("A.TIF", "b.png")),
        (("cafe\u0301.jpg", "caf\u00e9s.jpg"), ("caf\u00e9.png", "cafe\u0301s.png")),
    ],
)
def test_each_photo_gets_the_reference_of_its_own_name(
    photos: tuple[str, ...], references: tuple[str, ...], tmp_path: Path
) -> None:
    for folder, names in (("photos", photos), ("truth", references)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    found = find_photos(tmp_path / "photos", apart_from=tmp_path / "out", reference=tmp_path / "truth")
    assert {photo.path.name: photo.reference and photo.reference.name for photo in found} == dict(
        zip(photos, references, strict=True)
    )
