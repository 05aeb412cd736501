"""How rows go: by a user's wish or by age, never while an attempt is active. It names the files that may go after them.

Functions take the open transaction's connection.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, or_, select, update

from app.store.locks import AdvisoryLock, try_hold
from app.store.records import PhotoStatus
from app.store.schema import ACTIVE, attempts, jobs, library, photos, webhooks


@dataclasses.dataclass(frozen=True)
class Removal:
    """What happened to jobs, and which files no row names any more.

    Attributes:
        outcome: `cancelled` (rows stay, ended) or `removed` (rows are gone).
        jobs: ids of the jobs that were removed.
        uploads: ids of photos whose files may be removed.
        results: names of results whose files may be removed.
        masks: ids of attempts whose masks may be removed.
    """

    outcome: str
    jobs: tuple[str, ...] = ()
    uploads: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()


def remove_jobs(connection: Connection, job_ids: Sequence[str]) -> Removal:
    """Delete jobs whose attempts all ended, with the photos that no other attempt uses; the library's photos stay."""
    of_jobs = attempts.c.job_id.in_(job_ids)
    photo_ids, gone = _remove_attempts(connection, of_jobs)
    connection.execute(delete(jobs).where(jobs.c.id.in_(job_ids)))
    connection.execute(delete(webhooks).where(webhooks.c.job_id.in_(job_ids)))
    return dataclasses.replace(gone, jobs=tuple(job_ids), uploads=_remove_unused(connection, photo_ids))


def remove_attempt(connection: Connection, job_id: str, attempt_id: str) -> Removal:
    """Delete one attempt that ended, as `remove_jobs` does; with its last attempt the job goes too."""
    others = exists().where(attempts.c.job_id == job_id, attempts.c.id != attempt_id)
    if not connection.execute(select(others)).scalar_one():
        return remove_jobs(connection, [job_id])
    photo_ids, gone = _remove_attempts(connection, attempts.c.id == attempt_id)
    return dataclasses.replace(gone, uploads=_remove_unused(connection, photo_ids))


def remove_photo(connection: Connection, photo_id: str) -> Removal:
    """Delete a photo of which no attempt is active, with its attempts and the jobs that are empty without them."""
    of_photo = attempts.c.photo_id == photo_id
    job_ids = sorted(set(connection.execute(select(attempts.c.job_id).where(of_photo)).scalars()))
    _, removed = _remove_attempts(connection, of_photo)
    left = exists().where(attempts.c.job_id == jobs.c.id)
    empty = delete(jobs).where(jobs.c.id.in_(job_ids), ~left).returning(jobs.c.id)
    gone = tuple(connection.execute(empty).scalars())
    connection.execute(delete(webhooks).where(webhooks.c.job_id.in_(gone)))
    connection.execute(delete(library).where(library.c.photo_id == photo_id))
    return dataclasses.replace(removed, jobs=gone, uploads=_remove_unused(connection, [photo_id]))


def expire(connection: Connection, before: float, limit: int) -> Removal:
    """Delete at most `limit` jobs that ended before a time, and as many photos of that age that nothing uses.

    The attempts of a photo in the library stay as long as the photo, which counts from its last use. While another
    process does so, nothing is done.
    """
    if not try_hold(connection, AdvisoryLock.EXPIRY):
        return Removal("removed")
    others = attempts.alias()
    idle_photo = library.c.used_at < before
    in_use = exists().where(others.c.photo_id == library.c.photo_id, _young(others, before))
    with_photo = exists().where(library.c.photo_id == attempts.c.photo_id, or_(~idle_photo, in_use))
    alive = exists().where(attempts.c.job_id == jobs.c.id, or_(_young(attempts, before), with_photo))
    free = and_(jobs.c.kept_at.is_(None), or_(jobs.c.let_go_at.is_(None), jobs.c.let_go_at < before))
    old = select(jobs.c.id).where(free, ~alive).order_by(jobs.c.number).limit(limit)
    old = old.with_for_update(of=jobs, skip_locked=True)  # one that is just being kept is not taken
    removed = remove_jobs(connection, list(connection.execute(old).scalars()))
    _retire_idle(connection, before, limit)
    return dataclasses.replace(removed, uploads=removed.uploads + _remove_idle(connection, before, limit))


def _retire_idle(connection: Connection, before: float, limit: int) -> None:
    """Take photos out of the library that were not used for long enough, but none that somebody is just using."""
    idle = and_(library.c.used_at < before, ~exists().where(attempts.c.photo_id == library.c.photo_id))
    query = select(photos.c.id).join_from(photos, library, library.c.photo_id == photos.c.id).where(idle).limit(limit)
    ids = list(connection.execute(query.with_for_update(of=photos, skip_locked=True)).scalars())
    connection.execute(delete(library).where(library.c.photo_id.in_(ids), idle))


def _young(table: Any, before: float) -> ColumnElement[bool]:
    return or_(table.c.status.in_(ACTIVE), table.c.ended_at.is_(None), table.c.ended_at >= before)


def _remove_attempts(connection: Connection, which: ColumnElement[bool]) -> tuple[list[str], Removal]:
    """Delete attempts that have ended; the photos they were of, and the files that go with them."""
    told = (attempts.c.id, attempts.c.photo_id, attempts.c.result_name, attempts.c.mask_bytes)
    statement = delete(attempts).where(which, attempts.c.status.not_in(ACTIVE))
    gone = connection.execute(statement.returning(*told)).all()
    photo_ids = sorted({row.photo_id for row in gone})
    own = photos.c.id.in_(photo_ids)
    connection.execute(select(photos.c.id).where(own).order_by(photos.c.id).with_for_update())  # always in this order
    selected = photos.c.selected_attempt_id.in_([row.id for row in gone])
    connection.execute(update(photos).where(own, selected).values(selected_attempt_id=None))
    results = tuple(row.result_name for row in gone if row.result_name is not None)
    masks = tuple(row.id for row in gone if row.mask_bytes is not None)
    return photo_ids, Removal("removed", results=results, masks=masks)


def _remove_unused(connection: Connection, photo_ids: Sequence[str]) -> tuple[str, ...]:
    """Delete those of the photos that no attempt uses and that are not in the library; their ids."""
    statement = delete(photos).where(photos.c.id.in_(photo_ids), *_unused()).returning(photos.c.id)
    return tuple(connection.execute(statement).scalars())


def _remove_idle(connection: Connection, before: float, limit: int) -> tuple[str, ...]:
    """Delete photos of that age that nothing uses; their ids."""
    running = photos.c.status == PhotoStatus.PROCESSING.value
    idle = select(photos.c.id).where(photos.c.created_at < before, ~running, *_unused()).limit(limit)
    return tuple(connection.execute(delete(photos).where(photos.c.id.in_(idle)).returning(photos.c.id)).scalars())


def _unused() -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (
        ~exists().where(attempts.c.photo_id == photos.c.id),
        ~exists().where(library.c.photo_id == photos.c.id),
    )
