"""`DiskStorage` beyond the contract: order of writing, links, full disks; and the names of files."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import resource
import signal
import string
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app import atomic_files
from app.errors import NotFound, Unavailable
from app.storage import (
    ID_PATTERN,
    LABEL_LIMIT_CHARACTERS,
    Beside,
    DiskStorage,
    Storage,
    clean_label,
    new_id,
    translate_disk_full,
)
from tests.harness import scratch_name


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return DiskStorage(tmp_path / "uploads", tmp_path / "results")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_file())


def test_ids_are_32_hex_characters_and_differ() -> None:
    made = {new_id() for _ in range(100)}
    assert len(made) == 100
    assert all(ID_PATTERN.fullmatch(one) for one in made)


@contextlib.contextmanager
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is synced and renamed, in order."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def say_fsync(handle: int) -> None:
        steps.append("fsync " + Path(f"/proc/self/fd/{handle}").readlink().name[-8:])
        fsync(handle)

    def say_replace(path: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", say_fsync)
        patch.setattr(Path, "replace", say_replace)
        yield steps


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_file_then_name_then_folder_are_synced(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    upload, attempt = "0" * 32, "1" * 32
    with traced(monkeypatch) as steps, storage.open_upload(upload) as writer:
        writer.write(b"x")
        writer.commit()
    assert steps == ["fsync 000.part", "rename", "fsync uploads"]
    with storage.scratch(attempt) as temporary:
        temporary.write_bytes(b"result")
        with traced(monkeypatch) as steps:
            storage.publish(temporary, f"{attempt}.png")
        assert steps == [f"fsync {temporary.name[-8:]}", "rename", "fsync results"]
        assert not temporary.exists()


def test_symbolic_links_are_refused_and_their_targets_live(storage: Storage, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    photo_id = new_id()
    (tmp_path / "uploads" / photo_id).symlink_to(secret)
    (tmp_path / "results" / f"{photo_id}.png").symlink_to(secret)
    (tmp_path / "uploads" / f"{'1' * 32}.part").symlink_to(secret)
    neighbour, link = "2" * 32, "3" * 32
    (tmp_path / "uploads" / neighbour).write_text("somebody else's")
    (tmp_path / "uploads" / link).symlink_to(tmp_path / "uploads" / neighbour)
    for call in (
        lambda: storage.has_upload(link),
        lambda: storage.has_upload(photo_id),
        lambda: storage.open_original(photo_id),
        lambda: storage.remove_upload(photo_id),
        lambda: storage.has_result(f"{photo_id}.png"),
        lambda: storage.open_upload("1" * 32),
    ):
        with pytest.raises((NotFound, FileExistsError)):
            call()
    assert [file.name for file in storage.iter_uploads()] == [neighbour]
    assert list(storage.iter_parts()) == []
    assert secret.read_text() == "secret"


def test_only_files_that_bear_our_names_are_listed(storage: Storage, tmp_path: Path) -> None:
    photo_id, attempt = new_id(), new_id()
    with storage.open_upload(photo_id) as writer:
        writer.write(b"x")
        writer.commit()
    temporary = scratch_name(storage, attempt)
    temporary.write_bytes(b"x")
    (tmp_path / "uploads" / "holiday.jpg").write_bytes(b"a user put it there")
    (tmp_path / "uploads" / new_id()).mkdir()
    (tmp_path / "results" / "notes.txt").write_bytes(b"x")
    os.utime(tmp_path / "uploads" / photo_id, (5.0, 5.0))
    assert [(file.name, file.modified_at) for file in storage.iter_uploads()] == [(photo_id, 5.0)]
    assert [file.name for file in storage.iter_parts()] == [temporary.name]
    assert [file.name for file in storage.iter_local_parts()] == [temporary.name]
    shared = DiskStorage(tmp_path / "uploads", tmp_path / "results", marks_runs=True)
    assert list(shared.iter_local_parts()) == []  # other hosts' locks need not show here
    storage.publish(temporary, f"{attempt}.tif")
    assert [file.name for file in storage.iter_results()] == [f"{attempt}.tif"]
    assert storage.remove_result(f"{attempt}.tif")


def test_free_disk_is_measured_against_the_mark(tmp_path: Path) -> None:
    folders = tmp_path / "uploads", tmp_path / "results"
    assert DiskStorage(*folders, min_free_disk_mb=0).free_disk_ok()
    storage = DiskStorage(*folders, min_free_disk_mb=1024 * 1024 * 1024)
    assert not storage.free_disk_ok()
    (tmp_path / "uploads").rmdir()
    assert not storage.free_disk_ok()


def test_a_folder_that_was_removed_is_made_again(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "uploads").rmdir()
    with storage.open_upload(new_id()) as writer:
        writer.write(b"x")
        writer.commit()
    (tmp_path / "results" / ".scratch").rmdir()
    scratch_name(storage, new_id()).write_bytes(b"x")
    (tmp_path / "results" / ".scratch").rename(tmp_path / "elsewhere")
    assert list(storage.iter_parts()) == []


@contextlib.contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """A disk that takes this many bytes a file, by the kernel's own limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_takes_no_more_removes_the_part_and_says_so(storage: Storage, tmp_path: Path) -> None:
    writer = storage.open_upload(new_id())
    with file_size_limit(1000), pytest.raises(Unavailable) as refused:
        writer.write(b"x" * 5000)
    assert refused.value.code == "storage_full"
    assert refused.value.retry_after_seconds == 60
    assert str(tmp_path) not in refused.value.detail
    assert names(tmp_path / "uploads") == []


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_disk_full_at_the_commit_leaves_no_file(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync", full) if failing == "fsync" else (Path, "replace", full)))
    writer = storage.open_upload(new_id())
    with pytest.raises(Unavailable):
        writer.commit()
    with storage.scratch(new_id()) as temporary:
        temporary.write_bytes(b"x")
        with pytest.raises(Unavailable):
            storage.publish(temporary, f"{new_id()}.png")
        assert temporary.read_bytes() == b"x"  # it may be tried again
    assert names(tmp_path / "uploads") == []
    assert names(tmp_path / "results" / ".scratch") == []


def test_other_disk_errors_pass_unchanged() -> None:
    with pytest.raises(PermissionError), translate_disk_full():
        raise PermissionError(errno.EACCES, "no")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("photo.jpg", "photo.jpg"),
        ("C:\\Users\\me\\photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("", "photo"),
        (" . ", "photo"),
        ("..", "photo"),
        ("a/", "photo"),
        ('in"jec\r\nSet-Cookie: x.jpg', "injecSet-Cookie x.jpg"),
        ("invoice\u202egpj.exe", "invoicegpj.exe"),
        ("zero\u200bwidth\ufeff.png", "zerowidth.png"),
        ("\ud800lone.png", "lone.png"),
        ("Oma Käthe 1923 (süß).jpg", "Oma Käthe 1923 (süß).jpg"),
        ("写真.png", "写真.png"),
        ("x" * 300 + ".jpeg", "x" * 115 + ".jpeg"),
        ("y" * 300, "y" * 120),
        ("z" * 10 + "." + "w" * 300, ("z" * 10 + "." + "w" * 300)[:120]),
    ],
)
def test_a_label_is_harmless(name: str, label: str) -> None:
    assert clean_label(name) == label


@given(st.text(max_size=400))
@example("." * 300)
@example("a." + " " * 200 + "b")
@example("a" * 119 + " ." + "b" * 8)
def test_every_name_becomes_a_label(name: str) -> None:
    label = clean_label(name)
    assert 1 <= len(label) <= LABEL_LIMIT_CHARACTERS
    assert not set(label) & set('/\\:*?"<>|')
    assert all(unicodedata.category(character)[0] != "C" for character in label)
    assert clean_label(label) == label


@given(st.one_of(st.text(max_size=40), st.text(string.hexdigits + "./", min_size=30, max_size=36)))
def test_no_name_leads_out_of_the_folders(name: str) -> None:
    storage, faces = STORAGE, functools.partial(STORAGE.beside, kind=Beside.FACES)
    for lend in (storage.upload, storage.result, faces, storage.mask, storage.scratch):
        with contextlib.suppress(NotFound), lend(name) as path:
            assert path.parent.name == ".scratch"  # nothing else is kept there
    with contextlib.suppress(NotFound), storage.open_upload(name) as writer:
        assert (writer.path.name, writer.path.parent.name) == (f"{name}.part", "uploads")


@pytest.fixture(scope="module", autouse=True)
def _shared_storage(tmp_path_factory: pytest.TempPathFactory) -> None:
    global STORAGE
    folder = tmp_path_factory.mktemp("names")
    STORAGE = DiskStorage(folder / "uploads", folder / "results")


STORAGE: Storage


@pytest.mark.parametrize("links", [True, False], ids=["linked", "copied"])
def test_a_copy_that_a_kill_leaves_unfinished_is_found_by_the_janitor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    storage, name, copy = DiskStorage(tmp_path / "uploads", tmp_path / "results"), f"{new_id()}.png", f"{new_id()}.png"
    with storage.scratch(name[:32]) as temporary:
        temporary.write_bytes(b"result")
        storage.publish(temporary, name)
    publish = atomic_files.publish
    unfinished: list[str] = []
    found: list[str] = []

    def look(part: Path, target: Path) -> None:
        unfinished.extend(path.name for path in (tmp_path / "results").rglob("*.part"))
        found.extend(file.name for file in storage.iter_parts())
        publish(part, target)

    def unlinkable(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(atomic_files, "publish", look)
    if not links:
        monkeypatch.setattr(os, "link", unlinkable)
    storage.copy_result(name, copy)
    assert len(unfinished) == 1
    assert found == unfinished
    with storage.result(copy) as path:
        assert path.read_bytes() == b"result"
    assert list(storage.iter_parts()) == []
