"""Every legal move of an attempt, each one guarded UPDATE: it changes a row only from the state it is legal in.

A run that lost its claim (cancelled, recovered, given back) changes nothing. Functions take the open transaction's
connection and return the ids of the jobs they changed, or None.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, select, update

from app.stages import Stage
from app.store.records import AttemptStatus, NewVersion, PhotoStatus, Result
from app.store.schema import ACTIVE, as_json, attempts, photos

CRASHED = "worker_crashed"
CRASHED_MESSAGE = (
    "The service stopped twice while it restored this photo, so it was given up; "
    "try a smaller photo or another model, and tell the operator."
)
INTERRUPTED = "interrupted"
INTERRUPTED_MESSAGE = (
    "The service stopped after this photo had been sent to the provider, which may have charged for it; "
    "it was not sent again, so restore it once more if you want that."
)
LONGEST_MESSAGE_CHARACTERS = 1000

_BACK_IN_QUEUE = {
    "status": AttemptStatus.QUEUED.value,
    "claim": None,
    "progress": 0.0,
    "stage": Stage.WAITING.value,
    "started_at": None,
}


def claim(connection: Connection, attempt_id: str, token: str, now: float) -> str | None:
    """Queued -> processing, one try more; the photo remembers what it was."""
    waiting = and_(attempts.c.id == attempt_id, attempts.c.status == AttemptStatus.QUEUED.value)
    row = _move(
        connection,
        waiting,
        status=AttemptStatus.PROCESSING.value,
        claim=token,
        tries=attempts.c.tries + 1,
        started_at=now,
        progress=0.0,
        stage=Stage.DECODING.value,
    )
    if row is None:
        return None
    took = update(photos).where(photos.c.id == row.photo_id, photos.c.status != PhotoStatus.PROCESSING.value)
    connection.execute(took.values(status_before=photos.c.status, status=PhotoStatus.PROCESSING.value))
    return str(row.job_id)


def report_progress(connection: Connection, attempt_id: str, token: str, fraction: float, stage: str) -> str | None:
    """Write how far a run is, while it holds its claim."""
    fraction = min(1.0, max(0.0, fraction))
    row = _move(connection, _held(attempt_id, token), progress=fraction, stage=stage[:20])
    return None if row is None else str(row.job_id)


def mark_sent(connection: Connection, attempt_id: str, token: str) -> str | None:
    """Write that this run is about to cost money; from now on the attempt is never queued again."""
    row = _move(connection, _held(attempt_id, token), sent=True, stage=Stage.SENDING.value)
    return None if row is None else str(row.job_id)


def holds(connection: Connection, attempt_id: str, token: str) -> bool:
    """Whether this run still holds its claim."""
    return connection.execute(select(attempts.c.id).where(_held(attempt_id, token))).one_or_none() is not None


def complete(connection: Connection, attempt_id: str, token: str, result: Result, now: float) -> str | None:
    """Processing -> completed, with the facts of the result; the photo is ready."""
    row = _move(
        connection,
        _held(attempt_id, token),
        status=AttemptStatus.COMPLETED.value,
        claim=None,
        progress=1.0,
        stage=Stage.DONE.value,
        ended_at=now,
        result_name=result.name,
        result_mime=result.mime,
        result_width=result.width,
        result_height=result.height,
        result_bytes=result.bytes,
        model=result.model,
        seconds=result.seconds,
        faces_json=as_json(result.faces),
        warnings_json=as_json(tuple(dataclasses.asdict(notice) for notice in result.warnings)),
        params_json=as_json(result.params),
    )
    if row is None:
        return None
    ready = update(photos).where(photos.c.id == row.photo_id)
    connection.execute(ready.values(status=PhotoStatus.READY.value, status_before=None))
    return str(row.job_id)


def fail(connection: Connection, attempt_id: str, token: str, code: str, message: str, now: float) -> str | None:
    """Processing -> failed, with the reason; the photo is what it was."""
    row = _move(connection, _held(attempt_id, token), **_failed(code, message, now))
    return None if row is None else _photo_back(connection, row)


def new_version(connection: Connection, attempt_id: str, was: int, result: NewVersion) -> str | None:
    """Completed stays completed and shows the next version of its result, if it is version `was` that shows now."""
    shown = and_(
        attempts.c.id == attempt_id,
        attempts.c.status == AttemptStatus.COMPLETED.value,
        attempts.c.version == was,
    )
    row = _move(
        connection,
        shown,
        version=was + 1,
        result_name=result.name,
        result_bytes=result.bytes,
        faces_json=as_json(result.faces),
    )
    return None if row is None else str(row.job_id)


def give_back(connection: Connection, attempt_id: str, token: str, now: float) -> str | None:
    """Processing -> queued, and the try does not count: the run was stopped in good order. Sent -> failed."""
    held = _held(attempt_id, token)
    row = _interrupt(connection, held, now)
    row = row or _move(connection, held, tries=attempts.c.tries - 1, **_BACK_IN_QUEUE)
    return None if row is None else _photo_back(connection, row)


def crashed(connection: Connection, attempt_id: str, token: str, now: float, max_tries: int) -> str | None:
    """Processing -> queued while tries are left, else failed: the run ended without a word. Sent -> failed."""
    held = _held(attempt_id, token)
    row = _interrupt(connection, held, now)
    row = row or _move(connection, and_(held, attempts.c.tries < max_tries), **_BACK_IN_QUEUE)
    row = row or _move(connection, held, **_failed(CRASHED, CRASHED_MESSAGE, now))
    return None if row is None else _photo_back(connection, row)


def recover(connection: Connection, now: float, max_tries: int) -> set[str]:
    """At the start of a process: every run of the last one has crashed."""
    running = select(attempts.c.id, attempts.c.claim).where(attempts.c.status == AttemptStatus.PROCESSING.value)
    changed = (crashed(connection, row.id, row.claim, now, max_tries) for row in connection.execute(running).all())
    return {job_id for job_id in changed if job_id is not None}


def cancel(connection: Connection, job_id: str, now: float) -> bool:
    """Every active attempt of a job -> cancelled, at once; a run that goes on notices and its result is dropped."""
    active = and_(attempts.c.job_id == job_id, attempts.c.status.in_(ACTIVE))
    values = {"status": AttemptStatus.CANCELLED.value, "claim": None, "ended_at": now, "stage": Stage.CANCELLED.value}
    rows = connection.execute(update(attempts).where(active).values(**values).returning(attempts.c.photo_id)).all()
    for row in rows:
        _restore_photo(connection, row.photo_id)
    return bool(rows)


def _held(attempt_id: str, token: str) -> ColumnElement[bool]:
    """The guard of every move of a run: the row is still processing, and by this very run."""
    return and_(
        attempts.c.id == attempt_id,
        attempts.c.status == AttemptStatus.PROCESSING.value,
        attempts.c.claim == token,
    )


def _move(connection: Connection, guard: ColumnElement[bool], **values: Any) -> Any:
    """The one guarded UPDATE; the row's job and photo when it moved, else None."""
    statement = update(attempts).where(guard).values(**values).returning(attempts.c.job_id, attempts.c.photo_id)
    return connection.execute(statement).one_or_none()


def _interrupt(connection: Connection, held: ColumnElement[bool], now: float) -> Any:
    """A run that was paid for ends as failed: whether to pay again is the user's word, not ours."""
    sent = and_(held, attempts.c.sent.is_(True))
    return _move(connection, sent, **_failed(INTERRUPTED, INTERRUPTED_MESSAGE, now))


def _failed(code: str, message: str, now: float) -> dict[str, Any]:
    return {
        "status": AttemptStatus.FAILED.value,
        "claim": None,
        "ended_at": now,
        "error_code": code,
        "error_message": message[:LONGEST_MESSAGE_CHARACTERS],
    }


def _photo_back(connection: Connection, row: Any) -> str:
    _restore_photo(connection, row.photo_id)
    return str(row.job_id)


def _restore_photo(connection: Connection, photo_id: str) -> None:
    processing = and_(photos.c.id == photo_id, photos.c.status == PhotoStatus.PROCESSING.value)
    connection.execute(update(photos).where(processing).values(status=photos.c.status_before, status_before=None))
