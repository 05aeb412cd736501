"""The claim of a run on an attempt is a lease: it is taken, renewed, given back, or runs out when its process is gone.

A run that lost its claim (cancelled, swept, given back) changes nothing. Functions take the open transaction's
connection; most return the id of the job they changed, or None.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, case, or_, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from app.stages import Stage
from app.store.guarded_updates import failed_values, held_by, release_photo, update_attempt
from app.store.records import Attempt, AttemptStatus, PhotoStatus
from app.store.schema import OF_PHOTO, attempt_of, attempts, photos

CRASHED = "worker_crashed"
CRASHED_MESSAGE = (
    "The service died three times while it restored this photo, so it was given up; "
    "try a smaller photo or another model, and tell the operator."
)
LOST = "worker_lost"
LOST_MESSAGE = (
    "The machine that restored this photo went away five times without a word, so it was given up; "
    "try a smaller photo or another model, and tell the operator."
)
INTERRUPTED = "interrupted"
INTERRUPTED_MESSAGE = (
    "The service stopped after this photo had been sent to the provider, which may have charged for it; "
    "it was not sent again, so restore it once more if you want that."
)
UNSERVED = "backend_unavailable"  # as where a process finds out by itself that it has no such backend
UNSERVED_MESSAGE = (
    "No worker restores with the backend of this photo any more; choose another one, or tell the operator."
)

_BACK_IN_QUEUE = {
    "status": AttemptStatus.QUEUED.value,
    "claim": None,
    "worker": None,
    "lease_until": None,
    "notified_at": None,
    "progress": 0.0,
    "worked_seconds": None,
    "stage": Stage.WAITING.value,
    "started_at": None,
    "claimed_at": None,
}
_WAITING = attempts.c.status == AttemptStatus.QUEUED.value
_RUNNING = attempts.c.status == AttemptStatus.PROCESSING.value


@dataclasses.dataclass(frozen=True)
class LeaseSweep:
    """What a sweep found: the ids of runs whose lease had run out, and of waiting attempts to notify workers of."""

    lapsed: tuple[str, ...] = ()
    to_notify: tuple[str, ...] = ()


class Claims:
    """Claims of one process, whose statements are built once: they are executed for every photo.

    Args:
        worker: who runs, written beside each claim.
        now: the database's clock.
        lease_seconds: how long a claim lasts.
    """

    def __init__(self, worker: str, now: ColumnElement[float], lease_seconds: float) -> None:
        self.lease_until = now + lease_seconds
        waits = and_(attempts.c.id == bindparam("wanted"), _WAITING)
        untried = select(attempts.c.id).where(waits, attempts.c.tries == 0)
        free = untried.with_for_update(skip_locked=True).scalar_subquery()
        values: dict[str, Any] = {
            "status": AttemptStatus.PROCESSING.value,
            "claim": bindparam("token"),
            "worker": worker,
            "lease_until": self.lease_until,
            "claimed_at": now,
            "tries": attempts.c.tries + 1,
            "started_at": bindparam("now"),
            "progress": 0.0,
            "worked_seconds": None,
            "stage": bindparam("stage"),
            "revision": attempts.c.revision + 1,
        }
        claimed = update(attempts).values(values).returning(attempts)
        self._of_any, self._of_free = claimed.where(waits), claimed.where(attempts.c.id == free)
        self._after_tries = claimed.where(waits, attempts.c.tries == bindparam("tried"))

    def take(
        self, connection: Connection, attempt_id: str, run: Mapping[str, Any], tries: int | None = None
    ) -> Attempt | None:
        """Queued -> processing, one try more; the photo remembers what it was. With `tries`, only after that many.

        `run` has its `token`, its first `stage`, and `now` (epoch seconds).
        """
        if tries is None:
            return _claim(connection, self._of_any, {**run, "wanted": attempt_id})
        return _claim(connection, self._after_tries, {**run, "wanted": attempt_id, "tried": tries})

    def take_free(self, connection: Connection, attempt_id: str, run: Mapping[str, Any]) -> Attempt | None:
        """The same for one that was never tried; None at once when another transaction is about to change it."""
        return _claim(connection, self._of_free, {**run, "wanted": attempt_id})


def _claim(connection: Connection, statement: ReturningUpdate[Any], run: Mapping[str, Any]) -> Attempt | None:
    row = connection.execute(statement, run).one_or_none()
    if row is None:
        return None
    return attempt_of(row, connection.execute(_photo_processing(), {"wanted": row.photo_id}).one())


@functools.cache
def _photo_processing() -> ReturningUpdate[Any]:
    is_so = photos.c.status == PhotoStatus.PROCESSING.value
    before = case((is_so, photos.c.status_before), else_=photos.c.status)
    taken = update(photos).where(photos.c.id == bindparam("wanted"))
    return taken.values(status_before=before, status=PhotoStatus.PROCESSING.value).returning(*OF_PHOTO)


def renew(connection: Connection, tokens: Collection[str], until: ColumnElement[float]) -> set[str]:
    """Extend the leases of these runs; those of them that still hold their claim."""
    held = update(attempts).where(_RUNNING, attempts.c.claim.in_(list(tokens))).values(lease_until=until)
    return set(connection.execute(held.returning(attempts.c.claim)).scalars())


def report_progress(
    connection: Connection, attempt_id: str, token: str, fraction: float, stage: str, worked_seconds: float | None
) -> str | None:
    """Write how far a run is, while it holds its claim."""
    news = {"progress": min(1.0, max(0.0, fraction)), "stage": stage[:20], "worked_seconds": worked_seconds}
    run = {"wanted": attempt_id, "token": token}
    values = {f"new_{name}": value for name, value in news.items()}
    job_id: str | None = connection.execute(_reported(), {**run, **values}).scalar_one_or_none()
    return job_id


@functools.cache
def _reported() -> ReturningUpdate[Any]:
    """Built once: it is the statement that is executed most."""
    held = update(attempts).where(held_by(bindparam("wanted"), bindparam("token")))
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in ("progress", "stage", "worked_seconds")}
    return held.values(**values, revision=attempts.c.revision + 1).returning(attempts.c.job_id)


def mark_sent(connection: Connection, attempt_id: str, token: str) -> str | None:
    """Write that this run is about to cost money; from now on the attempt is never queued again."""
    row = update_attempt(connection, held_by(attempt_id, token), sent=True, stage=Stage.SENDING.value)
    return None if row is None else str(row.job_id)


def holds(connection: Connection, attempt_id: str, token: str) -> bool:
    """Whether this run still holds its claim."""
    return connection.execute(_held(), {"wanted": attempt_id, "token": token}).one_or_none() is not None


@functools.cache
def _held() -> Select[tuple[str]]:
    wanted = attempts.c.id == bindparam("wanted")
    return select(attempts.c.id).where(wanted, _RUNNING, attempts.c.claim == bindparam("token"))


def give_back(connection: Connection, attempt_id: str, token: str, now: float) -> str | None:
    """Processing -> queued, and the try does not count: the run was stopped in good order. Sent -> failed."""
    held = held_by(attempt_id, token)
    row = _interrupt(connection, held, now)
    row = row or update_attempt(connection, held, tries=attempts.c.tries - 1, **_BACK_IN_QUEUE)
    return None if row is None else release_photo(connection, row)


def crashed(connection: Connection, attempt_id: str, token: str, now: float, max_tries: int) -> str | None:
    """Processing -> queued while tries are left, else failed: the run's own process died of it. Sent -> failed."""
    return _end_crashed(connection, held_by(attempt_id, token), now, max_tries)


def recover(connection: Connection, now: float, max_tries: int, burn_try: bool, predecessors: str | None) -> set[str]:
    """At a start: every run of this process's predecessors has ended; whether its try counts is the caller's word.

    `predecessors` is how their workers' names begin, None where no other process can use this database. Where others
    can, runs whose try does not count are left to the sweep.
    """
    if predecessors is not None:
        theirs = and_(_RUNNING, attempts.c.worker.startswith(predecessors, autoescape=True))
        return _end_crashed_all(connection, theirs, now, max_tries) if burn_try and predecessors else set()
    if burn_try:
        return _end_crashed_all(connection, _RUNNING, now, max_tries)
    running = connection.execute(select(attempts.c.id, attempts.c.claim).where(_RUNNING)).all()
    given_back = (give_back(connection, row.id, row.claim, now) for row in running)
    return {job_id for job_id in given_back if job_id is not None}


def end_lapsed(
    connection: Connection, moment: ColumnElement[float], now: float, max_lapses: int
) -> list[tuple[str, str]]:
    """Every run whose lease ran out before `moment` (the database's clock) is over; ids of attempts and jobs.

    Its process may have died, been frozen, or been cut off from the database: nobody knows whether of the photo. So it
    burns no try, and is counted as a lapse instead.
    """
    lapsed = or_(attempts.c.lease_until.is_(None), attempts.c.lease_until < moment)
    return _end_all(connection, and_(_RUNNING, lapsed), lambda held: _end_lapsed(connection, held, now, max_lapses))


def end_unserved(connection: Connection, backends: Collection[str], now: float, most: int) -> list[tuple[str, str]]:
    """The `most` oldest attempts that wait for these backends, which nobody serves: failed; their ids and jobs'."""
    waiting = and_(_WAITING, attempts.c.backend.in_(list(backends)))
    return _end_all(connection, waiting, lambda held: _end_unserved(connection, held, now), most)


def find_forgotten(connection: Connection, moment: ColumnElement[float], after_seconds: float, most: int) -> list[str]:
    """Those of the `most` oldest waiting attempts that a sweep saw wait `after_seconds` ago; marks what it looks at."""
    oldest = select(attempts.c.id, (attempts.c.notified_at < moment - after_seconds).label("forgotten"))
    oldest = oldest.where(_WAITING).order_by(attempts.c.number).limit(most)
    rows = connection.execute(oldest.with_for_update(skip_locked=True)).all()
    due = [row.id for row in rows if row.forgotten is not False]  # None: no sweep has seen it yet
    if due:
        marked = and_(_WAITING, attempts.c.id.in_(due))
        connection.execute(update(attempts).where(marked).values(notified_at=moment))
    return [row.id for row in rows if row.forgotten]


def _end_crashed_all(connection: Connection, which: ColumnElement[bool], now: float, max_tries: int) -> set[str]:
    ended = _end_all(connection, which, lambda held: _end_crashed(connection, held, now, max_tries))
    return {job_id for _, job_id in ended}


def _end_all(
    connection: Connection,
    which: ColumnElement[bool],
    end: Callable[[ColumnElement[bool]], str | None],
    most: int | None = None,
) -> list[tuple[str, str]]:
    """End these runs, at most so many, but those that another transaction is just changing: they are alive."""
    query = select(attempts.c.id, attempts.c.photo_id).where(which).order_by(attempts.c.number).limit(most)
    rows = connection.execute(query.with_for_update(skip_locked=True)).all()
    jobs = {
        row.id: end(and_(attempts.c.id == row.id, which))
        for row in sorted(rows, key=lambda row: str(row.photo_id))  # photos are locked in one order everywhere
    }
    return [(row.id, job_id) for row in rows if (job_id := jobs[row.id]) is not None]


def _end_crashed(connection: Connection, held: ColumnElement[bool], now: float, max_tries: int) -> str | None:
    row = _interrupt(connection, held, now)
    left = attempts.c.tries - attempts.c.lapses < max_tries
    row = row or update_attempt(connection, and_(held, left), **_BACK_IN_QUEUE)
    row = row or update_attempt(connection, held, **failed_values(CRASHED, CRASHED_MESSAGE, now))
    return None if row is None else release_photo(connection, row)


def _end_lapsed(connection: Connection, held: ColumnElement[bool], now: float, max_lapses: int) -> str | None:
    row = _interrupt(connection, held, now)
    lapses = attempts.c.lapses + 1
    row = row or update_attempt(connection, and_(held, lapses < max_lapses), lapses=lapses, **_BACK_IN_QUEUE)
    row = row or update_attempt(connection, held, lapses=lapses, **failed_values(LOST, LOST_MESSAGE, now))
    return None if row is None else release_photo(connection, row)


def _end_unserved(connection: Connection, waiting: ColumnElement[bool], now: float) -> str | None:
    row = update_attempt(connection, waiting, **failed_values(UNSERVED, UNSERVED_MESSAGE, now))
    return None if row is None else release_photo(connection, row)


def _interrupt(connection: Connection, held: ColumnElement[bool], now: float) -> Any:
    """A run that was paid for ends as failed: whether to pay again is the user's word, not ours."""
    sent = and_(held, attempts.c.sent.is_(True))
    return update_attempt(connection, sent, **failed_values(INTERRUPTED, INTERRUPTED_MESSAGE, now))
