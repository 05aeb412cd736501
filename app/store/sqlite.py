"""One SQLite connection behind one lock: opened carefully, checked after a crash, never shared between processes."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import ColumnElement, Connection, Engine, create_engine, exc, make_url
from sqlalchemy.pool import StaticPool

from app.errors import Conflict, Internal, RestoreError, Unavailable
from app.store.clock import clock_reading
from app.store.group_commit import GroupCommit
from app.store.migration import migrate

log = logging.getLogger(__name__)

BUSY_TIMEOUT_SECONDS = 5
SAFE_SQLITE = (3, 51, 3)  # earlier ones can corrupt a write-ahead log that two connections reset at once

# WAL with FULL survives a power cut at 0.15 ms a commit; a mapped file turns an I/O error into a crash.
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    f"busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}",
    "foreign_keys=ON",
    "mmap_size=0",
)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FULL_RETRY_SECONDS = 60

Value = TypeVar("Value")


class SqliteDatabase:
    """A SQLite file (or `sqlite://` in memory); see `Database`. Its clock is this machine's, or the given `clock`."""

    exclusive = True  # by the lock on the data folder

    def __init__(self, database_url: str, clock: Callable[[], float] | None = None) -> None:
        url = make_url(database_url)
        self._url, self._now = url, clock_reading(clock or time.time)
        self._grouped: GroupCommit[Any] = GroupCommit(self.writing)
        self._path = None if url.database in (None, "", ":memory:") else Path(str(url.database)).absolute()
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._connection: Connection | None = None
        self._lock_file: int | None = None

    def open(self) -> None:
        """Take the data folder, check the file, create the tables; see `Database`."""
        unclean = False
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = _take(self._path)
            unclean = _left_behind(self._path)
        try:
            self._connect(unclean)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file cleanly and free the folder. Harmless when called twice."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None
            if self._lock_file is not None:
                os.close(self._lock_file)  # the kernel frees the lock, as it does after kill -9
                self._lock_file = None

    def now(self) -> ColumnElement[float]:
        """See `Database`."""
        return self._now

    def read(self, work: Callable[[Connection], Value]) -> Value:
        """See `Database`."""
        with self.reading() as connection:
            return work(connection)

    def read_statement(self, work: Callable[[Connection], Value]) -> Value:
        """See `Database`."""
        with self._transaction(None) as connection:
            return work(connection)

    def write(self, work: Callable[[Connection], Value]) -> Value:
        """See `Database`."""
        with self.writing() as connection:
            return work(connection)

    def write_statement(self, work: Callable[[Connection], Value]) -> Value:
        """See `Database`."""
        return self.read_statement(work)

    def write_grouped(self, work: Callable[[Connection], Value]) -> Value:
        """See `Database`."""
        return cast(Value, self._grouped.run(work))

    def write_apart(self, work: Callable[[Connection], Value]) -> Value:
        """See `Database`; there is one connection, and each transaction on it is short."""
        return self.write(work)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of all rows."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its start, so that what it counts stays true until commit."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self, begin: str | None) -> Iterator[Connection]:
        with self._lock:
            if self._connection is None:
                raise Unavailable("store_closed", "The service is stopping; try again in a minute.")
            with _translated_errors(), self._connection.begin():
                if begin is not None:  # the driver's own transactions are off: else each statement is one
                    self._connection.exec_driver_sql(begin)
                yield self._connection

    def _connect(self, unclean: bool) -> None:
        if sqlite3.sqlite_version_info < SAFE_SQLITE:
            log.info(
                "SQLite %s is older than 3.51.3 and safe here only because one connection is used",
                sqlite3.sqlite_version,
            )
        # The driver's own transactions are off (isolation_level None): `_transaction` says BEGIN itself.
        options = {"check_same_thread": False, "isolation_level": None, "timeout": BUSY_TIMEOUT_SECONDS}
        self._engine = create_engine(self._url, poolclass=StaticPool, connect_args=options)
        with _translated_errors():
            self._connection = self._engine.connect()
            for pragma in _PRAGMAS:
                self._connection.exec_driver_sql(f"PRAGMA {pragma}").close()
            self._connection.rollback()
            if unclean:
                _check(self._connection)
            with self._connection.begin():
                self._connection.exec_driver_sql("BEGIN IMMEDIATE")
                migrate(self._connection)


def _take(path: Path) -> int:
    """Lock the data folder for the life of this process; returns the open lock file."""
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise Conflict(
            "already_running",
            "Another process of this service already uses this database; stop it first, or set another DATABASE_URL.",
        ) from error
    return handle


def _left_behind(path: Path) -> bool:
    """Whether the last process ended without closing: a clean close removes the write-ahead log."""
    log_file = path.with_name(path.name + "-wal")
    return log_file.exists() and log_file.stat().st_size > 0


def _check(connection: Connection) -> None:
    log.warning("the last run did not close its database; checking it")
    with connection.begin():
        rows = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    if rows != ["ok"]:
        log.error("integrity check: %s", rows[:5])
        raise _damaged()


def _damaged() -> Internal:
    return Internal(
        "database_damaged",
        "The job database is damaged. Stop the service, move the file that DATABASE_URL names aside together with its "
        "-wal and -shm companions, and start again; it begins empty, uploads and results stay on disk.",
    )


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    """Turn the driver's errors into ours; the transaction has been rolled back by then."""
    try:
        yield
    except exc.DBAPIError as error:
        log.error("the database refused: %s", error.orig)
        raise _translate_error(error) from error


def _translate_error(error: exc.DBAPIError) -> RestoreError | exc.DBAPIError:
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the high bits tell details
    if code in _DAMAGED:
        return _damaged()
    if code == sqlite3.SQLITE_FULL:
        return Unavailable(
            "storage_full",
            "There is no free disk space left for jobs; try again later or ask the operator to free some.",
            retry_after_seconds=_FULL_RETRY_SECONDS,
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(
            "database_busy", "The job database is busy; try again.", retry_after_seconds=BUSY_TIMEOUT_SECONDS
        )
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return Unavailable(
            "database_unwritable",
            "The job database cannot be read or written; check the disk and the rights of its folder.",
            retry_after_seconds=_FULL_RETRY_SECONDS,
        )
    return error
