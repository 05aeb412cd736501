"""What the rows say, read without changing them. Functions take the open transaction's connection."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select

from app.errors import NotFound
from app.store.records import Attempt, AttemptStatus, Job
from app.store.schema import ACTIVE, attempt_of, attempts, jobs, photos, select_attempts

RECENT_ATTEMPTS = 20
_MEGAPIXEL = 1_000_000


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many attempts stand in each state."""

    queued: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0


def find_job(connection: Connection, owner: str, job_id: str) -> Job:
    """One job with its attempts. Raises `NotFound` `job_not_found` when unknown, expired or another owner's."""
    return _with_attempts(connection, [_job_row(connection, owner, job_id)])[0]


def list_jobs(connection: Connection, owner: str, limit: int, before: str | None) -> list[Job]:
    """Newest first; `before` is the id of the last job of the page before."""
    query = select(jobs).where(jobs.c.owner == owner)
    if before is not None:
        query = query.where(jobs.c.number < _job_row(connection, owner, before).number)
    return _with_attempts(connection, connection.execute(query.order_by(jobs.c.number.desc()).limit(limit)).all())


def find_attempt(connection: Connection, attempt_id: str) -> Attempt | None:
    """One attempt, whoever owns it."""
    row = connection.execute(select_attempts().where(attempts.c.id == attempt_id)).one_or_none()
    return None if row is None else attempt_of(row)


def find_result(connection: Connection, owner: str, result_name: str) -> Attempt:
    """The completed attempt that made a result. Raises `NotFound` `result_not_found`."""
    query = (
        select_attempts()
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(attempts.c.id == result_name[:32], attempts.c.result_name == result_name, jobs.c.owner == owner)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("result_not_found", "There is no such result; it may have expired.")
    return attempt_of(row)


def queue_position(connection: Connection, job_id: str) -> int:
    """1 when the job's first waiting attempt is the next one; 0 when none waits."""
    waiting = attempts.c.status == AttemptStatus.QUEUED.value
    first = select(func.min(attempts.c.number)).where(attempts.c.job_id == job_id, waiting)
    number = connection.execute(first).scalar_one()
    if number is None:
        return 0
    ahead = select(func.count()).where(waiting, attempts.c.number < number)
    return 1 + int(connection.execute(ahead).scalar_one())


def queued_ids(connection: Connection, limit: int | None = None) -> list[str]:
    """Waiting attempts in the order of submission."""
    query = select(attempts.c.id).where(attempts.c.status == AttemptStatus.QUEUED.value).order_by(attempts.c.number)
    return list(connection.execute(query.limit(limit)).scalars())


def waiting_jobs(connection: Connection, limit: int) -> list[str]:
    """Jobs that have a waiting attempt, the soonest first: their place in the queue changes with every move."""
    query = (
        select(attempts.c.job_id)
        .where(attempts.c.status == AttemptStatus.QUEUED.value)
        .group_by(attempts.c.job_id)
        .order_by(func.min(attempts.c.number))
    )
    return list(connection.execute(query.limit(limit)).scalars())


def count(connection: Connection) -> Counts:
    """How many attempts stand in each state."""
    rows = connection.execute(select(attempts.c.status, func.count()).group_by(attempts.c.status))
    return Counts(**{str(status): int(number) for status, number in rows})


def known_photo_ids(connection: Connection) -> set[str]:
    """Ids that a row names: their files are no orphans."""
    return set(connection.execute(select(photos.c.id)).scalars())


def known_result_names(connection: Connection) -> set[str]:
    """Results that a row names."""
    return set(connection.execute(select(attempts.c.result_name).where(attempts.c.result_name.is_not(None))).scalars())


def active_ids(connection: Connection) -> set[str]:
    """Attempts that have not ended; a file that bears such an id may be about to get its row."""
    return set(connection.execute(select(attempts.c.id).where(attempts.c.status.in_(ACTIVE))).scalars())


def seconds_per_photo(connection: Connection) -> float | None:
    """Mean restoration time of the last completed attempts, or None before the first."""
    rows = _recent(connection)
    return sum(row.seconds for row in rows) / len(rows) if rows else None


def seconds_per_megapixel(connection: Connection) -> float | None:
    """Restoration seconds per megapixel of result, over the last completed attempts; None before the first."""
    rows = _recent(connection)
    pixels = sum(row.result_width * row.result_height for row in rows)
    return sum(row.seconds for row in rows) / (pixels / _MEGAPIXEL) if pixels else None


def _recent(connection: Connection) -> Sequence[Row[Any, Any, Any]]:
    query = (
        select(attempts.c.seconds, attempts.c.result_width, attempts.c.result_height)
        .where(attempts.c.status == AttemptStatus.COMPLETED.value)
        .order_by(attempts.c.number.desc())
    )
    return connection.execute(query.limit(RECENT_ATTEMPTS)).all()


def _job_row(connection: Connection, owner: str, job_id: str) -> Row[Any]:
    row = connection.execute(select(jobs).where(jobs.c.id == job_id, jobs.c.owner == owner)).one_or_none()
    if row is None:
        raise NotFound("job_not_found", "There is no such job; it may have expired or been removed.")
    return row


def _with_attempts(connection: Connection, rows: Sequence[Row[Any]]) -> list[Job]:
    grouped: dict[str, list[Attempt]] = {row.id: [] for row in rows}
    for row in connection.execute(select_attempts().where(attempts.c.job_id.in_(list(grouped)))):
        grouped[row.job_id].append(attempt_of(row))
    return [Job(row.id, row.owner, row.created_at, row.options_json, tuple(grouped[row.id])) for row in rows]
