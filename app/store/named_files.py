"""Which files the rows name, so that all others are orphans."""

from __future__ import annotations

from typing import Any, Protocol

from sqlalchemy import Select, select

from app.store.database import Database
from app.store.schema import ACTIVE, attempts, photos


class NamedFiles(Protocol):
    """What rows name; a part of `Store`, with its errors. Usable from any thread."""

    def photo_ids(self) -> set[str]:
        """Ids of all photos that have a row."""
        ...

    def result_names(self) -> set[str]:
        """Names of all results that a row names, each in its newest version."""
        ...

    def mask_ids(self) -> set[str]:
        """Ids of the attempts that came with a mask."""
        ...

    def active_ids(self) -> set[str]:
        """Ids of the attempts that have not ended: a file that bears one may be about to get its row."""
        ...


class SqlNamedFiles:
    """Names in SQL; see `NamedFiles`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def photo_ids(self) -> set[str]:
        """See `NamedFiles`."""
        return self._found(select(photos.c.id))

    def result_names(self) -> set[str]:
        """See `NamedFiles`."""
        return self._found(select(attempts.c.result_name).where(attempts.c.result_name.is_not(None)))

    def mask_ids(self) -> set[str]:
        """See `NamedFiles`."""
        return self._found(select(attempts.c.id).where(attempts.c.mask_bytes.is_not(None)))

    def active_ids(self) -> set[str]:
        """See `NamedFiles`."""
        return self._found(select(attempts.c.id).where(attempts.c.status.in_(ACTIVE)))

    def _found(self, query: Select[Any]) -> set[str]:
        return self._database.read(lambda connection: set(connection.execute(query).scalars()))
