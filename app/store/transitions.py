"""How an attempt ends, and how its result gets a new version: each transition is one guarded UPDATE.

The moves of a run's claim stand in `leases`. Functions take the open transaction's
connection and return the ids of the jobs they changed, or None.
"""

from __future__ import annotations

import functools
from typing import Any

from sqlalchemy import Connection, Update, and_, bindparam, func, update
from sqlalchemy.sql.dml import ReturningUpdate

from app.stages import Stage
from app.store.accounts import refund
from app.store.guarded_updates import (
    end_attempt,
    failed_values,
    held_by,
    release_photo,
    restore_photo_status,
    update_attempt,
)
from app.store.records import AttemptStatus, NewVersion, PhotoStatus, Result
from app.store.schema import ACTIVE, as_json, attempts, photos
from app.store.webhooks import make_due


def complete(connection: Connection, attempt_id: str, token: str, result: Result, now: float) -> str | None:
    """Processing -> completed, with the facts of the result; the photo is ready. What the result cache gave is free."""
    facts = {
        "ended_at": now,
        "result_name": result.name,
        "result_mime": result.mime,
        "result_width": result.width,
        "result_height": result.height,
        "result_bytes": result.bytes,
        "beside_bytes": result.beside_bytes,
        "model": result.model,
        "seconds": result.seconds,
        "faces_json": as_json(result.faces),
        "warnings_json": as_json(tuple(notice.as_facts() for notice in result.warnings)),
        "params_json": as_json(result.params),
        "cache_key": result.cache_key,
        "from_cache": result.from_cache,
    }
    given = {"wanted": attempt_id, "token": token, **{f"new_{name}": value for name, value in facts.items()}}
    row = end_attempt(connection, _completed(tuple(facts)), given)
    if row is None:
        return None
    if result.from_cache:
        refund(connection, attempt_id)
    connection.execute(_photo_ready(), {"wanted": row.photo_id})
    return str(row.job_id)


@functools.cache
def _completed(facts: tuple[str, ...]) -> ReturningUpdate[Any]:
    values: dict[str, Any] = {
        "status": AttemptStatus.COMPLETED.value,
        "claim": None,
        "lease_until": None,
        "receipts_json": "[]",
        "progress": 1.0,
        "stage": Stage.DONE.value,
        "revision": attempts.c.revision + 1,
        **{name: bindparam(f"new_{name}") for name in facts},
    }
    held = update(attempts).where(held_by(bindparam("wanted"), bindparam("token")))
    return held.values(values).returning(attempts.c.job_id, attempts.c.photo_id)


@functools.cache
def _photo_ready() -> Update:
    ready = update(photos).where(photos.c.id == bindparam("wanted"))
    return ready.values(status=PhotoStatus.READY.value, status_before=None)


def fail(connection: Connection, attempt_id: str, token: str, code: str, message: str, now: float) -> str | None:
    """Processing -> failed, with the reason; the photo is what it was."""
    row = update_attempt(connection, held_by(attempt_id, token), **failed_values(code, message, now))
    return None if row is None else release_photo(connection, row)


def new_version(connection: Connection, attempt_id: str, was: int, result: NewVersion) -> str | None:
    """Completed stays completed and shows the next version of its result, if it is version `was` that shows now."""
    shown = and_(
        attempts.c.id == attempt_id,
        attempts.c.status == AttemptStatus.COMPLETED.value,
        attempts.c.version == was,
    )
    first_bytes = attempts.c.result_bytes if was == 1 else 0  # it stays, for the next blends
    row = update_attempt(
        connection,
        shown,
        beside_bytes=func.coalesce(attempts.c.beside_bytes, 0) + func.coalesce(first_bytes, 0),
        version=was + 1,
        result_name=result.name,
        result_bytes=result.bytes,
        faces_json=as_json(result.faces),
    )
    return None if row is None else str(row.job_id)


def cancel(connection: Connection, job_id: str, now: float, attempt_id: str | None = None) -> bool:
    """Every active attempt of a job (or the named one) -> cancelled, at once; a run of it notices and is dropped."""
    active = and_(attempts.c.job_id == job_id, attempts.c.status.in_(ACTIVE))
    if attempt_id is not None:
        active = and_(active, attempts.c.id == attempt_id)
    values: dict[str, Any] = {"status": AttemptStatus.CANCELLED.value, "claim": None, "lease_until": None}
    values["ended_at"], values["receipts_json"] = now, "[]"
    values["stage"] = Stage.CANCELLED.value
    values["revision"] = attempts.c.revision + 1
    moved = update(attempts).where(active).values(**values).returning(attempts.c.photo_id)
    photo_ids = sorted(connection.execute(moved).scalars())  # photos are locked in one order everywhere
    for photo_id in photo_ids:
        restore_photo_status(connection, photo_id)
    if photo_ids:
        make_due(connection, job_id)
    return bool(photo_ids)
