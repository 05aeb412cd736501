"""Submissions that may be sent again: which job each Idempotency-Key of an owner belongs to, in one row.

The row is written before the job, with the id that the job will have: a second job under it is impossible, whatever
crashes in between. So the row of a submission that was refused stays too: an attempt at it that was believed dead may
still write its job, and then whoever comes next is given that one.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Collection
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, delete, insert, select, update

from app.errors import Conflict
from app.store.database import Database
from app.store.schema import attempts, idempotency_keys

KEPT_SECONDS = 24 * 3600.0
CRASHED_SECONDS = 120.0  # a submission that was not renewed for so long died with its process
IN_WORK_RETRY_SECONDS = 2
_REFUSED_AT = 0.0  # `begun_at` of a submission that was refused: nobody works at it

_keys = idempotency_keys.c


@dataclasses.dataclass(frozen=True)
class KnownSubmission:
    """What a key stands for. `accepted` is False for a submission that is to be made now, under this `job_id`."""

    digest: str
    job_id: str
    attempt_id: str
    position: int
    accepted: bool


@dataclasses.dataclass(frozen=True)
class HeldKey:
    """A key whose submission is being taken, and the id that its job will have."""

    owner: str
    key: str
    job_id: str


class Idempotency(Protocol):
    """What clients called their submissions (Idempotency-Key), per owner, for a day. Usable from any thread.

    Days are told by the time that is passed in, and who is alive by the database's clock, as for leases.
    """

    def begin(self, owner: str, key: str, digest: str, now: float) -> KnownSubmission:
        """What the key stands for; one that is new is written down for a request with this digest.

        Raises `Conflict` `idempotency_key_in_use` while the first request is being taken. One that nobody renewed for
        `CRASHED_SECONDS`, and at once one that was refused, is taken over with the same `job_id`; after a refusal the
        key is free for another request as well, with another `job_id`.
        """
        ...

    def renew(self, held: Collection[HeldKey]) -> None:
        """These submissions are still being taken. Never waits for a connection that others use."""
        ...

    def accept(self, held: HeldKey, attempt_id: str, position: int) -> None:
        """The job of the key is accepted."""
        ...

    def forget(self, held: HeldKey) -> None:
        """The submission was refused: the key may be used again; where there is a job of it all the same, it counts."""
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
        moment = self._database.now()
        return self._database.write(lambda connection: _begin(connection, owner, key, digest, now, moment))

    def renew(self, held: Collection[HeldKey]) -> None:
        """See `Idempotency`."""
        given = [{f"of_{name}": value for name, value in dataclasses.asdict(one).items()} for one in held]
        if not given:
            return
        row = and_(*(column == bindparam(f"of_{column.name}") for column in (_keys.owner, _keys.key, _keys.job_id)))
        alive = update(idempotency_keys).where(row, _keys.position.is_(None), _keys.begun_at > _REFUSED_AT)
        renewed = alive.values(begun_at=self._database.now())
        self._database.write_apart(lambda connection: connection.execute(renewed, given))

    def accept(self, held: HeldKey, attempt_id: str, position: int) -> None:
        """See `Idempotency`."""
        self._change(held, attempt_id=attempt_id, position=position)

    def forget(self, held: HeldKey) -> None:
        """See `Idempotency`."""
        self._change(held, begun_at=_REFUSED_AT)

    def _change(self, held: HeldKey, **values: object) -> None:
        row = and_(_keys.owner == held.owner, _keys.key == held.key, _keys.job_id == held.job_id)
        changed = update(idempotency_keys).where(row).values(**values)
        self._database.write(lambda connection: connection.execute(changed))

    def expire(self, now: float) -> int:
        """See `Idempotency`."""
        old = delete(idempotency_keys).where(_keys.created_at < now - KEPT_SECONDS)
        return self._database.write(lambda connection: int(connection.execute(old).rowcount))


def _begin(
    connection: Connection, owner: str, key: str, digest: str, now: float, moment: ColumnElement[float]
) -> KnownSubmission:
    mine = and_(_keys.owner == owner, _keys.key == key)
    connection.execute(delete(idempotency_keys).where(mine, _keys.created_at < now - KEPT_SECONDS))
    row = connection.execute(select(idempotency_keys).where(mine)).one_or_none()
    if row is None:
        job_id = secrets.token_hex(16)
        values = {"owner": owner, "key": key, "digest": digest, "job_id": job_id, "created_at": now}
        connection.execute(insert(idempotency_keys).values(**values, begun_at=moment))
        return KnownSubmission(digest, job_id, "", 0, accepted=False)
    if row.position is not None:
        return KnownSubmission(row.digest, row.job_id, row.attempt_id or "", row.position, accepted=True)
    return _unfinished(connection, row, digest, now, moment)


def _unfinished(
    connection: Connection, row: Row[Any], digest: str, now: float, moment: ColumnElement[float]
) -> KnownSubmission:
    """A submission whose answer is not on record: its job is there all the same, or it is in work, or free."""
    of_job = select(attempts.c.id).where(attempts.c.job_id == row.job_id).order_by(attempts.c.position).limit(1)
    attempt_id = connection.execute(of_job).scalar_one_or_none()
    is_other = row.digest != digest
    if attempt_id is not None or (is_other and row.begun_at > _REFUSED_AT):
        return KnownSubmission(row.digest, row.job_id, attempt_id or "", 1, accepted=True)
    known = and_(_keys.owner == row.owner, _keys.key == row.key, _keys.job_id == row.job_id)
    free = and_(known, _keys.begun_at <= (_REFUSED_AT if is_other else moment - CRASHED_SECONDS))
    job_id = secrets.token_hex(16) if is_other else row.job_id
    taken = update(idempotency_keys).where(free, _keys.position.is_(None))
    taken = taken.values(digest=digest, job_id=job_id, created_at=now, begun_at=moment)
    if connection.execute(taken.returning(_keys.job_id)).scalar_one_or_none() is None:
        raise _in_work()
    return KnownSubmission(digest, job_id, "", 0, accepted=False)


def _in_work() -> Conflict:
    return Conflict(
        "idempotency_key_in_use",
        "The first request with this Idempotency-Key is still being taken; send it again in a moment.",
        retry_after_seconds=IN_WORK_RETRY_SECONDS,
    )
