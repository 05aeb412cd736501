"""The databases that the store's suites run on: each gives the address of an empty one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.store import SqlStore
from tests import postgres_server

DatabaseUrl = Callable[[Path], str]


def _sqlite(folder: Path) -> str:
    return f"sqlite:///{folder}/data/jobs.sqlite3"


def _postgres(_folder: Path) -> str:
    reason = postgres_server.missing()
    if reason is not None:
        pytest.skip(reason)
    return postgres_server.shared_server().new_database()


IMPLEMENTATIONS: dict[str, DatabaseUrl] = {"sqlite": _sqlite, "postgres": _postgres}
needs_postgres = pytest.mark.skipif(postgres_server.missing() is not None, reason=postgres_server.missing() or "")


class Clock:
    """A database's clock that a test sets; epoch seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextlib.contextmanager
def two_views(implementation: str, folder: Path) -> Iterator[tuple[SqlStore, SqlStore]]:
    """One database as two processes see it (SQLite allows one)."""
    url = IMPLEMENTATIONS[implementation](folder)
    first = SqlStore(url)
    first.open()
    second = first if implementation == "sqlite" else SqlStore(url)
    if second is not first:
        second.open()
    try:
        yield first, second
    finally:
        first.close()
        second.close()
