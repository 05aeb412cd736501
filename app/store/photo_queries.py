"""What the rows say of photos, read without changing them. Functions take the open transaction's connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Connection, Label, Row, Select, func, select

from app.errors import NotFound
from app.store.records import Attempt, Photo, PhotoStatus
from app.store.schema import attempt_of, attempts, jobs, library, photos, select_attempts


def find_photo(connection: Connection, owner: str, photo_id: str) -> Photo:
    """One photo with its attempts. Raises `NotFound` `photo_not_found` when unknown, gone or another owner's."""
    row = connection.execute(_select().where(photos.c.id == photo_id, photos.c.owner == owner)).one_or_none()
    if row is None:
        raise _not_found()
    return _with_attempts(connection, [row])[0]


def list_photos(connection: Connection, owner: str, limit: int, before: str | None, archived: bool) -> list[Photo]:
    """Photos of the library, newest first: those in use, or the archived ones."""
    is_archived = photos.c.status == PhotoStatus.ARCHIVED.value
    query = _select().where(library.c.owner == owner, is_archived if archived else ~is_archived)
    if before is not None:
        query = query.where(library.c.number < _number(connection, owner, before))
    return _with_attempts(connection, connection.execute(query.order_by(library.c.number.desc()).limit(limit)).all())


def _select() -> Select[Any]:
    times = [_of_its_jobs(column) for column in (jobs.c.kept_at, jobs.c.let_go_at)]
    return select(photos, library.c.used_at, *times).outerjoin(library, library.c.photo_id == photos.c.id)


def _of_its_jobs(column: Column[Any]) -> Label[Any]:
    """The latest such time of the jobs that have attempts at the photo."""
    latest = select(func.max(column)).join_from(jobs, attempts, attempts.c.job_id == jobs.c.id)
    return latest.where(attempts.c.photo_id == photos.c.id).scalar_subquery().label(column.name)


def _number(connection: Connection, owner: str, photo_id: str) -> int:
    query = select(library.c.number).where(library.c.photo_id == photo_id, library.c.owner == owner)
    number = connection.execute(query).scalar_one_or_none()
    if number is None:
        raise _not_found()
    return int(number)


def _with_attempts(connection: Connection, rows: Sequence[Row[Any]]) -> list[Photo]:
    grouped: dict[str, list[Attempt]] = {row.id: [] for row in rows}
    for row in connection.execute(select_attempts().where(attempts.c.photo_id.in_(list(grouped)))):
        grouped[row.photo_id].append(attempt_of(row))
    return [_photo_of(row, tuple(grouped[row.id])) for row in rows]


def _photo_of(row: Row[Any], found: tuple[Attempt, ...]) -> Photo:
    values: dict[str, Any] = dict(row._mapping)
    del values["status_before"]
    values["kept"] = values.pop("kept_at") is not None
    values["status"] = PhotoStatus(values["status"])
    return Photo(**values, attempts=found)


def _not_found() -> NotFound:
    return NotFound("photo_not_found", "There is no such photo; it may have expired or been removed.")
