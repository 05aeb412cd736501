"""Which photos and references an evaluation reads, with a stand-in for the backend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.commands import evaluate
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
