"""A weight file that the service may not read costs no other file its place, and is looked at again."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path

import pytest
import torch

from app.commands import doctor, models
from app.commands.doctor_machine import BAD
from app.errors import Unavailable
from app.exit_codes import EXIT_FAILED, EXIT_OK
from app.options import RestoreOptions
from app.restoration.models import weights
from app.restoration.models.registry import ModelRegistry
from app.restoration.models.table import EMBEDDED_MODEL
from app.restoration.setup import Setup
from app.settings import Settings
from benchmarks.random_weights import random_state
from tests.weights_mirror import let_official

OFFICIAL = "realesr-animevideov3.pth"


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """A folder with an own and an official file; what its set names cannot be read, as another user's 0600 file."""
    torch.save({"params": random_state("realesr-animevideov3", 5)}, tmp_path / "own.pth")
    official = weights.official(OFFICIAL)
    assert official is not None
    let_official(monkeypatch, dataclasses.replace(official, bytes=1))
    (tmp_path / OFFICIAL).write_bytes(b"x")
    names, digest = {"own.pth", OFFICIAL}, weights.sha256

    def refusing(path: Path) -> str:
        if path.name in names:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return digest(path)

    monkeypatch.setattr(weights, "sha256", refusing)
    return names


def test_the_others_restore_and_each_says_why(tmp_path: Path, locked: set[str]) -> None:
    setup = Setup(tmp_path, device="cpu", precision="fp32")
    for file in ("own.pth", OFFICIAL):
        described = setup.registry.describe_file(file)
        assert not described["installed"]
        assert "Permission denied" in described["note"]
        assert str(tmp_path) not in described["note"]
    assert setup.choose(RestoreOptions())[0].name == EMBEDDED_MODEL
    with pytest.raises(Unavailable) as refused:
        setup.registry.load(setup.registry.find("own"), None, "cpu", "fp32")
    assert refused.value.code == "weights_unreadable"


def test_it_counts_as_soon_as_it_may_be_read(tmp_path: Path, locked: set[str]) -> None:
    registry = ModelRegistry(tmp_path, allow_unverified=False)
    assert not registry.installed("own")
    locked.clear()
    assert registry.installed("own")


def test_the_commands_name_it_and_go_on(
    tmp_path: Path, locked: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEIGHTS_FOLDER", str(tmp_path))
    assert models.run("list", []) == EXIT_OK
    assert "cannot be read" in capsys.readouterr().out
    assert models.run("verify", []) == EXIT_FAILED
    told = capsys.readouterr().out.splitlines()
    assert sum("cannot be read" in line for line in told) == len(locked)
    [bad] = [each for each in doctor.check_weights(Settings(weights_folder=tmp_path)) if each.word == BAD]
    assert OFFICIAL in bad.text
    assert "cannot be read" in bad.text
