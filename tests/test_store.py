"""The store: whole submissions, guarded moves, order, limits, damage and locks."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from app.errors import Conflict, Internal, NotFound, TooLarge, Unavailable
from app.events import LocalEvents
from app.notices import Notice
from app.storage import new_id
from app.store import Attempt, AttemptStatus, Job, NewPhoto, Result, SqlStore, Store
from app.store.schema import VERSION, metadata

ME = "me"


def photo() -> NewPhoto:
    return NewPhoto(new_id(), "a" * 64, "old.jpg", "image/jpeg", 30, 20, 1234)


def result(attempt_id: str, seconds: float = 2.0) -> Result:
    facts = ({"box": [1, 2, 3, 4]},), (Notice("c", "m"),), {"tile": 128}
    return Result(f"{attempt_id}.png", "image/png", 1000, 500, 99, "net", seconds, *facts)


def add(store: Store, photos: int = 1, owner: str = ME, limit: int = 1000, now: float = 100.0) -> Job:
    return store.add_job(owner, [photo() for _ in range(photos)], '{"scale": 4}', "local", limit, now)


def first(job: Job) -> str:
    return job.attempts[0].id


def status_of(store: Store, attempt_id: str) -> str:
    attempt = store.attempt(attempt_id)
    assert attempt is not None
    return attempt.status.value


def finish(store: Store, attempt_id: str, now: float = 110.0, seconds: float = 2.0) -> None:
    assert store.claim(attempt_id, "t", now)
    assert store.complete(attempt_id, "t", result(attempt_id, seconds), now)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "jobs.sqlite3"


@pytest.fixture
def events() -> LocalEvents:
    return LocalEvents()


@pytest.fixture
def store(file: Path, events: LocalEvents) -> Iterator[SqlStore]:
    opened = SqlStore(f"sqlite:///{file}", events)
    opened.open()
    yield opened
    opened.close()


def rows(file: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def photo_status(file: Path) -> str:
    return str(rows(file, "SELECT status FROM photos")[0][0])


def test_a_job_is_written_whole_and_read_back(store: SqlStore) -> None:
    job = add(store, photos=3, now=123.0)
    again = store.job(ME, job.id)
    assert again == job
    assert [a.position for a in job.attempts] == [0, 1, 2]
    assert job.created_at == 123.0
    assert job.status is AttemptStatus.QUEUED
    attempt = job.attempts[1]
    assert (attempt.original_filename, attempt.photo_width, attempt.photo_height) == ("old.jpg", 30, 20)
    assert (attempt.stage, attempt.progress, attempt.tries, attempt.claim) == ("waiting", 0.0, 0, None)


def test_another_owner_cannot_see_list_cancel_or_fetch_it(store: SqlStore) -> None:
    job = add(store)
    finish(store, first(job))
    name = f"{first(job)}.png"
    for call in (
        lambda: store.job("other", job.id),
        lambda: store.cancel_or_remove("other", job.id, 1.0),
        lambda: store.result_attempt("other", name),
        lambda: store.jobs("other", 10, before=job.id),
        lambda: store.job(ME, "0" * 32),
    ):
        with pytest.raises(NotFound):
            call()
    assert store.jobs("other", 10) == []
    assert store.result_attempt(ME, name).id == first(job)
    with pytest.raises(NotFound, match="expired"):
        store.result_attempt(ME, f"{first(job)}.jpg")


def test_a_full_queue_refuses_with_a_time_and_writes_nothing(store: SqlStore, file: Path) -> None:
    finish(store, first(add(store)), seconds=7.0)
    add(store, photos=3, limit=4)
    with pytest.raises(Unavailable) as refused:
        add(store, photos=3, limit=4)
    assert refused.value.code == "queue_full"
    assert refused.value.retry_after_seconds == 14  # two photos too many, seven seconds each
    assert rows(file, "SELECT count(*) FROM photos") == [(4,)]
    add(store, photos=1, limit=4)


def test_a_job_larger_than_the_whole_queue_is_too_large_not_too_early(store: SqlStore) -> None:
    with pytest.raises(TooLarge) as refused:
        add(store, photos=5, limit=4)
    assert refused.value.code == "too_many_files"


def test_parallel_submissions_never_pass_the_limit(store: SqlStore) -> None:
    accepted: list[Job] = []
    refused: list[str] = []

    def submit() -> None:
        for _ in range(5):
            try:
                accepted.append(add(store, photos=2, limit=50))
            except Unavailable as error:
                refused.append(error.code)

    threads = [threading.Thread(target=submit) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) == 25
    assert set(refused) == {"queue_full"}
    assert store.counts().queued == 50


def test_places_in_the_queue_follow_the_order_of_submission(store: SqlStore) -> None:
    jobs = [add(store, photos=2, now=100.0 - n) for n in range(3)]  # the clock runs backwards; the order stays
    assert [store.queue_position(job.id) for job in jobs] == [1, 3, 5]
    assert store.queued_ids() == [a.id for job in jobs for a in job.attempts]
    assert store.queued_ids(limit=1) == [first(jobs[0])]
    store.claim(first(jobs[0]), "t", 1.0)
    assert [store.queue_position(job.id) for job in jobs] == [1, 2, 4]
    store.cancel_or_remove(ME, jobs[0].id, 1.0)
    assert [store.queue_position(job.id) for job in jobs] == [0, 1, 3]
    assert store.queue_position("0" * 32) == 0


def test_pages_go_from_the_newest_to_the_oldest(store: SqlStore) -> None:
    ids = [add(store, photos=2).id for _ in range(5)]
    page = store.jobs(ME, 2)
    assert [job.id for job in page] == [ids[4], ids[3]]
    assert [job.id for job in store.jobs(ME, 9, before=page[-1].id)] == [ids[2], ids[1], ids[0]]
    assert all(len(job.attempts) == 2 for job in page)


def test_a_waiting_attempt_is_claimed_exactly_once(store: SqlStore) -> None:
    attempt_id = first(add(store))
    claims: list[Attempt | None] = []
    barrier = threading.Barrier(8)

    def claim(token: str) -> None:
        barrier.wait()
        claims.append(store.claim(attempt_id, token, 5.0))

    threads = [threading.Thread(target=claim, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [attempt for attempt in claims if attempt is not None]
    assert len(won) == 1
    assert (won[0].status, won[0].tries, won[0].started_at) == (AttemptStatus.PROCESSING, 1, 5.0)
    assert won[0].claim is not None
    assert store.holds(attempt_id, won[0].claim)


def test_a_completed_row_carries_all_facts_of_its_result(store: SqlStore, file: Path) -> None:
    job = add(store)
    attempt_id = first(job)
    store.claim(attempt_id, "t", 100.0)
    assert photo_status(file) == "processing"
    assert store.report_progress(attempt_id, "t", 1.7, "upscaling")
    running = store.job(ME, job.id)
    assert (running.progress, running.attempts[0].stage) == (1.0, "upscaling")
    assert store.complete(attempt_id, "t", result(attempt_id), 130.0)
    done = store.job(ME, job.id).attempts[0]
    assert (done.result_name, done.result_mime, done.result_bytes) == (f"{attempt_id}.png", "image/png", 99)
    assert (done.result_width, done.result_height, done.model, done.seconds) == (1000, 500, "net", 2.0)
    assert (done.faces, done.params) == (({"box": [1, 2, 3, 4]},), {"tile": 128})
    assert done.warnings == (Notice("c", "m"),)
    assert (done.ended_at, done.progress, done.claim) == (130.0, 1.0, None)
    assert photo_status(file) == "ready"
    assert store.seconds_per_megapixel() == pytest.approx(4.0)
    assert store.known_result_names() == {f"{attempt_id}.png"}
    assert store.known_photo_ids() == {done.photo_id}
    assert store.active_ids() == set()


Move = Callable[[Store, str, str], bool]
MOVES: dict[str, Move] = {
    "report": lambda s, a, t: s.report_progress(a, t, 0.5, "x"),
    "holds": lambda s, a, t: s.holds(a, t),
    "complete": lambda s, a, t: s.complete(a, t, result(a), 9.0),
    "fail": lambda s, a, t: s.fail(a, t, "code", "message", 9.0),
    "give_back": lambda s, a, t: s.give_back(a, t, 9.0),
    "crashed": lambda s, a, t: s.crashed(a, t, 9.0),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES.keys())
def test_a_run_without_its_claim_changes_nothing(store: SqlStore, move: Move) -> None:
    job = add(store)
    attempt_id = first(job)
    assert not move(store, attempt_id, "t")  # still waiting
    store.claim(attempt_id, "t", 1.0)
    assert not move(store, attempt_id, "another")
    store.give_back(attempt_id, "t", 9.0)
    store.claim(attempt_id, "second", 2.0)
    before = store.attempt(attempt_id)
    assert not move(store, attempt_id, "t")  # a stale run
    assert store.attempt(attempt_id) == before
    store.cancel_or_remove(ME, job.id, 3.0)
    before = store.attempt(attempt_id)
    assert not move(store, attempt_id, "second")  # cancelled under it
    assert store.attempt(attempt_id) == before
    assert not move(store, new_id(), "t")


def test_a_failed_cancelled_or_returned_attempt_puts_the_photo_back(store: SqlStore, file: Path) -> None:
    job = add(store)
    attempt_id = first(job)
    store.claim(attempt_id, "a", 1.0)
    assert store.give_back(attempt_id, "a", 9.0)
    assert photo_status(file) == "uploaded"
    again = store.claim(attempt_id, "b", 2.0)
    assert again is not None
    assert again.tries == 1  # giving back burned no try
    assert photo_status(file) == "processing"
    assert store.fail(attempt_id, "b", "decode_timeout", "Too slow.", 3.0)
    assert photo_status(file) == "uploaded"
    failed = store.job(ME, job.id)
    assert failed.status is AttemptStatus.FAILED
    assert (failed.attempts[0].error_code, failed.attempts[0].error_message) == ("decode_timeout", "Too slow.")


def test_cancelling_is_immediate_for_waiting_and_running_and_spares_the_ended(store: SqlStore) -> None:
    job = add(store, photos=3)
    finish(store, job.attempts[0].id)
    store.claim(job.attempts[1].id, "t", 1.0)
    done = store.cancel_or_remove(ME, job.id, 50.0)
    assert (done.outcome, done.uploads, done.results) == ("cancelled", (), ())
    assert [a.status.value for a in store.job(ME, job.id).attempts] == ["completed", "cancelled", "cancelled"]
    assert not store.holds(job.attempts[1].id, "t")
    gone = store.cancel_or_remove(ME, job.id, 51.0)
    assert gone.outcome == "removed"
    assert set(gone.uploads) == {a.photo_id for a in job.attempts}
    assert gone.results == (f"{first(job)}.png",)
    with pytest.raises(NotFound):
        store.job(ME, job.id)
    assert store.known_photo_ids() == set()


def test_after_a_crash_a_run_is_repeated_once_and_then_given_up(store: SqlStore) -> None:
    waiting, running = add(store), add(store)
    store.claim(first(running), "a", 1.0)
    assert store.recover(2.0) == [first(waiting), first(running)]
    store.claim(first(running), "b", 3.0)
    assert store.recover(4.0) == [first(waiting)]
    attempt = store.job(ME, running.id).attempts[0]
    assert (attempt.status, attempt.error_code, attempt.tries) == (AttemptStatus.FAILED, "worker_crashed", 2)
    assert attempt.ended_at == 4.0


def test_a_run_that_died_alone_is_repeated_once_too(store: SqlStore) -> None:
    attempt_id = first(add(store))
    for token, state in (("a", "queued"), ("b", "failed")):
        store.claim(attempt_id, token, 1.0)
        assert store.crashed(attempt_id, token, 2.0)
        assert status_of(store, attempt_id) == state


def test_expiry_takes_whole_ended_jobs_and_never_an_active_one(store: SqlStore) -> None:
    old, young, half, waiting = (add(store, photos=2) for _ in range(4))
    for attempt in old.attempts:
        finish(store, attempt.id, now=200.0)
    for attempt in young.attempts:
        finish(store, attempt.id, now=900.0)
    finish(store, first(half), now=200.0)
    gone = store.expire(before=500.0)
    assert gone.jobs == (old.id,)
    assert set(gone.uploads) == {a.photo_id for a in old.attempts}
    assert set(gone.results) == {f"{a.id}.png" for a in old.attempts}
    assert [job.id for job in store.jobs(ME, 9)] == [waiting.id, half.id, young.id]
    assert store.expire(before=500.0).jobs == ()
    assert store.expire(before=1e12).jobs == (young.id,)


def test_expiry_works_in_bounded_bites(store: SqlStore) -> None:
    for _ in range(3):
        finish(store, first(add(store)), now=1.0)
    assert [len(store.expire(before=50.0, limit=2).jobs) for _ in range(3)] == [2, 1, 0]


def test_listeners_hear_after_the_commit_and_a_faulty_one_harms_nobody(
    store: SqlStore, events: LocalEvents, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[tuple[str, str]] = []

    def listen(job_id: str) -> None:
        heard.append((job_id, store.job(ME, job_id).status.value))

    def faulty(_job_id: str) -> None:
        raise RuntimeError("listener")

    events.subscribe(faulty)
    unsubscribe = events.subscribe(listen)
    job, other = add(store), add(store)
    assert heard == [(job.id, "queued"), (other.id, "queued")]
    heard.clear()
    store.claim(first(job), "t", 1.0)
    assert heard == [(job.id, "processing"), (other.id, "queued")]  # the other's place in the queue moved
    heard.clear()
    store.complete(first(job), "wrong", result(first(job)), 2.0)
    assert heard == []
    store.complete(first(job), "t", result(first(job)), 2.0)
    unsubscribe()
    store.cancel_or_remove(ME, other.id, 3.0)
    assert heard == [(job.id, "completed")]
    assert "listener of job changes failed" in caplog.text


def test_the_connection_is_set_for_safety(store: SqlStore) -> None:
    with store._database.reading() as connection:
        said = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "mmap_size", "busy_timeout", "user_version")
        }
    assert said == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "mmap_size": 0,
        "busy_timeout": 5000,
        "user_version": VERSION,
    }


def test_a_failing_transaction_leaves_nothing_behind(store: SqlStore, file: Path) -> None:
    twice = photo()
    with pytest.raises(Exception, match="UNIQUE"):
        store.add_job(ME, [photo(), twice, twice], "{}", "local", 100, 1.0)
    assert rows(file, "SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM photos)") == [(0, 0)]
    add(store)


def test_a_photo_has_at_most_one_active_attempt(store: SqlStore, file: Path) -> None:
    job = add(store)
    copied = "job_id, photo_id, backend, options_json, progress, stage, tries, created_at, faces_json, warnings_json"
    query = (
        f"INSERT INTO attempts (number, id, position, status, params_json, {copied}) "
        f"SELECT 99, '{{}}', 1, '{{}}', params_json, {copied} FROM attempts"
    )
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            connection.execute(query.format(new_id(), "processing"))
        connection.execute(query.format(new_id(), "failed"))
    assert len(store.job(ME, job.id).attempts) == 2


def test_a_full_disk_is_told_and_the_store_recovers_alone(store: SqlStore) -> None:
    kept = add(store)
    with store._database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(Unavailable) as refused:
        add(store, photos=200)
    assert refused.value.code == "storage_full"
    assert refused.value.retry_after_seconds == 60
    with store._database.reading() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    assert store.job(ME, kept.id) == kept
    add(store)


def test_a_writing_transaction_holds_the_lock_from_its_start(store: SqlStore, file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None, timeout=0)) as other:
        with store._database.writing(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        with store._database.reading():
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")


def test_a_busy_database_is_told(store: SqlStore, file: Path) -> None:
    with store._database.reading() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=20")
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable) as refused:
            add(store)
        assert refused.value.code == "database_busy"
        other.execute("ROLLBACK")
    add(store)


def test_a_closed_store_says_so_and_can_be_opened_again(store: SqlStore, file: Path) -> None:
    job = add(store)
    store.close()
    store.close()
    with pytest.raises(Unavailable) as refused:
        store.counts()
    assert refused.value.code == "store_closed"
    assert not file.with_name(file.name + "-wal").exists()
    store.open()
    assert store.job(ME, job.id) == job


def test_a_second_process_on_the_same_folder_is_refused(store: SqlStore, file: Path) -> None:
    with pytest.raises(Conflict) as refused:
        SqlStore(f"sqlite:///{file}").open()
    assert refused.value.code == "already_running"
    script = f"from app.store import SqlStore\nSqlStore('sqlite:///{file}').open()"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "already uses this database" in ended.stderr
    store.close()
    with contextlib.closing(SqlStore(f"sqlite:///{file}")) as next_one:
        next_one.open()


def crashed_copy(store: Store, file: Path, folder: Path) -> Path:
    """What a kill -9 leaves behind: the file and its log, not closed."""
    folder.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(file.with_name(file.name + suffix), folder / (file.name + suffix))
    return folder / file.name


def test_after_an_unclean_stop_the_database_is_checked_and_complete(
    store: SqlStore, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = add(store, photos=2)
    copy = crashed_copy(store, file, tmp_path / "copy")
    with contextlib.closing(SqlStore(f"sqlite:///{copy}")) as again, caplog.at_level(logging.WARNING):
        again.open()
        assert again.job(ME, job.id) == job
    assert "did not close its database" in caplog.text


def test_damage_behind_an_unclean_stop_is_found_and_nothing_is_remade(
    store: SqlStore, file: Path, tmp_path: Path
) -> None:
    for _ in range(200):
        add(store)
    store.close()
    store.open()  # everything is in the main file now
    add(store)
    copy = crashed_copy(store, file, tmp_path / "copy")
    content = bytearray(copy.read_bytes())
    content[5 * 4096 : 9 * 4096] = b"\x5a" * (4 * 4096)
    copy.write_bytes(content)
    with pytest.raises(Internal) as refused:
        SqlStore(f"sqlite:///{copy}").open()
    assert refused.value.code == "database_damaged"
    assert "DATABASE_URL" in refused.value.detail
    assert str(tmp_path) not in refused.value.detail
    assert b"\x5a" * 4096 in copy.read_bytes()  # what is left stays for whoever wants to save it


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite3"
    file.write_bytes(b"this is no database, " * 100)
    with pytest.raises(Internal) as refused:
        SqlStore(f"sqlite:///{file}").open()
    assert refused.value.code == "database_damaged"
    assert file.read_bytes().startswith(b"this is no database")


def test_a_database_of_a_later_version_is_refused(store: SqlStore, file: Path) -> None:
    store.close()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(Internal) as refused:
        store.open()
    assert refused.value.code == "database_newer"


def test_other_databases_are_refused_with_a_sentence() -> None:
    with pytest.raises(Internal, match="sqlite:///"):
        SqlStore("postgresql://somewhere/jobs")


def test_the_tables_are_portable() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    for table in metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            statement = str(CreateIndex(index).compile(dialect=dialect))
            if index.name == "one_active_attempt_per_photo":
                assert "WHERE" in statement
