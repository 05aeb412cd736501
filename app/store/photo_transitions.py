"""Every legal move of a photo: it comes in, its attempt is chosen, it is set aside, it goes.

Each move is one guarded statement that changes a row only from a state it is legal in; when nothing changed, the reason
is looked up afterwards. Functions take the open transaction's connection; attempts have theirs in `transitions`.
"""

from __future__ import annotations

from typing import Unpack

from sqlalchemy import ColumnElement, Connection, and_, exists, insert, select, update

from app.errors import Conflict, NotFound
from app.store.accounts import Shares
from app.store.records import NO_ORIGIN, AttemptStatus, JobOrigin, NewPhoto, PhotoStatus
from app.store.removal import Removal, remove_photo
from app.store.schema import ACTIVE, attempts, library, photos
from app.store.stored_bytes import refuse_over_storage
from app.store.submissions import insert_attempts, photo_values, refuse_over, take_shares


def add(
    connection: Connection, owner: str, new: NewPhoto, now: float, storage_limit: int | None = None
) -> tuple[str, bool]:
    """A photo comes into the library: its id, and whether it is new. Equal bytes of one owner are one photo.

    Raises what `refuse_over_storage` raises for a new one.
    """
    same = and_(library.c.owner == owner, library.c.sha256 == new.sha256)
    used = update(library).where(same).values(used_at=now).returning(library.c.photo_id)
    known = connection.execute(used).scalar_one_or_none()
    if known is not None:
        return str(known), False
    refuse_over_storage(connection, owner, new.bytes, storage_limit)
    connection.execute(insert(photos).values(**photo_values(new, owner, now)))
    row = {"photo_id": new.id, "owner": owner, "sha256": new.sha256, "used_at": now}
    connection.execute(insert(library).values(**row))
    return new.id, True


def restore(
    connection: Connection,
    owner: str,
    photo_id: str,
    options_json: str,
    backend: str,
    queue_limit: int,
    now: float,
    job_id: str | None = None,
    origin: JobOrigin = NO_ORIGIN,
    **shares: Unpack[Shares],
) -> str:
    """One attempt more, as a job of its own; returns the job's id.

    Raises `NotFound` `photo_not_found`, `Conflict` `photo_busy` or `photo_archived`, or what `refuse_over` and
    `take_shares` raise.
    """
    if _status(connection, owner, photo_id) is PhotoStatus.ARCHIVED:
        raise _archived()
    if _is_busy(connection, photo_id):
        raise busy()
    refuse_over(connection, 1, queue_limit)
    take_shares(connection, owner, 1, 0 if origin.mask is None else origin.mask.bytes, now, **shares)
    use(connection, photo_id, now)
    return insert_attempts(connection, owner, [photo_id], options_json, backend, now, job_id, origin)


def select_attempt(connection: Connection, owner: str, photo_id: str, attempt_id: str, now: float) -> None:
    """The completed attempt whose result is kept.

    Raises `NotFound` `photo_not_found` or `attempt_not_found`, `Conflict` `photo_archived` or `attempt_not_completed`.
    """
    of_photo = and_(attempts.c.id == attempt_id, attempts.c.photo_id == photo_id)
    known = connection.execute(select(attempts.c.id).where(of_photo).with_for_update()).one_or_none() is not None
    completed = exists().where(of_photo, attempts.c.status == AttemptStatus.COMPLETED.value)
    open_to_choice = and_(_own(owner, photo_id), photos.c.status != PhotoStatus.ARCHIVED.value, completed)
    if _move(connection, open_to_choice, selected_attempt_id=attempt_id):
        use(connection, photo_id, now)
        return
    if _status(connection, owner, photo_id) is PhotoStatus.ARCHIVED:
        raise _archived()
    if not known:
        raise NotFound("attempt_not_found", "This photo has no such attempt.")
    raise Conflict("attempt_not_completed", "Only an attempt that has a result can be selected; choose another one.")


def archive(connection: Connection, owner: str, photo_id: str, now: float) -> None:
    """Ready -> archived; harmless when it is archived already.

    Raises `NotFound` `photo_not_found`, `Conflict` `photo_busy` or `photo_not_ready`.
    """
    _status(connection, owner, photo_id)
    idle = ~exists().where(attempts.c.photo_id == photos.c.id, attempts.c.status.in_(ACTIVE))
    ready = and_(_own(owner, photo_id), photos.c.status == PhotoStatus.READY.value, idle)
    if _move(connection, ready, status=PhotoStatus.ARCHIVED.value):
        use(connection, photo_id, now)
        return
    if _status(connection, owner, photo_id) is PhotoStatus.ARCHIVED:
        return
    if _is_busy(connection, photo_id):
        raise busy()
    raise Conflict("photo_not_ready", "Only a photo that was restored can be archived; restore it, or delete it.")


def remove(connection: Connection, owner: str, photo_id: str) -> Removal:
    """The photo goes with all its attempts. Raises `NotFound` `photo_not_found` or `Conflict` `photo_busy`."""
    of_photo = select(attempts.c.id).where(attempts.c.photo_id == photo_id).order_by(attempts.c.number)
    connection.execute(of_photo.with_for_update())  # attempts before their photo, as every transaction locks them
    _status(connection, owner, photo_id)
    if _is_busy(connection, photo_id):
        raise busy()
    return remove_photo(connection, photo_id)


def use(connection: Connection, photo_id: str, now: float) -> None:
    """Its time counts from now; nothing happens to a photo outside the library."""
    connection.execute(update(library).where(library.c.photo_id == photo_id).values(used_at=now))


def busy() -> Conflict:
    """The error for a photo of which an attempt waits or runs."""
    return Conflict("photo_busy", "This photo is being restored; wait for the end of that, or cancel its job.")


def _archived() -> Conflict:
    return Conflict(
        "photo_archived", "This photo is archived and stays as it is; delete it and upload it again to work on it."
    )


def _own(owner: str, photo_id: str) -> ColumnElement[bool]:
    return and_(photos.c.id == photo_id, photos.c.owner == owner)


def _move(connection: Connection, guard: ColumnElement[bool], **values: object) -> bool:
    """The one guarded UPDATE: whether a row changed."""
    return connection.execute(update(photos).where(guard).values(**values).returning(photos.c.id)).first() is not None


def _status(connection: Connection, owner: str, photo_id: str) -> PhotoStatus:
    """The photo's status, which nobody else changes until the end of the transaction, nor adds an attempt."""
    query = select(photos.c.status).where(_own(owner, photo_id)).with_for_update(key_share=True)
    status = connection.execute(query).scalar_one_or_none()
    if status is None:
        raise NotFound("photo_not_found", "There is no such photo; it may have expired or been removed.")
    return PhotoStatus(status)


def _is_busy(connection: Connection, photo_id: str) -> bool:
    active = select(attempts.c.id).where(attempts.c.photo_id == photo_id, attempts.c.status.in_(ACTIVE))
    return connection.execute(active).first() is not None
