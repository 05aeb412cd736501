"""Submissions that come together are committed together, and each is told the truth about its own."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import Connection, exc

from app.errors import Unavailable
from app.storage import new_id
from app.store.group_commit import GroupCommit
from app.store.sqlite import SqliteDatabase
from tests.harness import until


@pytest.fixture
def database(tmp_path: Path) -> SqliteDatabase:
    database = SqliteDatabase(f"sqlite:///{tmp_path / 'jobs.sqlite3'}")
    database.open()
    with database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE notes (word TEXT UNIQUE)")
    return database


def words(database: SqliteDatabase) -> list[str]:
    with database.reading() as connection:
        return list(connection.exec_driver_sql("SELECT word FROM notes ORDER BY word").scalars())


def note(connection: Connection, word: str) -> str:
    connection.exec_driver_sql("INSERT INTO notes VALUES (?)", (word,))
    return word


class Counting:
    """Counts the transactions that the gathering opens; the first one waits until `go`."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database, self.count, self.go, self.begun = database, 0, threading.Event(), threading.Event()

    def writing(self) -> AbstractContextManager[Connection]:
        self.count += 1
        if self.count == 1:
            self.begun.set()
            assert self.go.wait(10)
        return self._database.writing()


def run_together(database: SqliteDatabase, jobs: list[str]) -> tuple[list[object], int]:
    """The first word's transaction is held open while all others arrive."""
    counting = Counting(database)
    gathering: GroupCommit[str] = GroupCommit(counting.writing)

    def work(word: str) -> object:
        def write(connection: Connection) -> str:
            if word.startswith("bad"):
                raise Unavailable("queue_full", "No.")
            if word.startswith("wrong"):
                raise ValueError(note(connection, "of nobody"))
            if word == "broken":
                raise exc.OperationalError("INSERT", None, sqlite3.OperationalError("disk I/O error"))
            return note(connection, new_id() if word == "anew" else word)

        try:
            return gathering.run(write)
        except (Unavailable, ValueError, exc.DBAPIError) as error:
            return error

    with ThreadPoolExecutor(len(jobs)) as pool:
        first = pool.submit(work, jobs[0])
        assert counting.begun.wait(10)
        rest = []
        for word in jobs[1:]:  # one by one, so that they are written in this order
            rest.append(pool.submit(work, word))
            until(lambda: len(gathering._waiting) == len(rest))
        counting.go.set()
        outcomes = [first.result(), *(future.result() for future in rest)]
    return outcomes, counting.count


def test_those_who_wait_share_one_commit(database: SqliteDatabase) -> None:
    jobs = [f"word {number:02}" for number in range(20)]
    outcomes, transactions = run_together(database, jobs)
    assert outcomes == jobs
    assert words(database) == jobs
    assert transactions == 2, "the nineteen that came together were not written together"
    database.close()


def test_a_refused_one_leaves_nothing_and_harms_nobody(database: SqliteDatabase) -> None:
    outcomes, _ = run_together(database, ["first", "bad", "good", "bad too", "last"])
    assert [isinstance(outcome, Unavailable) for outcome in outcomes] == [False, True, False, True, False]
    assert words(database) == ["first", "good", "last"]
    database.close()


def test_one_that_breaks_a_constraint_or_breaks_down_fails_alone(database: SqliteDatabase) -> None:
    said = ["first", "good", "first", "bad", "wrong", "wrong too", "last"]
    outcomes, _ = run_together(database, said)
    kinds = [outcome if isinstance(outcome, str) else type(outcome) for outcome in outcomes]
    assert kinds == ["first", "good", exc.IntegrityError, Unavailable, ValueError, ValueError, "last"]
    assert words(database) == ["first", "good", "last"]
    database.close()


def test_what_was_done_before_the_fault_of_another_is_done_again(database: SqliteDatabase) -> None:
    """What it gave at first was undone: an id, say, under which there is nothing."""
    outcomes, _ = run_together(database, ["first", "anew", "wrong"])
    assert outcomes[1] in words(database)
    database.close()


def test_a_fault_of_the_database_undoes_all_that_came_together(database: SqliteDatabase) -> None:
    """As on a full disk, where none of the others would fare better."""
    outcomes, transactions = run_together(database, ["first", "good", "broken", "last"])
    assert [type(outcome) for outcome in outcomes] == [str, *[exc.OperationalError] * 3]
    assert (words(database), transactions) == (["first"], 2)
    database.close()


def test_nobody_is_told_of_success_when_the_commit_fails(database: SqliteDatabase) -> None:
    class Failing:
        def __init__(self) -> None:
            self._inner = database.writing()

        def __enter__(self) -> Connection:
            return self._inner.__enter__()

        def __exit__(self, *_: object) -> None:
            self._inner.__exit__(RuntimeError, RuntimeError("disk"), None)
            raise Unavailable("storage_full", "The disk is full.")

    gathering: GroupCommit[str] = GroupCommit(Failing)
    with pytest.raises((Unavailable, RuntimeError)):
        gathering.run(lambda connection: note(connection, "lost"))
    assert words(database) == []
    database.close()
