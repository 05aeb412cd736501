"""Finds a finished result of the same bytes, options and networks by the key that its run has written into its row."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import Connection, select

from app.store.database import Database
from app.store.records import Attempt, AttemptStatus
from app.store.schema import attempt_of, attempts, jobs, photos, select_attempts


class ResultRows(Protocol):
    """Looks up results by their keys; see `app.jobs.result_cache`. Usable from any thread."""

    def photo_sha256(self, photo_id: str) -> str | None:
        """The SHA-256 of a photo's bytes in hex."""
        ...

    def find(self, job_id: str, key: str, *, same_owner: bool) -> Attempt | None:
        """The newest completed attempt with this key whose result was not changed since; of the job's owner or any."""
        ...


class SqlResultRows:
    """Rows in SQL; see `ResultRows`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def photo_sha256(self, photo_id: str) -> str | None:
        """See `ResultRows`."""
        query = select(photos.c.sha256).where(photos.c.id == photo_id)
        return self._database.read(lambda connection: connection.execute(query).scalar_one_or_none())

    def find(self, job_id: str, key: str, *, same_owner: bool) -> Attempt | None:
        """See `ResultRows`."""
        return self._database.read(lambda connection: _find(connection, job_id, key, same_owner))


def _find(connection: Connection, job_id: str, key: str, same_owner: bool) -> Attempt | None:
    query = select_attempts().where(
        attempts.c.cache_key == key, attempts.c.status == AttemptStatus.COMPLETED.value, attempts.c.version == 1
    )
    if same_owner:
        owner = select(jobs.c.owner).where(jobs.c.id == job_id).scalar_subquery()
        query = query.where(attempts.c.job_id.in_(select(jobs.c.id).where(jobs.c.owner == owner)))
    row = connection.execute(query.order_by(None).order_by(attempts.c.number.desc()).limit(1)).one_or_none()
    return None if row is None else attempt_of(row)
