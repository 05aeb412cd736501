"""Whom to tell when a job ends: written with the job, due with the end of its last attempt, tried by any process.

A try takes the row for a while (its lease), so two processes do not tell the same at once, and one that dies in the
middle is followed by another. Times are those of the database's clock.
"""

from __future__ import annotations

import dataclasses
import functools
import secrets
from collections.abc import Collection
from typing import Any, Protocol

from sqlalchemy import Connection, Select, and_, bindparam, exists, insert, select, update

from app.store.database import Database
from app.store.records import WebhookStatus
from app.store.schema import ACTIVE, attempts, jobs, webhooks

_PENDING = webhooks.c.status == WebhookStatus.PENDING.value


@dataclasses.dataclass(frozen=True)
class DueWebhook:
    """One that is to be told now; this try is its `tries`-th."""

    id: str
    job_id: str
    owner: str
    url: str
    tries: int


class Webhooks(Protocol):
    """The webhooks of jobs. Usable from any thread; a part of `Store`, with its errors.

    A try that took longer than its lease, so that another one began, writes nothing.
    """

    def claim_due(self, lease_seconds: float, but: Collection[str] = ()) -> DueWebhook | None:
        """Take one that is due, those with the fewest tries first, of all owners `but` some; None: there is none."""
        ...

    def delivered(self, due: DueWebhook, response_status: int) -> bool:
        """The receiver has it."""
        ...

    def failed(self, due: DueWebhook, error: str, response_status: int | None, retry_seconds: float | None) -> bool:
        """This try failed; the next one is due in so many seconds, None: there is none."""
        ...

    def give_back(self, due: DueWebhook) -> bool:
        """This try did not happen; it is due at once."""
        ...


class SqlWebhooks:
    """Webhooks in SQL; see `Webhooks`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim_due(self, lease_seconds: float, but: Collection[str] = ()) -> DueWebhook | None:
        """See `Webhooks`."""
        if not self._database.read(self._is_any_due):  # most looks find nothing, and take no lock
            return None

        def write(connection: Connection) -> DueWebhook | None:
            due = and_(_PENDING, webhooks.c.next_at <= self._database.now())
            oldest = select(webhooks.c.job_id, jobs.c.owner).join_from(webhooks, jobs, jobs.c.id == webhooks.c.job_id)
            oldest = oldest.where(due, jobs.c.owner.not_in(list(but)))
            oldest = oldest.order_by(webhooks.c.tries, webhooks.c.next_at).limit(1)
            found = connection.execute(oldest.with_for_update(of=webhooks, skip_locked=True)).one_or_none()
            if found is None:
                return None
            taken = update(webhooks).where(webhooks.c.job_id == found.job_id, due)
            taken = taken.values(tries=webhooks.c.tries + 1, next_at=self._database.now() + lease_seconds)
            row = connection.execute(taken.returning(webhooks)).one_or_none()
            return None if row is None else DueWebhook(row.id, row.job_id, found.owner, row.url, row.tries)

        return self._database.write(write)

    def delivered(self, due: DueWebhook, response_status: int) -> bool:
        """See `Webhooks`."""
        return self._end_try(due, status=WebhookStatus.DELIVERED.value, response_status=response_status, error=None)

    def failed(self, due: DueWebhook, error: str, response_status: int | None, retry_seconds: float | None) -> bool:
        """See `Webhooks`."""
        values = {"response_status": response_status, "error": error}
        if retry_seconds is None:
            return self._end_try(due, status=WebhookStatus.FAILED.value, **values)
        return self._end_try(due, next_at=self._database.now() + retry_seconds, **values)

    def give_back(self, due: DueWebhook) -> bool:
        """See `Webhooks`."""
        return self._end_try(due, tries=due.tries - 1, next_at=self._database.now())

    def _is_any_due(self, connection: Connection) -> bool:
        due = select(webhooks.c.job_id).where(_PENDING, webhooks.c.next_at <= self._database.now()).limit(1)
        return connection.execute(due).one_or_none() is not None

    def _end_try(self, due: DueWebhook, **values: object) -> bool:
        mine = and_(webhooks.c.id == due.id, _PENDING, webhooks.c.tries == due.tries)
        return self._database.write(
            lambda connection: connection.execute(update(webhooks).where(mine).values(**values)).rowcount == 1
        )


def add(connection: Connection, job_id: str, url: str) -> None:
    """Somebody is to be told when this job ends. Takes the open transaction's connection."""
    row = {"job_id": job_id, "id": secrets.token_hex(16), "url": url, "status": WebhookStatus.WAITING.value}
    connection.execute(insert(webhooks).values(**row))


def make_due(connection: Connection, job_id: str) -> None:
    """An attempt of this job has ended: if it was the last one, the webhook is due, in the same transaction.

    The row is locked first: of two attempts that end at once, the later one then sees the end of the other.
    """
    if connection.execute(_locked(), {"wanted": job_id}).one_or_none() is None:
        return
    own = and_(webhooks.c.job_id == job_id, webhooks.c.status == WebhookStatus.WAITING.value)
    active = exists().where(attempts.c.job_id == job_id, attempts.c.status.in_(ACTIVE))
    connection.execute(update(webhooks).where(own, ~active).values(status=WebhookStatus.PENDING.value))


@functools.cache
def _locked() -> Select[Any]:
    waits = and_(webhooks.c.job_id == bindparam("wanted"), webhooks.c.status == WebhookStatus.WAITING.value)
    return select(webhooks.c.job_id).where(waits).with_for_update()
