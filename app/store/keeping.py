"""Jobs that their owners keep past their retention, as many bytes of them as the limit of an owner allows.

A kept job never expires; one that is let go counts its retention from that moment, so that a mistake can be undone.
"""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import ColumnElement, Connection, func, or_, select, update

from app.errors import Conflict, InsufficientStorage
from app.events import Events
from app.store import queries
from app.store.database import Database
from app.store.locks import AdvisoryLock, hold
from app.store.records import Job
from app.store.schema import attempts, jobs, photos
from app.store.stored_bytes import count_results, megabytes


class Keeping(Protocol):
    """Which jobs stay. Usable from any thread; any call may raise `Unavailable`, as those of `Store`."""

    def keep(self, owner: str, job_id: str, limit_bytes: int, now: float) -> Job:
        """Keep a job that ended until it is let go or removed; harmless when it is kept already.

        Raises:
            NotFound: `job_not_found`.
            Conflict: `not_finished` while an attempt is active.
            InsufficientStorage: `keep_limit_reached`, when uploads and results of the owner's kept jobs, this one
                among them, would have more than `limit_bytes`.
        """
        ...

    def let_go(self, owner: str, job_id: str, now: float) -> Job:
        """The undo: the job expires once its retention has passed from now. Raises `NotFound` `job_not_found`."""
        ...


class SqlKeeping:
    """The jobs that stay, in SQL; see `Keeping`."""

    def __init__(self, database: Database, events: Events) -> None:
        self._database, self._events = database, events

    def keep(self, owner: str, job_id: str, limit_bytes: int, now: float) -> Job:
        """See `Keeping`."""
        return self._changed(
            self._database.write(lambda connection: _keep(connection, owner, job_id, limit_bytes, now))
        )

    def let_go(self, owner: str, job_id: str, now: float) -> Job:
        """See `Keeping`."""
        return self._changed(self._database.write(lambda connection: _let_go(connection, owner, job_id, now)))

    def _changed(self, job: Job) -> Job:
        self._events.publish([job.id])
        return job


def _keep(connection: Connection, owner: str, job_id: str, limit_bytes: int, now: float) -> Job:
    hold(connection, AdvisoryLock.KEEPING)  # else two at once would both fit
    job = queries.find_job(connection, owner, job_id)
    if job.kept:
        return job
    if not job.status.ended:
        raise Conflict("not_finished", "The job has not ended yet; keep it once it has.")
    kept = jobs.c.kept_at.is_not(None)
    needed = _bytes(connection, (jobs.c.owner == owner) & or_(kept, jobs.c.id == job_id))
    if needed > limit_bytes:
        raise InsufficientStorage(
            "keep_limit_reached",
            f"With this job {megabytes(needed)} MB would be kept, and {megabytes(limit_bytes)} MB may be; download "
            "it, or stop keeping another one.",
        )
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(kept_at=now, let_go_at=None))
    return queries.find_job(connection, owner, job_id)


def _let_go(connection: Connection, owner: str, job_id: str, now: float) -> Job:
    queries.find_job(connection, owner, job_id)
    kept = (jobs.c.id == job_id) & jobs.c.kept_at.is_not(None)
    connection.execute(update(jobs).where(kept).values(kept_at=None, let_go_at=now))
    return queries.find_job(connection, owner, job_id)


def _bytes(connection: Connection, which: ColumnElement[bool]) -> int:
    """Bytes of the results of these jobs, what lies beside them, their masks and uploads, each counted once."""
    used = select(attempts.c.photo_id).join_from(attempts, jobs, attempts.c.job_id == jobs.c.id).where(which)
    uploads = select(func.coalesce(func.sum(photos.c.bytes), 0)).where(photos.c.id.in_(used))
    return int(connection.execute(uploads).scalar_one()) + count_results(connection, which)
