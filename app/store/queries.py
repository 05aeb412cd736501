"""What the rows say, read without changing them. Functions take the open transaction's connection."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Float,
    FromClause,
    Row,
    Select,
    and_,
    case,
    cast,
    func,
    select,
)

from app.errors import NotFound
from app.options import BackendName
from app.stages import Stage
from app.store.records import Attempt, AttemptStatus, Job, JobSummary, WebhookState, WebhookStatus
from app.store.schema import ACTIVE, attempt_of, attempts, jobs, photos, select_attempts, webhooks

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
    )


def find_attempt(connection: Connection, attempt_id: str) -> Attempt | None:
    """One attempt, whoever owns it."""
    row = connection.execute(select_attempts().where(attempts.c.id == attempt_id)).one_or_none()
    return None if row is None else attempt_of(row)


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


def queue_position(connection: Connection, job_id: str) -> int:
    """1 when the job's first waiting attempt is the next one of its backend; 0 when none waits.

    Each backend has a queue of its own: nobody waits behind another backend's photos.
    """
    waiting = attempts.c.status == AttemptStatus.QUEUED.value
    mine = select(attempts.c.backend).where(attempts.c.job_id == job_id, waiting)
    backend = connection.execute(mine.limit(1)).scalar_one_or_none()
    if backend is None:
        return 0
    queue = in_turn(backend).subquery()
    place = func.row_number().over(order_by=turn_order(queue)).label("place")
    places = select(queue.c.job_id, place).subquery()
    return int(connection.execute(select(func.min(places.c.place)).where(places.c.job_id == job_id)).scalar_one())


def queued_ids(
    connection: Connection, limit: int | None = None, only: str | None = None, but: Collection[str] = ()
) -> list[str]:
    """Waiting attempts in the order of their turns, of one backend `only` or of all `but` some."""
    queue = in_turn(only, but).subquery()
    query = select(queue.c.id).order_by(*turn_order(queue))
    return list(connection.execute(query.limit(limit)).scalars())


def turn_order(queue: FromClause) -> tuple[ColumnElement[Any], ...]:
    """The order of what `in_turn` gives.

    Owners are served in turn, whoever was served least recently first, and each one's photos in the order they came.
    """
    return queue.c.turn, queue.c.served_at, queue.c.number


def in_turn(only: str | None = None, but: Collection[str] = ()) -> Select[Any]:
    """Waiting attempts, each with its place in its owner's own queue and the time when its owner was served last.

    That time is the database's: with those of hosts, owners served by one whose clock is ahead would wait for longer.
    """
    chosen = [attempts.c.backend == only] if only is not None else []
    chosen += [attempts.c.backend.not_in(list(but))] if but else []
    claimed_at = func.coalesce(attempts.c.claimed_at, attempts.c.started_at)  # of an earlier version: no claimed_at
    started = select(jobs.c.owner, func.max(claimed_at).label("at"))
    served = started.join_from(attempts, jobs, jobs.c.id == attempts.c.job_id).group_by(jobs.c.owner).subquery()
    turn = func.row_number().over(partition_by=jobs.c.owner, order_by=attempts.c.number)
    return (
        select(
            attempts.c.id,
            attempts.c.job_id,
            attempts.c.number,
            turn.label("turn"),
            func.coalesce(served.c.at, 0.0).label("served_at"),
        )
        .join_from(attempts, jobs, jobs.c.id == attempts.c.job_id)
        .outerjoin(served, served.c.owner == jobs.c.owner)
        .where(attempts.c.status == AttemptStatus.QUEUED.value, *chosen)
    )


def waiting_jobs(connection: Connection, limit: int) -> list[str]:
    """Jobs that have a waiting attempt, the soonest first: their place in the queue changes with every move."""
    query = (
        select(attempts.c.job_id)
        .where(attempts.c.status == AttemptStatus.QUEUED.value)
        .group_by(attempts.c.job_id)
        .order_by(func.min(attempts.c.number))
    )
    return list(connection.execute(query.limit(limit)).scalars())


def count(connection: Connection, owner: str | None = None) -> Counts:
    """How many attempts stand in each state, of one owner or of all."""
    waits = (attempts.c.status == AttemptStatus.PROCESSING) & (attempts.c.stage == Stage.WAITING.value)
    query = select(attempts.c.status, func.count(), func.count(case((waits, 1)))).group_by(attempts.c.status)
    if owner is not None:
        query = query.join(jobs, jobs.c.id == attempts.c.job_id).where(jobs.c.owner == owner)
    rows = connection.execute(query).all()
    read_ahead = sum(waiting for _, _, waiting in rows)
    return Counts(**{str(status): int(number) for status, number, _ in rows}, read_ahead=read_ahead)


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


def active(connection: Connection, limit: int) -> list[Attempt]:
    """Attempts in work, then those that wait, in the order in which they come: the first `limit` of each."""
    running = select_attempts().where(attempts.c.status == AttemptStatus.PROCESSING.value).limit(limit)
    in_turn = queued_ids(connection, limit)
    waiting = select_attempts().where(attempts.c.id.in_(in_turn), attempts.c.status == AttemptStatus.QUEUED.value)
    place = {attempt_id: index for index, attempt_id in enumerate(in_turn)}
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
    row = connection.execute(_select_jobs().where(jobs.c.id == job_id, jobs.c.owner == owner)).one_or_none()
    if row is None:
        raise NotFound("job_not_found", "There is no such job; it may have expired or been removed.")
    return row


def _with_attempts(connection: Connection, rows: Sequence[Row[Any]]) -> list[Job]:
    grouped: dict[str, list[Attempt]] = {row.id: [] for row in rows}
    for row in connection.execute(select_attempts().where(attempts.c.job_id.in_(list(grouped)))):
        grouped[row.job_id].append(attempt_of(row))
    return [
        Job(row.id, row.owner, row.created_at, row.options_json, tuple(grouped[row.id]), _webhook_of(row))
        for row in rows
    ]
