"""Files that appear whole: what is there after a failure, and in which order things are made durable."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from app.atomic_files import part_beside, publish


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def write(target: Path, text: str) -> None:
    with part_beside(target) as part:
        part.write_text(text)
        publish(part, target)


def fail_halfway(target: Path) -> None:
    with part_beside(target) as part:
        part.write_text("half")
        raise ZeroDivisionError


def publish_link(target: Path, foreign: Path) -> None:
    with part_beside(target) as part:
        part.symlink_to(foreign)
        publish(part, target)


def test_a_published_file_takes_the_place_of_the_old_one_and_leaves_no_part(tmp_path: Path) -> None:
    target = tmp_path / "made on the way" / "report.json"
    write(target, "old")
    write(target, "new")
    assert target.read_text() == "new"
    assert names(target.parent) == {"report.json"}


def test_a_failure_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError):
        fail_halfway(target)
    assert target.read_text() == "old"
    assert names(tmp_path) == {"report.json"}


def test_a_file_that_cannot_take_its_name_leaves_no_part(tmp_path: Path) -> None:
    (tmp_path / "report.json" / "in the way").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write(tmp_path / "report.json", "new")
    assert names(tmp_path) == {"report.json"}


def test_the_bytes_are_durable_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, synced = tmp_path / "photo.png", list[tuple[str, bool]]()
    fsync = os.fsync

    def recorded(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        synced.append((kind, target.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recorded)
    write(target, "pixels")
    assert synced == [("file", False), ("folder", True)]


def test_a_part_that_became_a_symbolic_link_is_not_published(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_text("foreign")
    with pytest.raises(OSError, match="symbolic links"):
        publish_link(tmp_path / "photo.png", foreign)
    assert names(tmp_path) == {"foreign"}
