"""How a job comes in: counted against the queue's limit and written whole, in one transaction.

Functions take the open transaction's connection.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Unpack

from sqlalchemy import Connection, func, insert, select

from app.errors import RestoreError, TooLarge, TooManyRequests, Unavailable
from app.store import webhooks
from app.store.accounts import Shares, charge, count_waiting
from app.store.locks import AdvisoryLock, hold
from app.store.queries import seconds_per_photo
from app.store.records import NO_ORIGIN, AttemptStatus, JobOrigin, NewPhoto, PhotoStatus
from app.store.schema import attempts, jobs, photos
from app.store.stored_bytes import refuse_over_storage

LONGEST_RETRY_SECONDS = 600
_GUESSED_SECONDS_PER_PHOTO = 10.0
_NONE_OF_THEIR_OWN: Mapping[str, str] = MappingProxyType({})


def make_once(connection: Connection, owner: str, job_id: str | None, make_job: Callable[[Connection], str]) -> str:
    """The owner's job of this id, or, where there is none, the one that `make_job` makes; its id.

    `make_job` refuses before it writes. Where two processes make one job at once, the database calls one of them again.
    """
    if job_id is None:
        return make_job(connection)
    if _is_made(connection, owner, job_id):
        return job_id
    try:
        return make_job(connection)
    except RestoreError:  # perhaps for its sake: another process made it a moment ago
        if _is_made(connection, owner, job_id):
            return job_id
        raise


def _is_made(connection: Connection, owner: str, job_id: str) -> bool:
    made = select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.owner == owner)
    return connection.execute(made).one_or_none() is not None


def insert_job(
    connection: Connection,
    owner: str,
    new_photos: Sequence[NewPhoto],
    options_json: str,
    backend: str,
    queue_limit: int,
    now: float,
    job_id: str | None = None,
    origin: JobOrigin = NO_ORIGIN,
    **shares: Unpack[Shares],
) -> str:
    """Write photos, job and attempts; returns the job's id. Raises like `Store.submit`, before it writes."""
    refuse_over(connection, len(new_photos), queue_limit)
    take_shares(connection, owner, len(new_photos), sum(photo.bytes for photo in new_photos), now, **shares)
    connection.execute(insert(photos), [photo_values(photo, owner, now) for photo in new_photos])
    photo_ids = [photo.id for photo in new_photos]
    own = {photo.id: photo.options_json for photo in new_photos if photo.options_json is not None}
    return insert_attempts(connection, owner, photo_ids, options_json, backend, now, job_id, origin, own)


def insert_attempts(
    connection: Connection,
    owner: str,
    photo_ids: Sequence[str],
    options_json: str,
    backend: str,
    now: float,
    job_id: str | None = None,
    origin: JobOrigin = NO_ORIGIN,
    own: Mapping[str, str] = _NONE_OF_THEIR_OWN,
) -> str:
    """Write a job (with the given id, or a fresh one) and its waiting attempts for photos that have rows; its id.

    `own`: the options of photos, by their ids, that have others than the job.
    """
    job_id = job_id or secrets.token_hex(16)
    mask = origin.mask if len(photo_ids) == 1 else None
    connection.execute(insert(jobs).values(id=job_id, owner=owner, created_at=now, options_json=options_json))
    rows = [
        {
            "id": secrets.token_hex(16) if mask is None else mask.attempt_id,
            "job_id": job_id,
            "photo_id": photo_id,
            "position": position,
            "status": AttemptStatus.QUEUED.value,
            "backend": backend,
            "options_json": own.get(photo_id, options_json),
            "mask_bytes": None if mask is None else mask.bytes,
            "request_id": origin.request_id,
            "trace": origin.trace,
            "created_at": now,
        }
        for position, photo_id in enumerate(photo_ids)
    ]
    connection.execute(insert(attempts), rows)
    if origin.webhook_url is not None:
        webhooks.add(connection, job_id, origin.webhook_url)
    return job_id


def photo_values(photo: NewPhoto, owner: str, now: float) -> dict[str, object]:
    """The row of a photo that nobody has restored yet."""
    return {
        "id": photo.id,
        "owner": owner,
        "sha256": photo.sha256,
        "name": photo.name,
        "mime": photo.mime,
        "width": photo.width,
        "height": photo.height,
        "bytes": photo.bytes,
        "status": PhotoStatus.UPLOADED.value,
        "created_at": now,
    }


def refuse_over(connection: Connection, coming: int, queue_limit: int) -> None:
    """Overload is refused, not absorbed; Retry-After is when enough places will be free.

    What is counted stays true until the commit.
    """
    if coming > queue_limit:
        raise TooLarge("too_many_files", f"The queue holds {queue_limit} photos in all; send fewer photos at once.")
    hold(connection, AdvisoryLock.QUEUE)
    queued = select(func.count()).where(attempts.c.status == AttemptStatus.QUEUED.value)
    over = connection.execute(queued).scalar_one() + coming - queue_limit
    if over > 0:
        each = seconds_per_photo(connection) or _GUESSED_SECONDS_PER_PHOTO
        wait = min(LONGEST_RETRY_SECONDS, max(1, math.ceil(over * each)))
        raise Unavailable(
            "queue_full",
            f"The queue is full ({queue_limit} photos wait); send this again in about {wait} seconds.",
            retry_after_seconds=wait,
        )


def take_shares(
    connection: Connection, owner: str, coming: int, coming_bytes: int, now: float, **shares: Unpack[Shares]
) -> None:
    """Refuse photos for which the owner's shares have no room, then count them. Raises like `Store.submit`."""
    refuse_over_share(connection, owner, coming, shares.get("owner_limit"))
    refuse_over_storage(connection, owner, coming_bytes, shares.get("storage_limit"))
    charge(connection, owner, coming, shares.get("daily_limit"), now)


def refuse_over_share(connection: Connection, owner: str, coming: int, owner_limit: int | None) -> None:
    """An owner may have so many photos waiting (None: any number), or one submission, however many photos it has."""
    if owner_limit is None:
        return
    waiting = count_waiting(connection, owner)
    if waiting == 0 or waiting + coming <= owner_limit:
        return
    each = seconds_per_photo(connection) or _GUESSED_SECONDS_PER_PHOTO
    wait = min(LONGEST_RETRY_SECONDS, max(1, math.ceil((waiting + coming - owner_limit) * each)))
    raise TooManyRequests(
        "owner_queue_full",
        f"{waiting} of your photos wait, and at most {owner_limit} may; send this again in about {wait} seconds.",
        retry_after_seconds=wait,
    )
