"""The databases that the store's suites run on: each gives the address of an empty one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

DatabaseUrl = Callable[[Path], str]


def _sqlite(folder: Path) -> str:
    return f"sqlite:///{folder}/data/jobs.sqlite3"


IMPLEMENTATIONS: dict[str, DatabaseUrl] = {"sqlite": _sqlite}


class Clock:
    """A database's clock that a test sets; epoch seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
