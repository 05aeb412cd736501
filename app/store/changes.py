"""How a server sees what other processes changed: revisions of jobs, and sign-ins that were ended before their time.

Every transition raises the `revision` of its attempt in the same UPDATE, so a write costs no more for it, and the sum
over a job's attempts tells of any of them. Functions take the open transaction's connection.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import BigInteger, ColumnElement, Connection, case, cast, delete, func, insert, select

from app.store.records import AttemptStatus
from app.store.schema import attempts, ended_sessions

Revision = tuple[int, ...]  # only whether two of them are equal means anything


def revisions(connection: Connection, job_ids: Collection[str]) -> dict[str, Revision]:
    """The revisions of those of the jobs that are there. One that waits changes its own whenever the queue moves."""
    waiting = AttemptStatus.QUEUED.value
    queued = attempts.alias()
    in_queue = queued.c.status == waiting
    query = select(
        attempts.c.job_id,
        func.count(),
        _sum(attempts.c.revision),
        func.sum(case((attempts.c.status == waiting, 1), else_=0)),
        select(func.count()).where(in_queue).scalar_subquery(),
        select(_sum(queued.c.number)).where(in_queue).scalar_subquery(),  # another set of as many has another sum
    )
    rows = connection.execute(query.where(attempts.c.job_id.in_(list(job_ids))).group_by(attempts.c.job_id))
    return {job_id: (count, revision, *(queue if waits else ())) for job_id, count, revision, waits, *queue in rows}


def _sum(column: ColumnElement[int]) -> ColumnElement[int]:
    return cast(func.coalesce(func.sum(column), 0), BigInteger)


def end_session(connection: Connection, session_id: str, until: float, now: ColumnElement[float]) -> None:
    """Remember that a sign-in was ended, until its cookie is too old anyway; those that are so `now` are removed."""
    connection.execute(delete(ended_sessions).where(ended_sessions.c.until < now))
    known = select(ended_sessions.c.id).where(ended_sessions.c.id == session_id)
    if connection.execute(known).first() is None:
        connection.execute(insert(ended_sessions).values(id=session_id, until=until))


def find_ended_sessions(connection: Connection, now: float) -> set[str]:
    """The ids of the ended sign-ins whose cookies are not too old yet (epoch seconds)."""
    return set(connection.execute(select(ended_sessions.c.id).where(ended_sessions.c.until >= now)).scalars())
