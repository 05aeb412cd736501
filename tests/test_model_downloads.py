"""Weight files over a real (loopback) HTTP server: resumed, checked, joined, cancelled, never half under their name."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.errors import Cancelled, Conflict, NotFound, RestoreError, Unavailable
from app.model_downloads import DownloadState, ModelDownloads, fetch_weights
from app.model_downloads.downloads import KEPT_FREE_BYTES
from app.model_downloads.fetching import part_of
from app.restoration.models import weights
from app.restoration.models.weights import Verdict, verify
from tests.harness import until
from tests.weights_mirror import CUT_BYTES, WeightsMirror, let_official, put_conversion, serving_weights

BODY = bytes(range(256)) * 8192  # 2 MiB
ROW = dataclasses.replace(
    weights.MANIFEST[0], bytes=len(BODY), sha256=hashlib.sha256(BODY).hexdigest(), url="http://127.0.0.1:9/none"
)
OTHER = dataclasses.replace(ROW, file="RealESRGAN_x2plus.pth")


@pytest.fixture
def mirror() -> Iterator[WeightsMirror]:
    with serving_weights({ROW.file: BODY, OTHER.file: BODY}) as found:
        yield found


@pytest.fixture(autouse=True)
def official_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    let_official(monkeypatch, ROW, OTHER)


def quiet(done: int, total: int) -> None:
    """No progress bar."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# One file.


def test_a_file_arrives_whole_and_verified(mirror: WeightsMirror, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    folder = tmp_path / "new" / "weights"
    path = fetch_weights(ROW, folder, f"{mirror.address}/good/", lambda *step: told.append(step))
    assert path.read_bytes() == BODY
    assert verify(path) is Verdict.VERIFIED
    assert told[-1] == (len(BODY), len(BODY))
    assert names(folder) == [ROW.file], "a part was left behind"


def cut(mirror: WeightsMirror, folder: Path) -> Path:
    """Begin a download whose connection is cut; gives the part."""
    with pytest.raises(Unavailable) as caught:
        fetch_weights(ROW, folder, f"{mirror.address}/cut", quiet)
    assert caught.value.code == "download_failed"
    assert part_of(folder, ROW).stat().st_size == CUT_BYTES
    assert not (folder / ROW.file).exists()
    return part_of(folder, ROW)


def test_a_cut_connection_resumes_where_it_stopped(mirror: WeightsMirror, tmp_path: Path) -> None:
    cut(mirror, tmp_path)
    assert fetch_weights(ROW, tmp_path, f"{mirror.address}/cut", quiet).read_bytes() == BODY
    assert mirror.ranges == [None, f"bytes={CUT_BYTES}-"]
    assert mirror.conditions == [None, '"first"']
    assert names(tmp_path) == [ROW.file]


def test_a_part_of_another_version_is_not_joined_to_this_one(mirror: WeightsMirror, tmp_path: Path) -> None:
    part = cut(mirror, tmp_path)
    part.write_bytes(b"z" * CUT_BYTES)  # what the version before held
    mirror.etag = '"second"'
    assert fetch_weights(ROW, tmp_path, f"{mirror.address}/cut-not", quiet).read_bytes() == BODY


def test_a_weak_validator_is_not_asked_with(mirror: WeightsMirror, tmp_path: Path) -> None:
    mirror.etag = 'W/"weak"'
    cut(mirror, tmp_path)
    fetch_weights(ROW, tmp_path, f"{mirror.address}/good", quiet)
    assert mirror.conditions == [None, None]


def test_another_part_than_asked_is_refused(mirror: WeightsMirror, tmp_path: Path) -> None:
    cut(mirror, tmp_path)
    with pytest.raises(Unavailable, match="another part"):
        fetch_weights(ROW, tmp_path, f"{mirror.address}/shifted", quiet)
    assert fetch_weights(ROW, tmp_path, f"{mirror.address}/shifted", quiet).read_bytes() == BODY  # from the start


def test_a_server_without_ranges_starts_over(mirror: WeightsMirror, tmp_path: Path) -> None:
    part_of(tmp_path, ROW).write_bytes(BODY[:1000])
    assert fetch_weights(ROW, tmp_path, f"{mirror.address}/no-range", quiet).read_bytes() == BODY


def test_a_wrong_hash_never_gets_the_name(mirror: WeightsMirror, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        fetch_weights(ROW, tmp_path, f"{mirror.address}/evil", quiet)
    assert caught.value.code == "download_corrupt"
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["missing", "long"])
def test_a_server_that_answers_wrongly_is_an_error_that_says_so(
    kind: str, mirror: WeightsMirror, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable) as caught:
        fetch_weights(ROW, tmp_path, f"{mirror.address}/{kind}", quiet)
    assert caught.value.code == "download_failed"
    assert names(tmp_path) == []


def test_no_network_is_a_plain_sentence(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"could not be downloaded \(Connection refused\)"):
        fetch_weights(ROW, tmp_path, "http://127.0.0.1:9", quiet)
    assert names(tmp_path) == []


def test_only_web_addresses_are_fetched(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        fetch_weights(ROW, tmp_path, "file:///etc", quiet)


def test_a_full_part_with_foreign_bytes_is_thrown_away(mirror: WeightsMirror, tmp_path: Path) -> None:
    part_of(tmp_path, ROW).write_bytes(b"y" * len(BODY))
    assert fetch_weights(ROW, tmp_path, f"{mirror.address}/good", quiet).read_bytes() == BODY


def test_a_whole_part_that_never_got_its_name_is_not_fetched_again(mirror: WeightsMirror, tmp_path: Path) -> None:
    part_of(tmp_path, ROW).write_bytes(BODY)
    assert fetch_weights(ROW, tmp_path, f"{mirror.address}/good", quiet).read_bytes() == BODY
    assert mirror.ranges == []


def test_a_file_that_another_process_fetches_is_left_to_it(mirror: WeightsMirror, tmp_path: Path) -> None:
    with part_of(tmp_path, ROW).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Conflict) as caught:
            fetch_weights(ROW, tmp_path, f"{mirror.address}/good", quiet)
    assert caught.value.code == "download_running"
    assert mirror.ranges == []


def _fetch_in_process(folder: Path, address: str, outcomes: multiprocessing.SimpleQueue[str]) -> None:
    while True:
        try:
            fetch_weights(ROW, folder, address, quiet)
            outcomes.put("fetched")
            return
        except Conflict:
            continue
        except RestoreError as error:
            outcomes.put(error.code)
            return


def test_processes_that_fetch_the_same_file_never_mix_their_bytes(mirror: WeightsMirror, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    outcomes = context.SimpleQueue()
    processes = [
        context.Process(target=_fetch_in_process, args=(tmp_path, f"{mirror.address}/good", outcomes)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [outcomes.get() for _ in processes] == ["fetched"] * 4
    assert (tmp_path / ROW.file).read_bytes() == BODY
    assert names(tmp_path) == [ROW.file]


# The downloads of a service.


@pytest.fixture
def downloads(mirror: WeightsMirror, tmp_path: Path) -> Iterator[ModelDownloads]:
    """Downloads from a mirror that waits halfway until its gate is opened."""
    made = ModelDownloads(tmp_path, f"{mirror.address}/slow", pause_seconds=0.0)
    yield made
    mirror.gate.set()
    made.close()


def state_of(downloads: ModelDownloads, file: str = ROW.file) -> DownloadState:
    return downloads.known()[file].state


def test_a_download_runs_tells_its_bytes_and_ends_installed(
    downloads: ModelDownloads, mirror: WeightsMirror, tmp_path: Path
) -> None:
    (begun,) = downloads.start([ROW])
    assert (begun.state, begun.bytes, begun.of) == (DownloadState.WAITING, 0, len(BODY))
    until(lambda: downloads.known()[ROW.file].bytes >= len(BODY) // 2)
    assert state_of(downloads) is DownloadState.RUNNING
    assert not (tmp_path / ROW.file).exists()
    (joined,) = downloads.start([ROW])
    assert joined.state is DownloadState.RUNNING
    mirror.gate.set()
    until(lambda: not state_of(downloads).active)
    assert (state_of(downloads), downloads.known()[ROW.file].bytes) == (DownloadState.COMPLETED, len(BODY))
    assert (tmp_path / ROW.file).read_bytes() == BODY
    assert len(mirror.ranges) == 1, "it was fetched twice"
    (tmp_path / ROW.file).unlink()
    assert downloads.known() == {}, "a file that has gone was not downloaded"


def test_a_cancelled_download_keeps_its_bytes_and_goes_on_with_them(
    downloads: ModelDownloads, mirror: WeightsMirror, tmp_path: Path
) -> None:
    downloads.start([ROW, OTHER])
    mirror.halfway.wait(10)
    assert state_of(downloads, OTHER.file) is DownloadState.WAITING
    downloads.cancel([OTHER])
    until(lambda: downloads.partial_bytes(ROW.file) >= len(BODY) // 4)  # the last of it may still be in a buffer
    assert [one.state for one in downloads.cancel([ROW])] == [DownloadState.CANCELLED]
    with pytest.raises(NotFound) as caught:
        downloads.cancel([ROW])
    assert caught.value.code == "download_not_running"
    had = downloads.partial_bytes(ROW.file)
    assert names(tmp_path) == [part_of(tmp_path, ROW).name, f"{part_of(tmp_path, ROW).name}.validator"]
    mirror.gate.set()
    assert downloads.start([ROW])[0].bytes >= had
    until(lambda: not state_of(downloads).active)
    assert (mirror.ranges[0], mirror.conditions[1:]) == (None, ['"first"'] * len(mirror.ranges[1:]))
    assert (tmp_path / ROW.file).read_bytes() == BODY


def test_a_cut_is_tried_again_by_itself_and_a_failure_says_why(mirror: WeightsMirror, tmp_path: Path) -> None:
    downloads = ModelDownloads(tmp_path, f"{mirror.address}/cut", tries=2, pause_seconds=0.0)
    downloads.start([ROW])
    until(lambda: not state_of(downloads).active)
    assert state_of(downloads) is DownloadState.COMPLETED
    broken = ModelDownloads(tmp_path, f"{mirror.address}/missing", tries=3, pause_seconds=0.0)
    mirror.ranges.clear()
    broken.start([OTHER])
    until(lambda: not state_of(broken, OTHER.file).active)
    failed = broken.known()[OTHER.file]
    assert (failed.state, failed.code, len(mirror.ranges)) == (DownloadState.FAILED, "download_failed", 3)
    assert "the server answered 404" in str(failed.message)


def test_what_is_there_already_is_not_fetched(downloads: ModelDownloads, mirror: WeightsMirror, tmp_path: Path) -> None:
    (tmp_path / ROW.file).write_bytes(BODY)
    downloads.start([ROW])
    until(lambda: not state_of(downloads).active)
    assert state_of(downloads) is DownloadState.COMPLETED
    assert mirror.ranges == []


def test_what_is_there_as_safetensors_is_not_fetched(
    downloads: ModelDownloads, mirror: WeightsMirror, tmp_path: Path
) -> None:
    put_conversion(tmp_path, ROW)
    downloads.start([ROW])
    until(lambda: not state_of(downloads).active)
    assert state_of(downloads) is DownloadState.COMPLETED
    assert mirror.ranges == []


def test_a_full_disk_is_told_before_anything_is_fetched(
    downloads: ModelDownloads, mirror: WeightsMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(BODY)))
    with pytest.raises(Unavailable) as caught:
        downloads.start([ROW])
    assert caught.value.code == "storage_full"
    assert mirror.ranges == []


def test_what_is_there_already_needs_no_room(
    downloads: ModelDownloads, mirror: WeightsMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.gate.set()
    (tmp_path / ROW.file).write_bytes(BODY)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=KEPT_FREE_BYTES + len(BODY)))
    downloads.start([ROW, OTHER])
    until(lambda: not state_of(downloads, OTHER.file).active)
    assert state_of(downloads, OTHER.file) is DownloadState.COMPLETED
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    downloads.start([ROW, OTHER])


def test_a_file_that_was_cut_after_its_download_is_fetched_again(
    downloads: ModelDownloads, mirror: WeightsMirror, tmp_path: Path
) -> None:
    mirror.gate.set()
    downloads.start([ROW])
    until(lambda: not state_of(downloads).active)
    (tmp_path / ROW.file).write_bytes(BODY[:100])
    assert downloads.known() == {}
    assert downloads.start([ROW])[0].state.active
    until(lambda: not state_of(downloads).active)
    assert (tmp_path / ROW.file).read_bytes() == BODY


def test_a_service_that_stops_does_not_wait_for_a_download(downloads: ModelDownloads, mirror: WeightsMirror) -> None:
    downloads.start([ROW])
    mirror.halfway.wait(10)
    downloads.close()
    assert state_of(downloads) is DownloadState.CANCELLED
    with pytest.raises(Unavailable, match="shutting down"):
        downloads.start([ROW])


def test_whoever_follows_a_fetch_may_end_it(mirror: WeightsMirror, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        fetch_weights(ROW, tmp_path, f"{mirror.address}/good", stop)
    assert part_of(tmp_path, ROW).stat().st_size > 0
