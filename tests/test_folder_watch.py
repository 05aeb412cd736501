"""What changes in the weights folder: seen once it is whole, acted upon once, and never lost to a change in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.main.weights_watch import WeightsWatch
from app.restoration.models.folder_watch import FolderWatch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "old.pth").write_bytes(b"old")
    return tmp_path


def looks(watch: FolderWatch, count: int) -> list[bool]:
    return [watch.has_changed() for _ in range(count)]


def test_a_folder_that_stays_as_it_is_has_not_changed(folder: Path) -> None:
    assert looks(FolderWatch(folder), 3) == [False, False, False]


def test_files_that_come_go_and_are_replaced_are_seen_once(folder: Path) -> None:
    watch = FolderWatch(folder)
    (folder / "new.safetensors").write_bytes(b"new")
    (folder / "notes.txt").write_text("no weights")
    assert looks(watch, 3) == [False, True, False]
    (folder / "new.safetensors").write_bytes(b"other bytes")
    assert looks(watch, 3) == [False, True, False]
    (folder / "old.pth").unlink()
    assert looks(watch, 3) == [False, True, False]
    (folder / "notes.txt").unlink()
    assert looks(watch, 3) == [False, False, False]


def test_a_file_that_is_still_being_copied_is_left_alone(folder: Path) -> None:
    watch = FolderWatch(folder)
    for size in range(1, 5):
        (folder / "large.pth").write_bytes(b"x" * size)
        assert not watch.has_changed()
    assert watch.has_changed()


def test_the_folder_may_come_later_and_go(tmp_path: Path) -> None:
    watch = FolderWatch(tmp_path / "weights")
    assert looks(watch, 2) == [False, False]
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "new.pth").write_bytes(b"new")
    assert looks(watch, 2) == [False, True]
    (tmp_path / "weights" / "new.pth").unlink()
    (tmp_path / "weights").rmdir()
    assert looks(watch, 2) == [False, True]


class Backend:
    """Counts what is asked of it; its default model is the first file of the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.loads, self.looks = folder, 0, 0
        self.described = self.look_again()

    def look_again(self) -> dict[str, Any]:
        self.looks += 1
        self.described = {"default_model": min((path.stem for path in self.folder.iterdir()), default=None)}
        return self.described

    def load(self) -> None:
        self.loads += 1


def passes(watch: WeightsWatch, count: int) -> None:
    for _ in range(count):
        watch.make_pass()


def test_another_default_model_is_loaded_and_any_other_change_only_described(folder: Path) -> None:
    backend = Backend(folder)
    watch = WeightsWatch(FolderWatch(folder), backend.look_again, backend.load, "old")
    passes(watch, 3)
    assert (backend.looks, backend.loads) == (1, 0)
    (folder / "zebra.pth").write_bytes(b"new")
    passes(watch, 3)
    assert (backend.looks, backend.loads) == (2, 0)
    (folder / "apple.pth").write_bytes(b"new")
    passes(watch, 3)
    assert (backend.loads, backend.described) == (1, {"default_model": "apple"})


def test_a_file_that_comes_while_another_is_loaded_and_goes_at_once_is_not_believed(folder: Path) -> None:
    backend = Backend(folder)
    fleeting = folder / "aaa.pth"

    def load() -> None:
        backend.load()
        if backend.loads == 1:
            fleeting.write_bytes(b"here for a moment")

    watch = WeightsWatch(FolderWatch(folder), backend.look_again, load, "old")
    (folder / "apple.pth").write_bytes(b"new")
    passes(watch, 2)
    assert backend.described == {"default_model": "aaa"}
    fleeting.unlink()
    passes(watch, 3)
    assert backend.described == {"default_model": "apple"}
