"""The guarded UPDATE that each move of an attempt is: it changes a row only from a state in which the move is legal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, and_, update
from sqlalchemy.sql.dml import ReturningUpdate

from app.store.records import AttemptStatus, PhotoStatus
from app.store.schema import ENDED, attempts, photos, storable
from app.store.webhooks import make_due

LONGEST_MESSAGE_CHARACTERS = 1000


def held_by(attempt_id: str | BindParameter[str], token: str | BindParameter[str]) -> ColumnElement[bool]:
    """The guard of every move of a run: the row is still processing, and by this very run."""
    return and_(
        attempts.c.id == attempt_id,
        attempts.c.status == AttemptStatus.PROCESSING.value,
        attempts.c.claim == token,
    )


def update_attempt(connection: Connection, guard: ColumnElement[bool], **values: Any) -> Any:
    """The one guarded UPDATE, which raises the revision; the row's job and photo when it moved, else None."""
    moved = update(attempts).where(guard).values(**values, revision=attempts.c.revision + 1)
    statement = moved.returning(attempts.c.job_id, attempts.c.photo_id)
    row = connection.execute(statement).one_or_none()
    if row is not None and values.get("status") in ENDED:
        make_due(connection, row.job_id)
    return row


def end_attempt(connection: Connection, statement: ReturningUpdate[Any], given: Mapping[str, Any]) -> Any:
    """Execute an UPDATE that ends an attempt and was built before; the row's job and photo when it moved, else None."""
    row = connection.execute(statement, given).one_or_none()
    if row is not None:
        make_due(connection, row.job_id)
    return row


def failed_values(code: str, message: str, now: float) -> dict[str, Any]:
    """The columns of an attempt that ends as failed."""
    return {
        "status": AttemptStatus.FAILED.value,
        "claim": None,
        "lease_until": None,
        "receipts_json": "[]",
        "ended_at": now,
        "error_code": code,
        "error_message": storable(message[:LONGEST_MESSAGE_CHARACTERS]),
    }


def release_photo(connection: Connection, row: Any) -> str:
    """The photo of a moved attempt is what it was before; gives the job's id."""
    restore_photo_status(connection, row.photo_id)
    return str(row.job_id)


def restore_photo_status(connection: Connection, photo_id: str) -> None:
    """Put back the status that the photo had before its attempt was claimed."""
    processing = and_(photos.c.id == photo_id, photos.c.status == PhotoStatus.PROCESSING.value)
    connection.execute(update(photos).where(processing).values(status=photos.c.status_before, status_before=None))
