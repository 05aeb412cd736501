"""What the rows say, read without changing them; the order of those that wait stands in `queue_order`.

Functions take the open transaction's connection. Statements that are asked for at every request are built once.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Unpack

from sqlalchemy import (
    BigInteger,
    Connection,
    Float,
    Row,
    Select,
    and_,
    bindparam,
    case,
    cast,
    func,
    select,
)

from app.errors import NotFound
from app.options import BackendName
from app.stages import Stage
from app.store import queue_order
from app.store.queue_order import WaitingFilter
from app.store.records import Attempt, AttemptStatus, Job, JobSummary, WebhookState, WebhookStatus
from app.store.schema import attempt_of, attempts, jobs, photos, select_attempts, webhooks

RECENT_ATTEMPTS = 20
_RESULT_NAME = re.compile(r"[0-9a-f]{32}(?:-v(?P<version>[2-9]|[1-9][0-9]{1,5}))?\.[a-z]{3,4}")
_MEGAPIXEL = 1_000_000
_PIXELS = cast(photos.c.width, BigInteger) * photos.c.height


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many attempts stand in each state; `read_ahead` are those of `processing` that wait all the same."""

    queued: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    read_ahead: int = 0


def find_job(connection: Connection, owner: str, job_id: str) -> Job:
    """One job with its attempts. Raises `NotFound` `job_not_found` when unknown, expired or another owner's."""
    return _with_attempts(connection, [_job_row(connection, owner, job_id)])[0]


def list_jobs(connection: Connection, owner: str, limit: int, before: str | None) -> list[Job]:
    """Newest first; `before` is the id of the last job of the page before."""
    query = _select_jobs().where(jobs.c.owner == owner)
    if before is not None:
        query = query.where(jobs.c.number < _job_row(connection, owner, before).number)
    return _with_attempts(connection, connection.execute(query.order_by(jobs.c.number.desc()).limit(limit)).all())


def page_jobs(
    connection: Connection, owner: str, limit: int, before: str | None, most_attempts: int
) -> list[Job | JobSummary]:
    """The same, save that a job of more than `most_attempts` photos is only summed up."""
    query = _select_jobs().where(jobs.c.owner == owner)
    if before is not None:
        query = query.where(jobs.c.number < _job_row(connection, owner, before).number)
    rows = connection.execute(query.order_by(jobs.c.number.desc()).limit(limit)).all()
    summaries = _summaries(connection, rows)
    small = [row for row in rows if summaries[row.id].photos <= most_attempts]
    whole = {job.id: job for job in _with_attempts(connection, small)}
    return [whole.get(row.id, summaries[row.id]) for row in rows]


def _summaries(connection: Connection, rows: Sequence[Row[Any]]) -> dict[str, JobSummary]:
    """One grouped query for all jobs of a page."""
    query = (
        select(
            attempts.c.job_id,
            attempts.c.status,
            func.count().label("photos"),
            cast(func.sum(_PIXELS), Float).label("pixels"),
            func.sum(attempts.c.progress * _PIXELS).label("progress"),
            func.max(attempts.c.stage).label("stage"),
            func.max(attempts.c.ended_at).label("ended_at"),
        )
        .join_from(attempts, photos, attempts.c.photo_id == photos.c.id)
        .where(attempts.c.job_id.in_([row.id for row in rows]))
        .group_by(attempts.c.job_id, attempts.c.status)
    )
    groups: dict[str, list[Row[Any]]] = {row.id: [] for row in rows}
    for group in connection.execute(query):
        groups[group.job_id].append(group)
    return {row.id: _summary(row, groups[row.id]) for row in rows}


def _summary(row: Row[Any], groups: Sequence[Row[Any]]) -> JobSummary:
    counts = {AttemptStatus(group.status): int(group.photos) for group in groups}
    done = sum(group.pixels if AttemptStatus(group.status).ended else group.progress for group in groups)
    stages = [str(group.stage) for group in groups if group.status == AttemptStatus.PROCESSING.value]
    return JobSummary(
        id=row.id,
        owner=row.owner,
        created_at=row.created_at,
        options_json=row.options_json,
        counts=counts,
        progress=float(done) / max(1, sum(int(group.pixels) for group in groups)),
        stage=stages[0] if stages else None,
        ended_at=max((group.ended_at for group in groups if group.ended_at is not None), default=None),
        webhook=_webhook_of(row),
        kept=row.kept_at is not None,
        let_go_at=row.let_go_at,
    )


def find_attempt(connection: Connection, attempt_id: str) -> Attempt | None:
    """One attempt, whoever owns it."""
    row = connection.execute(_attempt_by_id(), {"wanted": attempt_id}).one_or_none()
    return None if row is None else attempt_of(row)


def waiting(connection: Connection, limit: int, **which: Unpack[WaitingFilter]) -> list[Attempt]:
    """The first waiting attempts in the order of their turns.

    Two statements: joined into one they are planned badly, and ask for the order once a row (90 ms instead of 1).
    """
    ids = queue_order.queued_ids(connection, limit, **which)
    rows = {row.id: row for row in connection.execute(_attempts_by_ids(), {"wanted": ids})} if ids else {}
    return [attempt_of(rows[attempt_id]) for attempt_id in ids if attempt_id in rows]


@functools.cache
def _attempts_by_ids() -> Select[Any]:
    wanted = attempts.c.id.in_(bindparam("wanted", expanding=True))
    return select_attempts().where(wanted, attempts.c.status == AttemptStatus.QUEUED.value)


@functools.cache
def _attempt_by_id() -> Select[Any]:
    return select_attempts().where(attempts.c.id == bindparam("wanted"))


def find_result(connection: Connection, owner: str, result_name: str) -> Attempt:
    """The completed attempt behind a result's name; the name of an earlier version finds it as well.

    Raises `NotFound` `result_not_found`.
    """
    asked = _RESULT_NAME.fullmatch(result_name)
    if asked is None:
        raise _no_result()
    query = (
        select_attempts()
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(attempts.c.id == result_name[:32], attempts.c.result_name.is_not(None), jobs.c.owner == owner)
    )
    row = connection.execute(query).one_or_none()
    if row is None or not result_name.endswith(PurePosixPath(row.result_name).suffix):
        raise _no_result()
    if int(asked["version"] or 1) > row.version:
        raise _no_result()
    return attempt_of(row)


def _no_result() -> NotFound:
    return NotFound("result_not_found", "There is no such result; it may have expired.")


def count(connection: Connection, owner: str | None = None) -> Counts:
    """How many attempts stand in each state, of one owner or of all."""
    rows = connection.execute(_counting(owner is not None), {} if owner is None else {"owner": owner}).all()
    read_ahead = sum(waiting for _, _, waiting in rows)
    return Counts(**{str(status): int(number) for status, number, _ in rows}, read_ahead=read_ahead)


@functools.cache
def _counting(of_one_owner: bool) -> Select[Any]:
    waits = (attempts.c.status == AttemptStatus.PROCESSING) & (attempts.c.stage == Stage.WAITING.value)
    query = select(attempts.c.status, func.count(), func.count(case((waits, 1)))).group_by(attempts.c.status)
    if of_one_owner:
        query = query.join(jobs, jobs.c.id == attempts.c.job_id).where(jobs.c.owner == bindparam("owner"))
    return query


def seconds_per_photo(connection: Connection) -> float | None:
    """Mean restoration time of the last completed attempts, or None before the first."""
    rows = _recent(connection)
    return sum(row.seconds for row in rows) / len(rows) if rows else None


def seconds_per_megapixel(connection: Connection) -> float | None:
    """Restoration seconds per megapixel of result, over the last completed attempts; None before the first."""
    rows = _recent(connection)
    pixels = sum(row.result_width * row.result_height for row in rows)
    return sum(row.seconds for row in rows) / (pixels / _MEGAPIXEL) if pixels else None


def active(connection: Connection, limit: int) -> list[Attempt]:
    """Attempts in work, then those that wait, in the order in which they come: the first `limit` of each."""
    running = select_attempts().where(attempts.c.status == AttemptStatus.PROCESSING.value).limit(limit)
    in_order = queue_order.queued_ids(connection, limit)
    waiting = select_attempts().where(attempts.c.id.in_(in_order), attempts.c.status == AttemptStatus.QUEUED.value)
    place = {attempt_id: index for index, attempt_id in enumerate(in_order)}
    found = [attempt_of(row) for row in connection.execute(waiting)]
    found.sort(key=lambda attempt: place[attempt.id])
    return [attempt_of(row) for row in connection.execute(running)] + found


def recent_completed(connection: Connection) -> list[Attempt]:
    """The last completed attempts of all owners, newest first."""
    is_work = and_(attempts.c.status == AttemptStatus.COMPLETED.value, attempts.c.from_cache.is_(False))
    completed = select_attempts().where(is_work)
    newest = completed.order_by(None).order_by(attempts.c.number.desc())  # None: a second order only breaks ties
    return [attempt_of(row) for row in connection.execute(newest.limit(RECENT_ATTEMPTS))]


def _recent(connection: Connection) -> Sequence[Row[Any, Any, Any]]:
    """Of this machine only: how long a provider took says nothing about the queue here."""
    query = (
        select(attempts.c.seconds, attempts.c.result_width, attempts.c.result_height)
        .where(attempts.c.status == AttemptStatus.COMPLETED.value, attempts.c.backend == BackendName.LOCAL.value)
        .where(attempts.c.from_cache.is_(False))
        .order_by(attempts.c.number.desc())
    )
    return connection.execute(query.limit(RECENT_ATTEMPTS)).all()


@functools.cache
def _select_jobs() -> Select[Any]:
    """Jobs with what is known of their webhooks."""
    state = (
        webhooks.c.status.label("webhook_status"),
        webhooks.c.tries,
        webhooks.c.next_at,
        webhooks.c.response_status,
        webhooks.c.error,
    )
    return select(jobs, *state).outerjoin(webhooks, webhooks.c.job_id == jobs.c.id)


def _webhook_of(row: Row[Any]) -> WebhookState | None:
    if row.webhook_status is None:
        return None
    return WebhookState(WebhookStatus(row.webhook_status), row.tries, row.next_at, row.response_status, row.error)


def _job_row(connection: Connection, owner: str, job_id: str) -> Row[Any]:
    row = connection.execute(_job_of_owner(), {"wanted": job_id, "owner": owner}).one_or_none()
    if row is None:
        raise NotFound("job_not_found", "There is no such job; it may have expired or been removed.")
    return row


@functools.cache
def _job_of_owner() -> Select[Any]:
    return _select_jobs().where(jobs.c.id == bindparam("wanted"), jobs.c.owner == bindparam("owner"))


@functools.cache
def _attempts_of_jobs() -> Select[Any]:
    return select_attempts().where(attempts.c.job_id.in_(bindparam("job_ids", expanding=True)))


def _with_attempts(connection: Connection, rows: Sequence[Row[Any]]) -> list[Job]:
    grouped: dict[str, list[Attempt]] = {row.id: [] for row in rows}
    for row in connection.execute(_attempts_of_jobs(), {"job_ids": list(grouped)}):
        grouped[row.job_id].append(attempt_of(row))
    return [
        Job(
            id=row.id,
            owner=row.owner,
            created_at=row.created_at,
            options_json=row.options_json,
            attempts=tuple(grouped[row.id]),
            webhook=_webhook_of(row),
            kept=row.kept_at is not None,
            let_go_at=row.let_go_at,
        )
        for row in rows
    ]
