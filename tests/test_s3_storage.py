"""`S3Storage` beyond the contract: outages, broken connections, crashes, signed addresses, and runs that come too late.

Every test talks to a real server on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import io
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.api.archives import archive_response
from app.errors import NotFound, Unavailable
from app.images import Picture
from app.jobs.deletion import Deletion
from app.jobs.janitor import GRACE_SECONDS, Janitor
from app.jobs.storage_retries import INTERVAL_SECONDS, PATIENCE_SECONDS, StorageRetries
from app.storage import Beside, FoundFile, Storage, new_id
from app.storage.s3.bucket import Bucket
from app.store import AttemptStatus, Job, Result
from tests.harness import OWNER, Harness, LanczosBackend, photo_bytes
from tests.s3_servers import BUCKET, S3Server, SeaweedFS, free_ports, open_storage, running
from tests.test_keeping import gathered

CONTENT = hashlib.shake_256(b"content").digest(3_000_000)
QUICK: dict[str, Any] = {"read_timeout_seconds": 0.5, "connect_timeout_seconds": 0.5}


@pytest.fixture(params=["seaweedfs", "swift"])
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def own_server(s3_credentials: None, tmp_path: Path) -> Iterator[S3Server]:
    """A server that this test may kill."""
    folder = tmp_path / "own"
    folder.mkdir()
    with running(SeaweedFS, folder) as server:
        yield server


def put(storage: Storage, content: bytes = b"photo") -> str:
    with storage.open_upload(new_id()) as writer:
        writer.write(content)
        return writer.commit().id


def put_result(storage: Storage, name: str, content: bytes = b"result") -> None:
    with storage.scratch(name[:32]) as temporary:
        temporary.write_bytes(content)
        storage.publish(temporary, name)


def get(address: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a GET without a key."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=20) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()


def assert_unavailable(call: Any) -> None:
    with pytest.raises(Unavailable) as refused:
        call()
    assert (refused.value.code, refused.value.status) == ("storage_unavailable", 503)
    assert refused.value.retry_after_seconds


class CuttingProxy:
    """Forwards connections to a port; the first `cuts` of them are cut after so many bytes of the server's or client's.

    Attributes:
        cuts: how many connections will still be cut.
    """

    def __init__(self, port: int, after_bytes: int, *, of_client: bool) -> None:
        self._port, self._after, self._of_client = port, after_bytes, of_client
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                for source, sink, limited in ((client, server, self._of_client), (server, client, not self._of_client)):
                    threading.Thread(target=self._carry, args=(source, sink, limited), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, limited: bool) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                carried += len(data)
                if limited and self.cuts > 0 and carried > self._after:
                    self.cuts -= 1
                    break
                sink.sendall(data)
        for connection in (source, sink):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def close(self) -> None:
        self._listener.close()


@contextlib.contextmanager
def cutting(server: S3Server, after_bytes: int, *, of_client: bool = False) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(int(server.url.rpartition(":")[2]), after_bytes, of_client=of_client)
    try:
        yield proxy
    finally:
        proxy.close()


# Signed addresses.


def test_a_signed_address_serves_the_result_with_its_type_and_name_and_to_nobody_else(
    server: S3Server, tmp_path: Path
) -> None:
    storage = open_storage(server, tmp_path, redirect=True)
    name = storage.name_of_run(f"{new_id()}.png", new_id())
    put_result(storage, name, CONTENT)
    address = storage.address(name, "image/png", "inline; filename=\"a b.png\"; filename*=UTF-8''a%20b.png")
    assert address is not None
    status, headers, body = get(address)
    assert (status, body) == (200, CONTENT)
    assert headers["content-type"] == "image/png"
    assert headers["content-disposition"] == "inline; filename=\"a b.png\"; filename*=UTF-8''a%20b.png"
    assert get(address, Range="bytes=5-9")[::2] == (206, CONTENT[5:10])
    refused = {"SeaweedFS": 403, "Swift": 400}[server.name]
    assert get(address.partition("?")[0])[0] == refused
    assert get(address.replace("image%2Fpng", "text%2Fhtml"))[0] == 403
    assert storage.address_origin() == server.url
    with pytest.raises(NotFound):
        storage.address(storage.name_of_run(f"{new_id()}.png", new_id()), "image/png", "inline")


def test_signed_addresses_name_the_public_endpoint(seaweedfs: S3Server, tmp_path: Path) -> None:
    public: dict[str, Any] = {"redirect": True, "public_endpoint_url": "https://photos.invalid"}
    storage = open_storage(seaweedfs, tmp_path, **public)
    name = storage.name_of_run(f"{new_id()}.png", new_id())
    put_result(storage, name)
    assert str(storage.address(name, "image/png", "inline")).startswith(f"https://photos.invalid/{BUCKET}/")
    assert storage.address_origin() == "https://photos.invalid"
    hosted = open_storage(seaweedfs, tmp_path, **public, addressing_style="virtual")
    assert hosted.address_origin() == f"https://{BUCKET}.photos.invalid"


def test_a_shared_picture_is_there_in_its_block_only(server: S3Server, tmp_path: Path) -> None:
    storage = open_storage(server, tmp_path, reachable_by_all=True, public_endpoint_url=server.url)
    with storage.share(b"jpeg") as address:
        assert address is not None
        status, headers, body = get(address)
        assert (status, headers["content-type"], body) == (200, "image/jpeg", b"jpeg")
        (found,) = storage.iter_parts()
        assert list(storage.iter_local_parts()) == []  # another host's provider may be about to fetch it
    assert get(address)[0] == 404
    assert not storage.remove_found(found)


# Outages.


def test_a_result_is_copied_in_the_bucket_and_its_bytes_never_come_here(server: S3Server, tmp_path: Path) -> None:
    storage, name, copy = open_storage(server, tmp_path), f"{new_id()}.png", f"{new_id()}.png"
    put_result(storage, name, content := secrets.token_bytes(300_000))
    called: list[str] = []
    events = storage._bucket._client.meta.events
    events.register("before-call.s3", lambda model, **_: called.append(model.name))
    storage.copy_result(name, copy)
    assert "CopyObject" in called
    assert set(called) <= {"CopyObject", "HeadObject"}
    with storage.result(copy) as path:
        assert path.read_bytes() == content


def test_what_a_killed_server_kept_is_there_again_and_meanwhile_calls_say_so(
    own_server: S3Server, tmp_path: Path
) -> None:
    storage = open_storage(own_server, tmp_path, **QUICK)
    photo_id, name = put(storage, CONTENT), storage.name_of_run(f"{new_id()}.png", new_id())
    put_result(storage, name, CONTENT)
    opened = storage.open_result(name)
    own_server.kill()
    for call in (
        lambda: storage.has_upload(photo_id),
        lambda: put(storage),
        lambda: storage.open_result(name),
        lambda: storage.remove_result(name),
        lambda: list(storage.iter_uploads()),
        lambda: put_result(storage, name),
        storage.upload(photo_id).__enter__,
        opened.file.read,
    ):
        assert_unavailable(call)
    assert storage.problem() is not None
    with storage.share(b"jpeg") as address:
        assert address is None
    assert list((tmp_path / "uploads").iterdir()) == list((tmp_path / "results" / ".scratch").iterdir()) == []
    own_server.start()
    own_server.wait_until_it_takes()
    with storage.upload(photo_id) as path:
        assert path.read_bytes() == CONTENT
    with opened.file as file:  # reading goes on where it stopped
        file.seek(1_500_000)
        assert file.read() == CONTENT[1_500_000:]
    assert storage.problem() is None
    assert [file.name for file in storage.iter_uploads()] == [photo_id]


def test_a_frozen_server_ends_a_call_in_bounded_time(own_server: S3Server, tmp_path: Path) -> None:
    storage = open_storage(own_server, tmp_path, **QUICK)
    photo_id = put(storage)
    with own_server.frozen():
        began = time.monotonic()
        assert_unavailable(lambda: storage.open_original(photo_id))
        assert_unavailable(lambda: put(storage))
        assert time.monotonic() - began < 20
    with storage.open_original(photo_id).file as file:
        assert file.read() == b"photo"


def test_a_bucket_that_is_not_there_is_an_outage_and_no_missing_photo(swift: S3Server, tmp_path: Path) -> None:
    elsewhere = open_storage(swift, tmp_path, bucket="another-bucket")
    for call in (elsewhere.check, lambda: put(elsewhere), lambda: elsewhere.open_original(new_id())):
        assert_unavailable(call)


def test_a_wrong_key_is_an_outage_and_no_missing_photo(
    seaweedfs: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a wrong one")
    locked_out = open_storage(seaweedfs, tmp_path)
    for call in (locked_out.check, lambda: put(locked_out), lambda: locked_out.open_original(new_id())):
        assert_unavailable(call)
    assert "a wrong one" not in caplog.text
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert_unavailable(open_storage(seaweedfs, tmp_path).check)


# Broken connections.


@pytest.mark.parametrize("cuts", [1, 2, 9])
def test_a_download_that_breaks_begins_again_and_gives_up_in_the_end(
    seaweedfs: S3Server, tmp_path: Path, cuts: int
) -> None:
    with cutting(seaweedfs, 500_000) as proxy:
        storage = open_storage(seaweedfs, tmp_path, endpoint_url=proxy.url)
        photo_id = put(storage, CONTENT)
        proxy.cuts = cuts
        if cuts > 2:
            assert_unavailable(storage.upload(photo_id).__enter__)
            assert list((tmp_path / "results" / ".scratch").iterdir()) == []
            return
        with storage.upload(photo_id) as path:
            assert path.read_bytes() == CONTENT
        assert proxy.cuts == 0


def test_reading_goes_on_where_a_connection_broke(seaweedfs: S3Server, tmp_path: Path) -> None:
    with cutting(seaweedfs, 1_300_000) as proxy:
        storage = open_storage(seaweedfs, tmp_path, endpoint_url=proxy.url)
        photo_id = put(storage, CONTENT)
        with storage.open_original(photo_id).file as file:
            proxy.cuts = 1
            assert b"".join(iter(lambda: file.read(100_000), b"")) == CONTENT
        assert proxy.cuts == 0


def test_an_object_that_goes_while_it_is_read_is_no_short_file(seaweedfs: S3Server, tmp_path: Path) -> None:
    storage = open_storage(seaweedfs, tmp_path)
    photo_id = put(storage, CONTENT)
    with storage.open_original(photo_id).file as file:
        storage.remove_upload(photo_id)
        file.seek(2_000_000)
        with pytest.raises(OSError, match="removed"):
            file.read()


def test_what_was_read_of_an_object_is_held_no_more(seaweedfs: S3Server, tmp_path: Path) -> None:
    storage = open_storage(seaweedfs, tmp_path)
    photo_id = put(storage, CONTENT)
    with storage.open_original(photo_id).file as file:
        assert file.read(1_400_000) == CONTENT[:1_400_000]
        storage.remove_upload(photo_id)
        file.seek(0)
        with pytest.raises(OSError, match="removed"):
            file.read(10)


def noting(bucket: Any, call: Callable[..., Any], name: str, called: list[str], *args: Any) -> Any:
    """A call of a bucket, whose name is noted."""
    called.append(name)
    return call(bucket, *args)


def test_an_archive_asks_for_lengths_at_once_and_for_each_object_at_its_turn(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.storage.s3.bucket import Bucket

    harness = Harness(tmp_path, storage=open_storage(server, tmp_path))
    harness.open()
    jobs = [complete(harness, now=1000.0 + number) for number in range(3)]
    called: list[str] = []
    for name in ("start", "facts", "stream"):
        noted = functools.partialmethod(noting, getattr(Bucket, name), name, called)
        monkeypatch.setattr(Bucket, name, noted)
    answer = archive_response(harness.storage, jobs, "a.zip")
    assert called == ["facts"] * 3
    whole = asyncio.run(gathered(aiter(answer.body_iterator)))
    assert called == ["facts"] * 3 + ["stream"] * 3
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert [archive.read(name) for name in archive.namelist()] == [CONTENT] * 3
    harness.close()


def test_half_an_upload_is_never_visible(server: S3Server, tmp_path: Path) -> None:
    with cutting(server, 1_000_000, of_client=True) as proxy:
        storage = open_storage(server, tmp_path, endpoint_url=proxy.url, attempts=1)
        proxy.cuts = 5
        assert_unavailable(lambda: put(storage, CONTENT))
        assert list(storage.iter_uploads()) == list(storage.iter_parts()) == []
        proxy.cuts = 0
        photo_id = put(storage, CONTENT)
    assert [file.name for file in storage.iter_uploads()] == [photo_id]


def test_an_upload_in_parts_that_nobody_ended_is_found_and_dropped(server: S3Server, tmp_path: Path) -> None:
    storage = open_storage(server, tmp_path, prefix="parts/")
    begun = server.client().create_multipart_upload(Bucket=BUCKET, Key=f"parts/uploads/{new_id()}")
    (found,) = storage.iter_parts()
    assert found.name.endswith(begun["UploadId"])
    assert list(storage.iter_local_parts()) == []  # another host may be at it
    assert storage.remove_found(found)
    assert list(storage.iter_parts()) == []
    with pytest.raises(NotFound):
        storage.remove_found(FoundFile("multipart:elsewhere/x:1", 0.0))


# Runs and rows.


@pytest.fixture
def harness(seaweedfs: S3Server, tmp_path: Path) -> Iterator[Harness]:
    found = Harness(tmp_path, storage=open_storage(seaweedfs, tmp_path))
    found.open()
    yield found
    found.close()


def results(harness: Harness) -> dict[str, bytes]:
    """The bytes of every kept result."""
    kept = {}
    for name in harness.result_files():
        with harness.storage.result(name) as path:
            kept[name] = path.read_bytes()
    return kept


def test_a_run_that_comes_too_late_changes_nothing_that_is_shown(harness: Harness) -> None:
    job = harness.submit()
    (attempt,) = harness.attempts(job)
    late = harness.runner.prepare(attempt.id, "a" * 32, time.time())
    assert late is not None
    slow = harness.runner.restore(late)
    harness.store.crashed(attempt.id, "a" * 32, time.time())  # its lease ran out
    harness.runner.run_attempt(attempt.id)
    (shown,) = harness.attempts(job)
    before = results(harness)
    assert slow is not None
    harness.runner.finish(slow)
    assert results(harness) == before
    assert list(before) == [shown.result_name]
    assert harness.attempts(job) == (shown,)


@pytest.mark.parametrize("when", ["before it publishes", "after it published"])
def test_a_run_that_is_overtaken_overwrites_nothing_and_takes_its_own_file_away(harness: Harness, when: str) -> None:
    job = harness.submit()
    (attempt,) = harness.attempts(job)
    late = harness.runner.prepare(attempt.id, "a" * 32, time.time())
    assert late is not None
    slow = harness.runner.restore(dataclasses.replace(late, picture=Picture(255 - late.picture.rgb)))
    publish, shown = harness.storage.publish, {}

    def overtaken(temporary: Path, result_name: str, **_more: Any) -> None:
        harness.storage.publish = publish  # type: ignore[method-assign]
        if when == "after it published":
            publish(temporary, result_name)
        harness.store.crashed(attempt.id, "a" * 32, time.time())
        harness.runner.run_attempt(attempt.id)
        shown.update(results(harness))
        if when == "before it publishes":
            publish(temporary, result_name)

    harness.storage.publish = overtaken  # type: ignore[method-assign, assignment]
    assert slow is not None
    harness.runner.finish(slow)
    (ended,) = harness.attempts(job)
    assert ended.status is AttemptStatus.COMPLETED
    assert ended.result_name is not None
    assert results(harness) == {ended.result_name: shown[ended.result_name]}


def test_the_janitor_finds_what_a_crash_left_by_the_rows_and_its_age(harness: Harness) -> None:
    job = harness.submit()
    harness.runner.run_attempt(harness.attempts(job)[0].id)
    (shown,) = harness.attempts(job)
    lost = harness.upload(b"put, and then the process died")
    orphan = harness.storage.name_of_run(f"{new_id()}.png", new_id())
    other_run = harness.storage.name_of_run(f"{shown.id}.png", "b" * 32)
    for name in (orphan, other_run):
        put_result(harness.storage, name)
    janitor = Janitor(harness.store, harness.storage, harness.metrics, retention_seconds=60.0)
    now = time.time()
    harness.store.report_progress(shown.id, "x", 0.5, "x")
    assert janitor.sweep(now).orphans == 0
    assert harness.storage.has_upload(lost.id)
    keeping = Janitor(harness.store, harness.storage, harness.metrics, retention_seconds=GRACE_SECONDS)
    swept = keeping.sweep((shown.ended_at or now) + GRACE_SECONDS - 1)
    assert swept.jobs == swept.orphans == 0
    swept = keeping.sweep((shown.ended_at or now) + GRACE_SECONDS + 30)
    assert (swept.jobs, swept.uploads, swept.results, swept.orphans) == (1, 0, 0, 0)
    swept = keeping.sweep((shown.ended_at or now) + GRACE_SECONDS + 30 + harness.storage.grace_seconds())
    assert (swept.jobs, swept.orphans) == (0, 5)
    assert [*harness.storage.iter_uploads(), *harness.storage.iter_results(), *harness.storage.iter_parts()] == []


def complete(harness: Harness, now: float) -> Job:
    """A job whose result of three megabytes was kept just now, with rows that say it ended at a time."""
    job = harness.submit(now=now)
    (attempt,) = job.attempts
    name = harness.storage.name_of_run(f"{attempt.id}.png", new_id())
    put_result(harness.storage, name, CONTENT)
    harness.store.claim(attempt.id, "t", now)
    harness.store.complete(attempt.id, "t", Result(name, "image/png", 1, 1, len(CONTENT), "m", 1.0), now)
    return harness.store.job(OWNER, job.id)


def result_of(job: Job) -> str:
    name = job.attempts[0].result_name
    assert name is not None
    return name


HOUR = 3600.0


def sweep(harness: Harness, now: float, retention: float = HOUR) -> tuple[int, int]:
    """What one pass of a janitor removed, jobs and files; each pass is made by another process."""
    done = Janitor(harness.store, harness.storage, harness.metrics, retention_seconds=retention).sweep(now)
    assert done.uploads == done.results == 0
    return done.jobs, done.orphans


@pytest.mark.parametrize("kept", [0.0, 100 * HOUR])
def test_what_expires_in_the_middle_of_a_download_stays_until_that_is_over(harness: Harness, kept: float) -> None:
    """Also of a job that was kept long past its time, whose objects are far older than the retention by then."""
    job = complete(harness, time.time())
    expiry = time.time() + HOUR + 5 + kept
    opened = harness.storage.open_result(result_of(job))
    archive = aiter(archive_response(harness.storage, [job], "a.zip").body_iterator)
    with opened.file as file:
        begun = file.read(1_500_000)
        assert sweep(harness, expiry) == (1, 0)
        with pytest.raises(NotFound):
            harness.store.job(OWNER, job.id)
        grace = harness.storage.grace_seconds()
        assert sweep(harness, expiry + grace / 2) == sweep(harness, expiry + grace - 1) == (0, 0)
        assert begun + file.read() == CONTENT
    assert len(asyncio.run(gathered(archive))) > len(CONTENT)
    assert sweep(harness, expiry + grace) == (0, 2)
    assert sweep(harness, expiry + grace + 1) == (0, 0)
    assert harness.storage.unnamed_since() == {}
    assert [*harness.storage.iter_uploads(), *harness.storage.iter_results()] == []


def test_objects_younger_than_the_retention_go_with_their_expired_rows_all_the_same(harness: Harness) -> None:
    """A version of a result that was made shortly before the job expired, say."""
    complete(harness, time.time() - 11 * HOUR)
    now, grace = time.time(), harness.storage.grace_seconds()
    assert sweep(harness, now, 10 * HOUR) == (1, 0)
    assert sweep(harness, now + grace / 2, 10 * HOUR) == (0, 0)
    assert sweep(harness, now + grace, 10 * HOUR) == (0, 2)


@pytest.mark.parametrize("noted", [b"", b"[]", b"{", b'{"a": null}', b"\xff"])
def test_a_note_that_cannot_be_read_only_makes_objects_wait_anew(
    seaweedfs: S3Server, tmp_path: Path, noted: bytes
) -> None:
    prefix = f"{new_id()}/"
    harness = Harness(tmp_path, storage=open_storage(seaweedfs, tmp_path, prefix=prefix))
    harness.open()
    complete(harness, time.time())
    expiry, grace = time.time() + HOUR + 5, harness.storage.grace_seconds()
    assert sweep(harness, expiry) == (1, 0)
    seaweedfs.client().put_object(Bucket=BUCKET, Key=f"{prefix}janitor/unnamed.json", Body=noted)
    assert sweep(harness, expiry + grace) == (0, 0)
    assert sweep(harness, expiry + 2 * grace) == (0, 2)
    harness.close()


def test_objects_noted_by_a_clock_that_was_ahead_wait_from_now_on(harness: Harness) -> None:
    complete(harness, time.time())
    expiry, grace = time.time() + HOUR + 5, harness.storage.grace_seconds()
    assert sweep(harness, expiry) == (1, 0)
    harness.storage.note_unnamed(dict.fromkeys(harness.storage.unnamed_since(), expiry + 1e6))
    assert sweep(harness, expiry + 10) == (0, 0)
    assert sweep(harness, expiry + 10 + grace) == (0, 2)


def test_what_a_user_removes_goes_at_once_and_cuts_a_download_with_an_error(harness: Harness) -> None:
    job = complete(harness, time.time())
    archive = aiter(archive_response(harness.storage, [job], "a.zip").body_iterator)
    Deletion(harness.store, harness.storage).cancel_or_remove(OWNER, job.id, time.time())
    assert [*harness.storage.iter_uploads(), *harness.storage.iter_results()] == []
    with pytest.raises(OSError, match="removed"):
        asyncio.run(gathered(archive))


def test_removing_a_job_while_the_server_is_away_leaves_orphans_and_no_error(
    own_server: S3Server, tmp_path: Path
) -> None:
    harness = Harness(tmp_path, storage=open_storage(own_server, tmp_path, **QUICK))
    harness.open()
    job = harness.submit()
    harness.runner.run_attempt(harness.attempts(job)[0].id)
    own_server.kill()
    assert Deletion(harness.store, harness.storage).cancel_or_remove(OWNER, job.id, time.time()) == "removed"
    own_server.start()
    own_server.wait_until_it_takes()
    janitor = Janitor(harness.store, harness.storage, harness.metrics, retention_seconds=60.0)
    found = time.time() + GRACE_SECONDS + 60
    assert [janitor.sweep(found + wait).orphans for wait in (0.0, harness.storage.grace_seconds())] == [0, 2]
    harness.close()


def test_a_run_waits_for_a_server_that_comes_back(own_server: S3Server, tmp_path: Path) -> None:
    """Killed while the photo is restored: the result waits, and its heartbeat goes on."""
    pauses: list[float] = []

    def come_back(seconds: float) -> None:
        pauses.append(seconds)
        own_server.start()
        own_server.wait_until_it_takes()

    backend = LanczosBackend(on_tile=lambda number: own_server.kill() if number == 0 else None)
    storage = open_storage(own_server, tmp_path, **QUICK)
    harness = Harness(tmp_path, backend, storage=storage, pause=come_back)
    harness.open()
    job = harness.submit()
    harness.runner.run_attempt(harness.attempts(job)[0].id)
    (attempt,) = harness.attempts(job)
    assert (attempt.status, pauses) == (AttemptStatus.COMPLETED, [INTERVAL_SECONDS])
    assert harness.result_files() == [attempt.result_name]
    harness.close()


def test_a_server_that_stays_away_fails_the_attempt_with_its_code(own_server: S3Server, tmp_path: Path) -> None:
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds

    storage = open_storage(own_server, tmp_path, attempts=1, **QUICK)
    harness = Harness(tmp_path, storage=storage, clock=lambda: now[0], pause=pause)
    harness.open()
    job = harness.submit()
    own_server.kill()
    harness.runner.run_attempt(harness.attempts(job)[0].id)
    (attempt,) = harness.attempts(job)
    assert (attempt.status, attempt.error_code) == (AttemptStatus.FAILED, "storage_unavailable")
    assert now[0] == PATIENCE_SECONDS
    harness.close()


def tiff_of_two_pages() -> bytes:
    """Noise, of more than a megabyte a page."""
    pages = [Image.open(io.BytesIO(photo_bytes(800, 600, seed=seed, kind="PNG"))) for seed in (1, 2)]
    target = io.BytesIO()
    pages[0].save(target, "TIFF", save_all=True, append_images=pages[1:])
    return target.getvalue()


@pytest.mark.parametrize("beside", [False, True], ids=["result", "beside"])
def test_every_piece_that_goes_to_the_server_is_told(server: S3Server, tmp_path: Path, beside: bool) -> None:
    """So that a slow upload is none that hangs."""
    storage, told, name = open_storage(server, tmp_path), [0], f"{new_id()}.png"

    def tell() -> None:
        told[0] += 1

    with storage.scratch(name[:32]) as temporary:
        temporary.write_bytes(CONTENT)
        if beside:
            storage.publish_beside(temporary, name, Beside.FACES, tell)
        else:
            storage.publish(temporary, name, tell)
    assert told[0] >= len(CONTENT) // (1 << 20)
    with storage.beside(name, Beside.FACES) if beside else storage.result(name) as path:
        assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("pages", ["first", "all"])
def test_a_run_gives_signs_of_life_while_its_files_come_and_go(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, pages: str
) -> None:
    """Most of them in the transfers: the restoration and the encoding of these photos say little."""
    moved: dict[str, int] = {}
    get_file, put_file = Bucket.get_file, Bucket.put_file
    beats = [0]

    def beat() -> None:
        beats[0] += 1

    def counted(kind: str, call: Callable[..., None]) -> Callable[..., None]:
        def made(*args: Any) -> None:
            before = beats[0]
            call(*args)
            moved[kind] = beats[0] - before

        return made

    monkeypatch.setattr(Bucket, "get_file", counted("get", get_file))
    monkeypatch.setattr(Bucket, "put_file", counted("put", put_file))
    harness.backend.tile = 600
    options = f'{{"scale": 2, "pages": "{pages}", "output_format": "{"tiff" if pages == "all" else "png"}"}}'
    job = harness.submit(tiff_of_two_pages(), options=options)
    prepared = harness.runner.prepare(harness.attempts(job)[0].id, "a" * 32, time.time())
    assert prepared is not None
    finished = harness.runner.restore(prepared, heartbeat=beat)
    assert finished is not None
    harness.runner.finish(finished, heartbeat=beat)
    (attempt,) = harness.attempts(job)
    assert attempt.status is AttemptStatus.COMPLETED, attempt.error_message
    assert moved["put"] >= (attempt.result_bytes or 0) // (1 << 20) >= 1
    assert moved["get"] >= (1 if pages == "all" else 0)  # the first page comes before the run is watched


def test_waiting_ends_when_nobody_wants_the_result_and_other_errors_are_not_repeated() -> None:
    def away() -> None:
        raise Unavailable("storage_unavailable", "The server is away.")

    def full() -> None:
        raise Unavailable("storage_full", "The disk is full.")

    pauses: list[float] = []
    retries = StorageRetries(lambda: 0.0, pauses.append)
    asked = iter([True, True, False])
    with pytest.raises(Unavailable):
        retries(away, lambda: next(asked))
    with pytest.raises(Unavailable):
        retries(full, lambda: True, for_room=False)
    assert pauses == [INTERVAL_SECONDS] * 2


def test_waiting_goes_on_while_the_database_cannot_say_whether_the_photo_is_wanted() -> None:
    pauses: list[float] = []
    answers = iter([Unavailable("storage_unavailable", "Away."), Unavailable("storage_unavailable", "Away."), None])

    def call() -> str:
        if (error := next(answers)) is not None:
            raise error
        return "there again"

    def wanted() -> bool:
        raise Unavailable("database_unavailable", "Away too.")

    assert StorageRetries(lambda: 0.0, pauses.append)(call, wanted) == "there again"
    assert pauses == [INTERVAL_SECONDS] * 2


# The default.


def test_the_default_loads_no_client_and_a_bucket_without_it_is_refused_with_a_sentence(tmp_path: Path) -> None:
    program = """
import sys
from app.settings import Settings
import app.main
from app.main.storage import open_storage
storage = open_storage(Settings())
print(type(storage).__name__, sorted({"boto3", "botocore", "s3transfer", "app.storage.s3"} & set(sys.modules)))
sys.modules["boto3"] = None
from app.errors import Conflict
try:
    open_storage(Settings(storage_url="s3://photos"))
except Conflict as error:
    print(error.code)
"""
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "PATH": ""}
    command = [sys.executable, "-c", program]
    told = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    assert told.stdout.split("\n")[:2] == ["DiskStorage []", "package_missing"]


def test_ports_of_the_servers_are_all_their_own() -> None:
    assert len(set(free_ports(20))) == 20
