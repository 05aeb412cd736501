"""The janitor: what goes, what stays, and that no test of it sleeps."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import Unavailable
from app.jobs.janitor import GRACE_SECONDS, PART_SECONDS, Janitor, Sweep
from app.storage import new_id
from app.storage.part_lock import remove_unlocked
from app.store import Result, SqlStore
from app.threads import ThreadState
from tests.harness import OWNER, Harness, result_file, scratch_name, until, upload_file

HOUR = 3600.0
START = 1_000_000.0


class NoDecoder:
    """The janitor's tests decode nothing."""

    def close(self) -> None:
        pass


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path, decoder=NoDecoder())
    made.open()
    yield made
    made.close()


@pytest.fixture
def janitor(harness: Harness) -> Janitor:
    return Janitor(harness.store, harness.storage, harness.metrics, retention_seconds=HOUR)


def completed(harness: Harness, ended_at: float) -> str:
    """A job that ended then, with its upload and result on disk, as old as it is."""
    job = harness.submit(b"upload", now=ended_at - 10)
    attempt = job.attempts[0]
    harness.store.claim(attempt.id, "t", ended_at - 5)
    result(harness, f"{attempt.id}.png", ended_at)
    facts = Result(f"{attempt.id}.png", "image/png", 1, 1, 6, "m", 1.0)
    harness.store.complete(attempt.id, "t", facts, ended_at)
    age(upload_file(harness.storage, attempt.photo_id), ended_at - 10)
    return job.id


def result(harness: Harness, name: str, modified_at: float) -> None:
    temporary = scratch_name(harness.storage, name[:32])
    temporary.write_bytes(b"result")
    harness.storage.publish(temporary, name)
    age(result_file(harness.storage, name), modified_at)


def age(path: Path, modified_at: float) -> None:
    os.utime(path, (modified_at, modified_at))


def files(harness: Harness) -> tuple[int, int, int]:
    storage = harness.storage
    return tuple(
        sum(1 for _ in each) for each in (storage.iter_uploads(), storage.iter_results(), storage.iter_parts())
    )  # type: ignore[return-value]


def test_what_ended_more_than_an_hour_ago_goes_with_its_files(harness: Harness, janitor: Janitor) -> None:
    completed(harness, START)
    young = completed(harness, START + 2)
    assert janitor.sweep(START + HOUR) == Sweep()
    assert janitor.sweep(START + HOUR + 1) == Sweep(jobs=1, uploads=1, results=1)
    assert [job.id for job in harness.store.jobs(OWNER, 9)] == [young]
    assert files(harness) == (1, 1, 0)
    assert b'restore_janitor_removed_total{kind="results"} 1.0' in harness.metrics.render()


def test_what_waits_or_runs_stays_however_old(harness: Harness, janitor: Janitor) -> None:
    waiting, running = harness.submit(b"a", now=START), harness.submit(b"b", now=START)
    attempt = running.attempts[0]
    harness.store.claim(attempt.id, "t", START)
    result(harness, f"{attempt.id}.png", START)  # published, and its row about to be completed
    for job in (waiting, running):
        age(upload_file(harness.storage, job.attempts[0].photo_id), START)
    assert janitor.sweep(START + 1000 * HOUR) == Sweep()
    assert files(harness) == (2, 1, 0)


def test_rows_go_before_files(harness: Harness, janitor: Janitor, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = completed(harness, START)
    seen: list[bool] = []
    unlink = Path.unlink

    def look(path: Path, missing_ok: bool = False) -> None:
        seen.append(job_id in [job.id for job in harness.store.jobs(OWNER, 9)])
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", look)
    janitor.sweep(START + 2 * HOUR)
    assert seen == [False, False]


def test_files_that_no_row_names_go_once_they_are_old(harness: Harness, janitor: Janitor) -> None:
    harness.upload(b"its row was never written")
    (harness.folder / "uploads" / f"{new_id()}.part").write_bytes(b"its process was killed")
    scratch_name(harness.storage, new_id()).write_bytes(b"cut off")
    result(harness, f"{new_id()}.webp", START)
    stranger = harness.folder / "uploads" / "family.jpg"
    stranger.write_bytes(b"not ours")
    for folder in ("uploads", "results", "results/.scratch"):
        for file in (harness.folder / folder).iterdir():
            age(file, START)
    assert janitor.sweep(START + HOUR - 1) == Sweep()
    assert janitor.sweep(START + HOUR + 1) == Sweep(orphans=4)
    assert files(harness) == (0, 0, 0)
    assert stranger.exists()


def test_files_that_no_row_names_go_after_an_hour_however_long_results_are_kept(harness: Harness) -> None:
    """What was deleted while its bucket was away is such a file, and its user was told that it went."""
    patient = Janitor(harness.store, harness.storage, harness.metrics, retention_seconds=1000 * HOUR)
    kept = completed(harness, START)
    photo = harness.upload(b"deleted")
    age(upload_file(harness.storage, photo.id), START)
    assert patient.sweep(START + HOUR - 1) == Sweep()
    assert patient.sweep(START + HOUR + 1) == Sweep(orphans=1)
    assert [job.id for job in harness.store.jobs(OWNER, 9)] == [kept]


def test_the_first_pass_takes_what_a_killed_process_had_begun_however_young(harness: Harness, janitor: Janitor) -> None:
    """Else a server that ran out of room would start with as little."""
    left = [harness.folder / "uploads" / f"{new_id()}.part", scratch_name(harness.storage, new_id())]
    for path in left:
        path.write_bytes(b"cut off")
        age(path, START - PART_SECONDS - 1)
    with harness.storage.open_upload(new_id()) as writer:
        writer.write(b"first half")
        age(writer.path, START - PART_SECONDS - 1)
        fresh = harness.folder / "uploads" / f"{new_id()}.part"
        fresh.write_bytes(b"not locked yet")
        age(fresh, START)
        janitor.tick(START, 50.0)
        assert not any(path.exists() for path in left)
        assert writer.path.exists()
        assert fresh.exists()
        age(fresh, START - PART_SECONDS - 1)
        janitor.tick(START + 1, 51.0)
        assert fresh.exists()  # the first pass only; later ones wait for its age


def test_what_was_made_of_expired_files_is_told_to_go(harness: Harness) -> None:
    told: list[str] = []
    janitor = Janitor(
        harness.store, harness.storage, harness.metrics, retention_seconds=HOUR, forget=lambda ids: told.extend(ids)
    )
    completed(harness, START)
    (attempt,) = harness.store.jobs(OWNER, 9)[0].attempts
    assert janitor.sweep(START) == Sweep()
    assert told == []
    janitor.sweep(START + 2 * HOUR)
    assert set(told) == {attempt.id, attempt.photo_id}


def test_an_upload_that_is_still_coming_is_spared(harness: Harness) -> None:
    """Its part is young as long as bytes come; the sweep is as eager as can be set."""
    eager = Janitor(harness.store, harness.storage, harness.metrics, retention_seconds=1.0)
    with harness.storage.open_upload(new_id()) as writer:
        writer.write(b"first half, ")
        written_at = writer.path.stat().st_mtime
        assert eager.sweep(written_at + GRACE_SECONDS - 1) == Sweep()
        writer.write(b"second half")
        stored = writer.commit()
    assert upload_file(harness.storage, stored.id).read_bytes() == b"first half, second half"


def test_a_part_that_is_being_written_is_spared_whatever_its_age_says(harness: Harness) -> None:
    """After a jump of the clock every part is old; that it has a writer is what counts."""
    eager = Janitor(harness.store, harness.storage, harness.metrics, retention_seconds=1.0)
    with harness.storage.open_upload(new_id()) as writer, harness.storage.scratch(new_id()) as scratch:
        writer.write(b"slow")
        scratch.write_bytes(b"work")
        for path in (writer.path, scratch):
            age(path, START)
        assert eager.sweep(START + 24 * HOUR) == Sweep()
        stored = writer.commit()
        harness.storage.publish(scratch, f"{new_id()}.png")
    assert upload_file(harness.storage, stored.id).read_bytes() == b"slow"


def test_a_part_that_another_process_writes_is_spared_until_that_process_is_dead(harness: Harness) -> None:
    part = harness.folder / "uploads" / f"{new_id()}.part"
    code = "import sys, pathlib; from app.storage.part_lock import create_locked;"
    code += "create_locked(pathlib.Path(sys.argv[1])); print('holds', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(part)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        eager = Janitor(harness.store, harness.storage, harness.metrics, retention_seconds=1.0)
        age(part, START)
        assert eager.sweep(START + HOUR) == Sweep()
        process.kill()
        process.wait(20)
    assert eager.sweep(START + HOUR) == Sweep(orphans=1)


def test_a_part_is_locked_for_writing_where_the_file_system_asks_for_that_and_else_as_it_can_be(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS gives an exclusive lock to a descriptor for writing only; another user's file can only be read."""
    flock, opened = fcntl.flock, os.open

    def as_on_nfs(handle: int, operation: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(handle, operation)

    def as_another_user(path: Any, flags: int, *more: Any, **others: Any) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *more, **others)

    for name, double in (("fcntl.flock", as_on_nfs), ("os.open", as_another_user)):
        part = scratch_name(harness.storage, new_id())
        part.write_bytes(b"x")
        with monkeypatch.context() as patch:
            patch.setattr(f"app.storage.part_lock.{name}", double)
            assert remove_unlocked(part)
        assert not part.exists()


def test_a_result_whose_run_ends_in_the_middle_of_a_pass_stays_however_old_its_file_looks(
    harness: Harness, janitor: Janitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of a cached result is another name of an old file."""
    attempt_id = harness.submit(b"upload", now=START).attempts[0].id
    harness.store.claim(attempt_id, "t", START)
    result(harness, f"{attempt_id}.png", START - 9 * HOUR)
    named = harness.store.named_files
    ended: list[bool] = []

    def then_end(read: Callable[[], Any]) -> Callable[[], Any]:
        def answer() -> Any:
            found = read()
            if not ended:
                facts = Result(f"{attempt_id}.png", "image/png", 1, 1, 6, "m", 1.0)
                ended.append(harness.store.complete(attempt_id, "t", facts, START + 1))
            return found

        return answer

    monkeypatch.setattr(named, "active_ids", then_end(named.active_ids))
    monkeypatch.setattr(named, "result_names", then_end(named.result_names))
    janitor.sweep(START + 2)
    assert ended == [True]
    assert harness.result_files() == [f"{attempt_id}.png"]


def test_an_upload_whose_row_is_about_to_come_is_spared_even_with_a_tiny_retention(harness: Harness) -> None:
    photo = harness.upload(b"fresh")
    age(upload_file(harness.storage, photo.id), START)
    janitor = Janitor(harness.store, harness.storage, harness.metrics, retention_seconds=1.0)
    assert janitor.sweep(START + GRACE_SECONDS - 1) == Sweep()
    assert janitor.sweep(START + GRACE_SECONDS + 1) == Sweep(orphans=1)


def test_a_download_in_progress_runs_to_its_end(harness: Harness, janitor: Janitor) -> None:
    completed(harness, START)
    name = harness.result_files()[0]
    with result_file(harness.storage, name).open("rb") as download:
        janitor.sweep(START + 2 * HOUR)
        assert download.read() == b"result"
    assert harness.result_files() == []


def test_more_than_one_bite_is_swept_in_one_pass(harness: Harness, janitor: Janitor, monkeypatch: Any) -> None:
    expire = SqlStore.expire
    monkeypatch.setattr(SqlStore, "expire", lambda store, before: expire(store, before, limit=2))
    for _ in range(5):
        completed(harness, START)
    assert janitor.sweep(START + 2 * HOUR) == Sweep(jobs=5, uploads=5, results=5)


def test_after_a_jump_of_the_clock_one_pass_is_skipped(harness: Harness, janitor: Janitor) -> None:
    completed(harness, START)
    day = 86_400.0
    assert janitor.tick(START, 50.0) == Sweep()
    assert janitor.tick(START + day, 60.0) == Sweep(skipped=True)
    assert janitor.tick(START + 70.0, 70.0) == Sweep(skipped=True)  # and back again
    assert janitor.tick(START + 80.0, 80.0) == Sweep()
    assert files(harness)[:2] == (1, 1)
    assert janitor.tick(START + 80.0 + day, 80.0 + day).jobs == 1  # a day that really passed


def test_a_file_that_resists_does_not_stop_the_pass(
    harness: Harness, janitor: Janitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        completed(harness, START)
    orphan = harness.upload(b"x")
    age(upload_file(harness.storage, orphan.id), START)

    def resist(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(f"{path.name}: held by somebody")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", resist)
        assert janitor.sweep(START + 2 * HOUR) == Sweep(jobs=2)
    assert "could not remove" in caplog.text
    for path in (harness.folder / "uploads", harness.folder / "results"):
        for file in path.glob("*"):
            age(file, START)
    assert janitor.sweep(START + 2 * HOUR).orphans == 5


def test_the_thread_sweeps_at_once_survives_its_death_and_stops(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = START + 2 * HOUR
    janitor = Janitor(
        harness.store,
        harness.storage,
        harness.metrics,
        retention_seconds=HOUR,
        interval_seconds=0.01,
        wall=lambda: wall,
    )
    completed(harness, START)
    faults = [RuntimeError("a bug"), Unavailable("database_busy", "Busy.")]
    sweep = Janitor.sweep
    swept = threading.Event()

    def faulty(self: Janitor, now: float) -> Sweep:
        if faults:
            raise faults.pop(0)
        swept.set()
        return sweep(self, now)

    monkeypatch.setattr(Janitor, "sweep", faulty)
    janitor.start()
    assert swept.wait(5.0)
    until(lambda: harness.store.jobs(OWNER, 9) == [])
    assert (janitor.state, janitor.restarts) == (ThreadState.RUNNING, 1)
    assert b'restore_thread_restarts_total{thread="janitor"} 1.0' in harness.metrics.render()
    janitor.stop()
    assert janitor.state is ThreadState.STOPPED
