"""What the store needs of a database: transactions, and a clock that all of its users share.

Which implementation serves an address is chosen here; that of another database is not even imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, make_url
from sqlalchemy.exc import ArgumentError

from app.errors import Internal, RestoreError
from app.store.sqlite import SqliteDatabase

Value = TypeVar("Value")

DATABASE_UNAVAILABLE = "database_unavailable"  # the code of a database that went away, perhaps while it committed


class Database(Protocol):
    """One database and its transactions, usable from any thread.

    A `work` gets the connection of an open transaction and gives back a value; when it raises, nothing was changed. It
    may be called a second time, after the first call's changes were undone. Errors of the driver come out as
    `RestoreError`s where they are expected.
    """

    @property
    def exclusive(self) -> bool:
        """Whether no other process can use this database while it is open here."""
        ...

    def open(self) -> None:
        """Connect, check, and create or extend the tables.

        Raises:
            Conflict: `already_running`, another process holds this database.
            Internal: `database_damaged`, `database_newer`, `database_refused` or `database_driver_missing`; the
                sentence says the remedy.
            Unavailable: `database_unavailable`, it could not be reached for a while; `older_workers`.
        """
        ...

    def close(self) -> None:
        """Close all connections. Harmless when called twice."""
        ...

    def now(self) -> ColumnElement[float]:
        """The present by the database's clock, in epoch seconds, as an expression of a statement."""
        ...

    def read(self, work: Callable[[Connection], Value]) -> Value:
        """Run a work that only reads; it sees one state of all rows."""
        ...

    def read_statement(self, work: Callable[[Connection], Value]) -> Value:
        """The same for a work of one statement, which sees one state by itself: no transaction is opened for it."""
        ...

    def write(self, work: Callable[[Connection], Value]) -> Value:
        """Run a work that changes rows, and commit it."""
        ...

    def write_statement(self, work: Callable[[Connection], Value]) -> Value:
        """The same for a work of one statement, which is a transaction by itself: none is opened for it."""
        ...

    def write_grouped(self, work: Callable[[Connection], Value]) -> Value:
        """The same, for a work that may share its commit with others; it raises a `RestoreError` before it writes."""
        ...

    def write_apart(self, work: Callable[[Connection], Value]) -> Value:
        """The same, never waiting for a connection that others use: for heartbeats."""
        ...


def may_be_committed(error: BaseException) -> bool:
    """Whether a write that raised this may stand all the same: its answer was lost, or nobody expected the error.

    So what its rows name (an upload, say) must be left to the janitor, who sees later whether a row names it.
    """
    return not isinstance(error, RestoreError) or error.code == DATABASE_UNAVAILABLE


def is_shared(database_url: str) -> bool:
    """Whether several processes may use the database that an address names."""
    try:
        return make_url(database_url).get_backend_name() == "postgresql"
    except ArgumentError:
        return False


def open_database_at(database_url: str, clock: Callable[[], float] | None = None) -> Database:
    """The database that an SQLAlchemy address names, not connected yet.

    Args:
        database_url: begins with `sqlite:///` or `postgresql+psycopg://`.
        clock: stands in for the database's clock (epoch seconds); None: its own.

    Raises:
        Internal: `database_unknown`.
    """
    try:
        backend = make_url(database_url).get_backend_name()
    except ArgumentError:
        backend = ""
    if backend == "sqlite":
        return SqliteDatabase(database_url, clock)
    if backend == "postgresql":
        from app.store.postgres import PostgresDatabase  # only where it is asked for

        return PostgresDatabase(database_url, clock)
    raise Internal("database_unknown", "DATABASE_URL must begin with sqlite:/// or postgresql+psycopg://.")
