"""Submissions that may be sent again: which job each Idempotency-Key of an owner belongs to, in one row.

The row is written before the job, with the id that the job will have: a second job under it is impossible, whatever
crashes in between.
"""

from __future__ import annotations

import dataclasses
import secrets
from typing import Any, Protocol

from sqlalchemy import Connection, Row, and_, delete, insert, select, update

from app.errors import Conflict
from app.store.database import Database
from app.store.schema import attempts, idempotency_keys

KEPT_SECONDS = 24 * 3600.0
CRASHED_SECONDS = 120.0  # a submission that is silent for so long died with its process
IN_WORK_RETRY_SECONDS = 2

_keys = idempotency_keys.c


@dataclasses.dataclass(frozen=True)
class KnownSubmission:
    """What a key stands for. `accepted` is False for a submission that is to be made now, under this `job_id`."""

    digest: str
    job_id: str
    attempt_id: str
    position: int
    accepted: bool


class Idempotency(Protocol):
    """What clients called their submissions (Idempotency-Key), per owner, for a day. Usable from any thread."""

    def begin(self, owner: str, key: str, digest: str, now: float) -> KnownSubmission:
        """What the key stands for; one that is new is written down for a request with this digest.

        Raises `Conflict` `idempotency_key_in_use` while the first request is being taken. One whose process died is
        taken over after `CRASHED_SECONDS`, with the same `job_id`.
        """
        ...

    def accept(self, owner: str, key: str, attempt_id: str, position: int) -> None:
        """The job of the key is accepted."""
        ...

    def forget(self, owner: str, key: str, job_id: str) -> None:
        """The submission was refused: the key is as new."""
        ...

    def expire(self, now: float) -> int:
        """Remove keys of more than a day; how many."""
        ...


class SqlIdempotency:
    """Rows of keys in SQL; see `Idempotency`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, owner: str, key: str, digest: str, now: float) -> KnownSubmission:
        """See `Idempotency`."""
        # Where two insert at once, the database calls one of them again, which then finds the other's row.
        return self._database.write(lambda connection: _begin(connection, owner, key, digest, now))

    def accept(self, owner: str, key: str, attempt_id: str, position: int) -> None:
        """See `Idempotency`."""
        row = and_(_keys.owner == owner, _keys.key == key)
        values = {"attempt_id": attempt_id, "position": position}
        self._database.write(
            lambda connection: connection.execute(update(idempotency_keys).where(row).values(**values))
        )

    def forget(self, owner: str, key: str, job_id: str) -> None:
        """See `Idempotency`."""
        row = and_(_keys.owner == owner, _keys.key == key, _keys.job_id == job_id)
        self._database.write(lambda connection: connection.execute(delete(idempotency_keys).where(row)))

    def expire(self, now: float) -> int:
        """See `Idempotency`."""
        old = delete(idempotency_keys).where(_keys.created_at < now - KEPT_SECONDS)
        return self._database.write(lambda connection: int(connection.execute(old).rowcount))


def _begin(connection: Connection, owner: str, key: str, digest: str, now: float) -> KnownSubmission:
    mine = and_(_keys.owner == owner, _keys.key == key)
    connection.execute(delete(idempotency_keys).where(mine, _keys.created_at < now - KEPT_SECONDS))
    row = connection.execute(select(idempotency_keys).where(mine)).one_or_none()
    if row is None:
        job_id = secrets.token_hex(16)
        values = {"owner": owner, "key": key, "digest": digest, "job_id": job_id, "created_at": now, "begun_at": now}
        connection.execute(insert(idempotency_keys).values(**values))
        return KnownSubmission(digest, job_id, "", 0, accepted=False)
    if row.position is not None or row.digest != digest:
        return KnownSubmission(row.digest, row.job_id, row.attempt_id or "", row.position or 0, accepted=True)
    return _unfinished(connection, row, now)


def _unfinished(connection: Connection, row: Row[Any], now: float) -> KnownSubmission:
    """A submission whose answer is not on record: its job is there all the same, or it is in work, or has died."""
    of_job = select(attempts.c.id).where(attempts.c.job_id == row.job_id).order_by(attempts.c.position).limit(1)
    attempt_id = connection.execute(of_job).scalar_one_or_none()
    if attempt_id is not None:
        return KnownSubmission(row.digest, row.job_id, attempt_id, 1, accepted=True)
    taken = update(idempotency_keys).where(_keys.job_id == row.job_id, _keys.begun_at <= now - CRASHED_SECONDS)
    if connection.execute(taken.values(begun_at=now).returning(_keys.job_id)).scalar_one_or_none() is None:
        raise _in_work()
    return KnownSubmission(row.digest, row.job_id, "", 0, accepted=False)


def _in_work() -> Conflict:
    return Conflict(
        "idempotency_key_in_use",
        "The first request with this Idempotency-Key is still being taken; send it again in a moment.",
        retry_after_seconds=IN_WORK_RETRY_SECONDS,
    )
