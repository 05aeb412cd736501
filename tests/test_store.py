"""The SQL store beyond its contract: rows on disk, damage, locks, and files that are not ours."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from app.errors import Conflict, Internal, Unavailable
from app.notices import Notice
from app.storage import new_id
from app.store import AttemptStatus, SqlStore, Store
from app.store.schema import VERSION, metadata
from app.store.sqlite import SqliteDatabase
from tests.test_store_contract import ME, add, finish, first, photo, result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "jobs.sqlite3"


@pytest.fixture
def store(file: Path) -> Iterator[SqlStore]:
    opened = SqlStore(f"sqlite:///{file}")
    opened.open()
    yield opened
    opened.close()


def rows(file: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def pragma(store: SqlStore, words: str) -> Any:
    """Ask or set a pragma on the store's own connection; what SQLite answers."""
    return store._database.read(lambda connection: connection.exec_driver_sql(f"PRAGMA {words}").scalar())


def photo_status(file: Path) -> str:
    return str(rows(file, "SELECT status FROM photos")[0][0])


def test_a_full_queue_refuses_with_a_time_and_writes_nothing(store: SqlStore, file: Path) -> None:
    finish(store, first(add(store)), seconds=7.0)
    add(store, photos=3, limit=4)
    with pytest.raises(Unavailable) as refused:
        add(store, photos=3, limit=4)
    assert refused.value.code == "queue_full"
    assert refused.value.retry_after_seconds == 14  # two photos too many, seven seconds each
    assert rows(file, "SELECT count(*) FROM photos") == [(4,)]
    add(store, photos=1, limit=4)


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
    assert store.named_files.result_names() == {f"{attempt_id}.png"}
    assert store.named_files.photo_ids() == {done.photo_id}
    assert store.named_files.active_ids() == set()


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


def test_after_a_crash_a_run_is_repeated_twice_and_then_given_up(store: SqlStore) -> None:
    waiting, running = add(store), add(store)
    for token in ("a", "b"):
        store.claim(first(running), token, 1.0)
        assert store.recover(2.0) == [first(waiting), first(running)]
    store.claim(first(running), "c", 3.0)
    assert store.recover(4.0) == [first(waiting)]
    attempt = store.job(ME, running.id).attempts[0]
    assert (attempt.status, attempt.error_code, attempt.tries) == (AttemptStatus.FAILED, "worker_crashed", 3)
    assert attempt.ended_at == 4.0


def test_the_connection_is_set_for_safety(store: SqlStore) -> None:
    names = ("journal_mode", "synchronous", "foreign_keys", "mmap_size", "busy_timeout", "user_version")
    said = {name: pragma(store, name) for name in names}
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
    pragma(store, f"max_page_count={pragma(store, 'page_count')}")
    with pytest.raises(Unavailable) as refused:
        add(store, photos=200)
    assert refused.value.code == "storage_full"
    assert refused.value.retry_after_seconds == 60
    pragma(store, "max_page_count=1000000")
    assert store.job(ME, kept.id) == kept
    add(store)


def test_a_writing_transaction_holds_the_lock_from_its_start(store: SqlStore, file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None, timeout=0)) as other:
        database = SqliteDatabase(f"sqlite:///{file}")
        store.close()
        database.open()
        with database.writing(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        with database.reading():
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
        database.close()


def test_a_busy_database_is_told(store: SqlStore, file: Path) -> None:
    pragma(store, "busy_timeout=20")
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
    for address in ("mysql://somewhere/jobs", "jobs.sqlite3", ""):
        with pytest.raises(Internal, match="sqlite:///"):
            SqlStore(address)


def test_the_tables_are_portable() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    for table in metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            statement = str(CreateIndex(index).compile(dialect=dialect))
            if index.name == "one_active_attempt_per_photo":
                assert "WHERE" in statement


def test_a_power_cut_burns_no_try_however_often_it_comes(store: Store) -> None:
    attempt_id = first(add(store))
    for moment in range(10):
        assert store.claim(attempt_id, f"t{moment}", 1.0 + moment) is not None
        assert store.recover(2.0 + moment, burn_try=False) == [attempt_id]
    attempt = store.attempt(attempt_id)
    assert attempt is not None
    assert (attempt.status, attempt.tries, attempt.claim) == (AttemptStatus.QUEUED, 0, None)


def test_whose_turn_it_is_is_read_from_what_waits_alone(store: SqlStore, file: Path) -> None:
    """It was read from all attempts that ever were, which took 1 ms of an empty history and 40 of 80,000 attempts."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    add(store)
    event.listen(Engine, "before_cursor_execute", note)
    try:
        store.queued_ids(1, only="local")
        store.waiting(2, only="local", owners_but=["another"])
        assert store.claim_next("t", 1.0, only="local") is not None
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        steps = [
            row[-1]
            for statement, parameters in asked
            if statement.startswith(("SELECT", "UPDATE"))
            for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    assert any("SEARCH attempts USING" in step for step in steps)
    assert not [step for step in steps if step.startswith(("SCAN attempts", "SCAN jobs"))]
