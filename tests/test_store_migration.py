"""A database of the first version becomes one of today: nothing lost, all or nothing, and as good as a fresh one."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest

from app.store import AttemptStatus, NewPhoto, NewVersion, PhotoStatus, SqlStore, migration
from app.store.schema import VERSION, metadata
from tests import old_database
from tests.old_database import ATTEMPTS, JOBS, PHOTOS


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.sqlite3"
    old_database.write(path)
    return path


def shape(path: Path) -> dict[str, set[str]]:
    """The columns of every table, and the names of all indexes."""
    connection = sqlite3.connect(path)
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {table: {row[1] for row in connection.execute(f"PRAGMA table_info({table})")} for table in tables}
    found["indexes"] = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    connection.close()
    return found


def test_the_rows_of_the_first_version_are_all_there_and_go_on(old: Path) -> None:
    store = SqlStore(f"sqlite:///{old}")
    store.open()
    assert store.recover(100.0) == [ATTEMPTS["queued"], ATTEMPTS["processing"]]
    jobs = {job.id: job for job in store.jobs("owner", 99)}
    assert set(jobs) == set(JOBS.values())
    assert jobs[JOBS["failed"]].status is AttemptStatus.FAILED
    (done,) = jobs[JOBS["completed"]].attempts
    assert (done.version, done.sent, done.result_name) == (1, False, f"{ATTEMPTS['completed']}.jpg")
    photo = store.library.photo("owner", PHOTOS["completed"])
    assert (photo.status, photo.selected_attempt_id, photo.used_at) == (PhotoStatus.READY, None, None)

    # And everything that came later can be done with them.
    assert store.new_version(done.id, 1, NewVersion(f"{done.id}-v2.jpg", 8, ()))
    assert store.library.select("owner", photo.id, done.id, 101.0).selected_attempt_id == done.id
    again, _ = store.restore_photo("owner", photo.id, "{}", "local", 10, 102.0)
    assert store.claim(again.attempts[0].id, "token", 103.0) is not None
    new = NewPhoto("e" * 32, hashlib.sha256(b"x").hexdigest(), "n", "image/png", 1, 1, 1)
    assert store.library.add("owner", new, 104.0)[1]
    store.close()


def test_a_run_of_a_version_without_leases_counts_as_lapsed(old: Path) -> None:
    store = SqlStore(f"sqlite:///{old}")
    store.open()
    assert store.sweep_leases(100.0).lapsed == (ATTEMPTS["processing"],)
    store.close()


def test_it_has_the_shape_of_a_fresh_one(old: Path, tmp_path: Path) -> None:
    for path in (old, tmp_path / "fresh.sqlite3", old):  # a second start finds nothing to do
        store = SqlStore(f"sqlite:///{path}")
        store.open()
        store.close()
    assert shape(old) == shape(tmp_path / "fresh.sqlite3")
    assert {table.name for table in metadata.sorted_tables} <= set(shape(old))
    assert sqlite3.connect(old).execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_a_change_that_breaks_off_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shape(old)
    add = migration.add_columns

    def broken(connection: object) -> None:
        add(connection)  # type: ignore[arg-type]
        raise RuntimeError("the machine stops here")

    monkeypatch.setattr(migration, "add_columns", broken)
    with pytest.raises(RuntimeError):
        SqlStore(f"sqlite:///{old}").open()
    assert shape(old) == before
    assert sqlite3.connect(old).execute("PRAGMA user_version").fetchone() == (1,)
    monkeypatch.undo()
    store = SqlStore(f"sqlite:///{old}")
    store.open()
    assert len(store.jobs("owner", 99)) == 4
    store.close()
