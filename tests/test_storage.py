"""Files on disk: names, order of writing, full disks, and harmless labels."""

from __future__ import annotations

import contextlib
import errno
import hashlib
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

from app.errors import NotFound, Unavailable
from app.storage import ID_PATTERN, LABEL_LIMIT_CHARACTERS, Storage, clean_label, new_id, translate_disk_full


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "uploads", tmp_path / "results")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_file())


def test_ids_are_32_hex_characters_and_differ() -> None:
    made = {new_id() for _ in range(100)}
    assert len(made) == 100
    assert all(ID_PATTERN.fullmatch(one) for one in made)


def test_an_upload_is_hashed_counted_and_kept(storage: Storage, tmp_path: Path) -> None:
    photo_id = new_id()
    with storage.open_upload(photo_id) as writer:
        for chunk in (b"abc", bytearray(b"def"), memoryview(b"ghi"), b""):
            writer.write(chunk)
        assert writer.path.read_bytes() == b"abcdefghi"  # unbuffered: the header check may look before the commit
        assert not storage.upload_path(photo_id).exists()
        stored = writer.commit()
    assert (stored.id, stored.bytes) == (photo_id, 9)
    assert stored.sha256 == hashlib.sha256(b"abcdefghi").hexdigest()
    assert storage.upload_path(photo_id).read_bytes() == b"abcdefghi"
    assert names(tmp_path / "uploads") == [photo_id]
    assert storage.remove_upload(photo_id)
    assert not storage.remove_upload(photo_id)


def test_an_upload_that_is_left_or_aborted_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    writer = storage.open_upload(new_id())
    writer.write(b"x")
    writer.abort()
    writer.abort()
    with pytest.raises(ValueError, match="ended"):
        writer.write(b"y")
    with pytest.raises(ValueError, match="ended"):
        writer.commit()
    with contextlib.suppress(KeyboardInterrupt), storage.open_upload(new_id()) as left:
        left.write(b"x")
        raise KeyboardInterrupt
    assert names(tmp_path / "uploads") == []


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
    temporary = storage.scratch_path(attempt)
    temporary.write_bytes(b"result")
    with traced(monkeypatch) as steps:
        final = storage.publish(temporary, f"{attempt}.png")
    assert steps == [f"fsync {temporary.name[-8:]}", "rename", "fsync results"]
    assert final.read_bytes() == b"result"
    assert not temporary.exists()


def test_two_runs_of_one_attempt_never_share_a_scratch_file(storage: Storage) -> None:
    attempt = new_id()
    assert storage.scratch_path(attempt) != storage.scratch_path(attempt)
    assert storage.scratch_path(attempt).parent.parent == storage.result_path(f"{attempt}.jpg").parent


BAD_IDS = [
    "",
    "..",
    "a" * 31,
    "a" * 33,
    "A" * 32,
    "a" * 32 + "\n",
    "../" + "a" * 29,
    "a" * 31 + "/",
    "\x00" * 32,
    "é" * 32,
]
BAD_RESULTS = [
    "a" * 32,
    "a" * 32 + ".exe",
    "a" * 32 + ".png\n",
    "a" * 32 + ".PNG",
    "../" + "a" * 32 + ".png",
    ".scratch",
]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_only_our_own_ids_name_an_upload(storage: Storage, bad: str) -> None:
    for call in (storage.upload_path, storage.open_upload, storage.remove_upload, storage.scratch_path):
        with pytest.raises(NotFound):
            call(bad)


@pytest.mark.parametrize("bad", BAD_RESULTS)
def test_only_our_own_names_name_a_result(storage: Storage, bad: str, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.write_bytes(b"x")
    for call in (storage.result_path, storage.remove_result, lambda name: storage.publish(temporary, name)):
        with pytest.raises(NotFound) as refused:
            call(bad)
        assert refused.value.code == "result_not_found"


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
        lambda: storage.upload_path(link),
        lambda: storage.upload_path(photo_id),
        lambda: storage.remove_upload(photo_id),
        lambda: storage.result_path(f"{photo_id}.png"),
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
    temporary = storage.scratch_path(attempt)
    temporary.write_bytes(b"x")
    (tmp_path / "uploads" / "holiday.jpg").write_bytes(b"a user put it there")
    (tmp_path / "uploads" / new_id()).mkdir()
    (tmp_path / "results" / "notes.txt").write_bytes(b"x")
    os.utime(storage.upload_path(photo_id), (5.0, 5.0))
    assert [(file.name, file.modified_at) for file in storage.iter_uploads()] == [(photo_id, 5.0)]
    assert [file.path for file in storage.iter_parts()] == [temporary]
    storage.publish(temporary, f"{attempt}.tif")
    assert [file.name for file in storage.iter_results()] == [f"{attempt}.tif"]
    assert storage.remove_result(f"{attempt}.tif")


def test_free_disk_is_measured_against_the_mark(tmp_path: Path) -> None:
    folders = tmp_path / "uploads", tmp_path / "results"
    assert Storage(*folders, min_free_disk_mb=0).free_disk_ok()
    storage = Storage(*folders, min_free_disk_mb=1024 * 1024 * 1024)
    assert not storage.free_disk_ok()
    (tmp_path / "uploads").rmdir()
    assert not Storage.free_disk_ok(storage)


def test_a_folder_that_was_removed_is_made_again(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "uploads").rmdir()
    with storage.open_upload(new_id()) as writer:
        writer.write(b"x")
        writer.commit()
    (tmp_path / "results" / ".scratch").rmdir()
    storage.scratch_path(new_id()).write_bytes(b"x")
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
    temporary = storage.scratch_path(new_id())
    temporary.write_bytes(b"x")
    with pytest.raises(Unavailable):
        storage.publish(temporary, f"{new_id()}.png")
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
    storage = STORAGE
    for call in (storage.upload_path, storage.result_path):
        with contextlib.suppress(NotFound):
            path = call(name)
            assert path.name == name
            assert path.parent.name in ("uploads", "results")


@pytest.fixture(scope="module", autouse=True)
def _shared_storage(tmp_path_factory: pytest.TempPathFactory) -> None:
    global STORAGE
    folder = tmp_path_factory.mktemp("names")
    STORAGE = Storage(folder / "uploads", folder / "results")


STORAGE: Storage
