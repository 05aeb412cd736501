"""Group commit: submissions that arrive while one is being written are written together in the next transaction.

A commit waits for the disk, and the lock is held meanwhile; a hundred clients at once would wait for a hundred commits
in a row. Each caller still returns only after the commit that holds its rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from sqlalchemy import Connection, exc

from app.errors import RestoreError

Value = TypeVar("Value")

_OWN_FAULTS = (exc.IntegrityError, exc.DataError, exc.ProgrammingError)  # of one statement, not of the database


class _Entry(Generic[Value]):
    """One caller's work, and what became of it."""

    def __init__(self, work: Callable[[Connection], Value]) -> None:
        self.work = work
        self.values: list[Value] = []  # one, once done
        self.error: BaseException | None = None


class GroupCommit(Generic[Value]):
    """Runs callers' work on one connection, as many of them to a transaction as have come together."""

    def __init__(self, writing: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._writing = writing
        self._waiting: list[_Entry[Value]] = []
        self._door, self._turn = threading.Lock(), threading.Lock()

    def run(self, work: Callable[[Connection], Value]) -> Value:
        """Give back what `work` gives, after the commit.

        A `RestoreError` that `work` raises before it writes is raised here and harms no other caller. After any other
        fault of its own (a row that breaks a constraint, say) the works of the others are done again without it.
        """
        entry = _Entry(work)
        with self._door:
            self._waiting.append(entry)
        with self._turn:  # whoever gets the turn writes for all who wait; the others find their work done
            if not entry.values and entry.error is None:
                self._write_all()
        if entry.error is not None:
            raise entry.error
        return entry.values[0]

    def _write_all(self) -> None:
        with self._door:
            entries, self._waiting = self._waiting, []
        while entries:
            faulty = self._write_together(entries)
            entries = [] if faulty is None else [entry for entry in entries if entry is not faulty]

    def _write_together(self, entries: list[_Entry[Value]]) -> _Entry[Value] | None:
        """All of them in one transaction, or none; the one whose own fault undid it, which leaves the others as new."""
        current: _Entry[Value] | None = None
        try:
            with self._writing() as connection:
                for current in entries:
                    _write(connection, current)
                current = None
        except BaseException as error:
            if current is not None and _is_own_fault(error):
                for entry in entries:
                    entry.values, entry.error = [], None
                current.error = error
                return current
            for entry in entries:  # nothing was committed, so nobody may believe it was
                entry.error = entry.error or error
            if not isinstance(error, Exception):
                raise
        return None


def _is_own_fault(error: BaseException) -> bool:
    """Whether an error says nothing of the database and so of the other entries; a `RestoreError` here is of it."""
    if isinstance(error, exc.DBAPIError):
        return isinstance(error, _OWN_FAULTS)
    return isinstance(error, Exception) and not isinstance(error, RestoreError)


def _write(connection: Connection, entry: _Entry[Value]) -> None:
    """One entry. It refuses before it writes; any other error undoes the whole transaction.

    No savepoint here: on a full disk SQLite drops the whole transaction with all savepoints by itself.
    """
    try:
        value = entry.work(connection)
    except RestoreError as error:
        entry.error = error
    else:
        entry.values.append(value)
