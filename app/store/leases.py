"""The claim of a run on an attempt, from taking it to losing it: who holds it, how far it is, what becomes of it.

A run that lost its claim (cancelled, recovered, given back) changes nothing. Functions take the open transaction's
connection and return the id of the job they changed, or None.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, select, update

from app.stages import Stage
from app.store.guarded_updates import failed_values, held_by, release_photo, update_attempt
from app.store.records import AttemptStatus, PhotoStatus
from app.store.schema import attempts, photos

CRASHED = "worker_crashed"
CRASHED_MESSAGE = (
    "The service died three times while it restored this photo, so it was given up; "
    "try a smaller photo or another model, and tell the operator."
)
INTERRUPTED = "interrupted"
INTERRUPTED_MESSAGE = (
    "The service stopped after this photo had been sent to the provider, which may have charged for it; "
    "it was not sent again, so restore it once more if you want that."
)

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
    row = update_attempt(
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
    row = update_attempt(connection, held_by(attempt_id, token), progress=fraction, stage=stage[:20])
    return None if row is None else str(row.job_id)


def mark_sent(connection: Connection, attempt_id: str, token: str) -> str | None:
    """Write that this run is about to cost money; from now on the attempt is never queued again."""
    row = update_attempt(connection, held_by(attempt_id, token), sent=True, stage=Stage.SENDING.value)
    return None if row is None else str(row.job_id)


def holds(connection: Connection, attempt_id: str, token: str) -> bool:
    """Whether this run still holds its claim."""
    return connection.execute(select(attempts.c.id).where(held_by(attempt_id, token))).one_or_none() is not None


def give_back(connection: Connection, attempt_id: str, token: str, now: float) -> str | None:
    """Processing -> queued, and the try does not count: the run was stopped in good order. Sent -> failed."""
    held = held_by(attempt_id, token)
    row = _interrupt(connection, held, now)
    row = row or update_attempt(connection, held, tries=attempts.c.tries - 1, **_BACK_IN_QUEUE)
    return None if row is None else release_photo(connection, row)


def crashed(connection: Connection, attempt_id: str, token: str, now: float, max_tries: int) -> str | None:
    """Processing -> queued while tries are left, else failed: the run ended without a word. Sent -> failed."""
    held = held_by(attempt_id, token)
    row = _interrupt(connection, held, now)
    row = row or update_attempt(connection, and_(held, attempts.c.tries < max_tries), **_BACK_IN_QUEUE)
    row = row or update_attempt(connection, held, **failed_values(CRASHED, CRASHED_MESSAGE, now))
    return None if row is None else release_photo(connection, row)


def recover(connection: Connection, now: float, max_tries: int, *, burn_try: bool) -> set[str]:
    """At the start of a process: every run of the last one has ended; whether its try counts is the caller's word."""
    changed = set()
    running = select(attempts.c.id, attempts.c.claim).where(attempts.c.status == AttemptStatus.PROCESSING.value)
    for row in connection.execute(running).all():
        if burn_try:
            changed.add(crashed(connection, row.id, row.claim, now, max_tries))
        else:
            changed.add(give_back(connection, row.id, row.claim, now))
    return {job_id for job_id in changed if job_id is not None}


def _interrupt(connection: Connection, held: ColumnElement[bool], now: float) -> Any:
    """A run that was paid for ends as failed: whether to pay again is the user's word, not ours."""
    sent = and_(held, attempts.c.sent.is_(True))
    return update_attempt(connection, sent, **failed_values(INTERRUPTED, INTERRUPTED_MESSAGE, now))
