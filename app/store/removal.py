"""How rows go: by a user's wish or by age, never while an attempt is active. It names the files that may go after them.

Functions take the open transaction's connection; they know nothing of the files themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sqlalchemy import Connection, delete, exists, or_, select

from app.store.records import PhotoStatus
from app.store.schema import ACTIVE, attempts, jobs, photos


@dataclasses.dataclass(frozen=True)
class Removal:
    """What happened to jobs, and which files no row names any more.

    Attributes:
        outcome: `cancelled` (rows stay, ended) or `removed` (rows are gone).
        jobs: ids of the jobs that were removed.
        uploads: ids of photos whose files may be removed.
        results: names of results whose files may be removed.
    """

    outcome: str
    jobs: tuple[str, ...] = ()
    uploads: tuple[str, ...] = ()
    results: tuple[str, ...] = ()


def remove_jobs(connection: Connection, job_ids: Sequence[str]) -> Removal:
    """Delete jobs whose attempts all ended, with the photos that no other attempt uses."""
    of_jobs = attempts.c.job_id.in_(job_ids)
    statement = delete(attempts).where(of_jobs, attempts.c.status.not_in(ACTIVE))
    gone = connection.execute(statement.returning(attempts.c.photo_id, attempts.c.result_name)).all()
    connection.execute(delete(jobs).where(jobs.c.id.in_(job_ids)))
    unused = ~exists().where(attempts.c.photo_id == photos.c.id)
    photo_ids = sorted({row.photo_id for row in gone})
    uploads = connection.execute(delete(photos).where(photos.c.id.in_(photo_ids), unused).returning(photos.c.id))
    results = tuple(row.result_name for row in gone if row.result_name is not None)
    return Removal("removed", tuple(job_ids), tuple(uploads.scalars()), results)


def expire(connection: Connection, before: float, limit: int) -> Removal:
    """Delete at most `limit` jobs that ended before a time, and as many photos of that age that nothing uses."""
    young = or_(attempts.c.status.in_(ACTIVE), attempts.c.ended_at.is_(None), attempts.c.ended_at >= before)
    alive = exists().where(attempts.c.job_id == jobs.c.id, young)
    old = select(jobs.c.id).where(~alive).order_by(jobs.c.number).limit(limit)
    removed = remove_jobs(connection, list(connection.execute(old).scalars()))
    unused = ~exists().where(attempts.c.photo_id == photos.c.id)
    kept = photos.c.status.in_((PhotoStatus.ARCHIVED.value, PhotoStatus.PROCESSING.value))
    idle = select(photos.c.id).where(photos.c.created_at < before, unused, ~kept).limit(limit)
    extra = connection.execute(delete(photos).where(photos.c.id.in_(idle)).returning(photos.c.id)).scalars()
    return dataclasses.replace(removed, uploads=removed.uploads + tuple(extra))
