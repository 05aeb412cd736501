"""Official weight files of which only the safetensors are left count as installed for every command."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from app.commands import models
from app.commands.doctor import check_weights
from app.commands.doctor_machine import BAD, FINE
from app.exit_codes import EXIT_OK
from app.restoration.models import weights
from app.restoration.models.weights import Verdict, verify_installed
from app.settings import Settings
from tests.weights_mirror import let_official, put_conversion

BODY = b"the official file"
ROWS = tuple(
    dataclasses.replace(row, bytes=len(BODY), sha256=hashlib.sha256(BODY).hexdigest())
    for row in weights.MANIFEST
    if row.default
)
ROW = ROWS[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder in which the files of the first start are conversions; whatever is fetched fails."""
    let_official(monkeypatch, *ROWS)
    monkeypatch.setattr(models, "MANIFEST", weights.MANIFEST)
    monkeypatch.setattr(models, "fetch_weights", lambda row, *_: pytest.fail(f"{row.file} is fetched"))
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "weights"
    made.mkdir()
    monkeypatch.setenv("WEIGHTS_FOLDER", str(made))
    for row in ROWS:
        put_conversion(made, row)
    return made


def test_a_whole_conversion_stands_for_a_file_that_is_missing_or_wrong(folder: Path) -> None:
    path = folder / ROW.file
    assert verify_installed(path) is Verdict.CONVERTED
    path.write_bytes(BODY[:-1])
    assert verify_installed(path) is Verdict.CONVERTED
    path.write_bytes(BODY)
    assert verify_installed(path) is Verdict.VERIFIED
    path.unlink()
    converted = path.with_suffix(".safetensors")
    converted.write_bytes(converted.read_bytes()[:-1])
    assert verify_installed(path) is Verdict.MISSING
    assert [row.file for row in models.missing_defaults(folder)] == [ROW.file]


def test_converted_files_are_listed_verified_and_not_fetched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert models.run("download", []) == EXIT_OK
    assert f"{ROW.file} is already there." in capsys.readouterr().out
    assert models.run("verify", []) == EXIT_OK
    said = capsys.readouterr().out
    assert f"{ROW.file}: verified, as safetensors" in said
    assert "your own file" not in said
    assert models.run("list", []) == EXIT_OK
    said = capsys.readouterr().out
    assert said.count("yes, as safetensors") == len(ROWS)
    assert "your own file" not in said


def test_the_first_start_and_the_doctor_miss_no_converted_file(folder: Path) -> None:
    assert models.missing_defaults(folder) == []
    (found,) = [one for one in check_weights(Settings()) if one.word != BAD]
    assert found.word == FINE
    assert all(row.file in found.text for row in ROWS)
