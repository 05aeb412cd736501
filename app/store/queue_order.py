"""In which order waiting attempts are served: owners in turn, and each one's photos as they came.

Functions take the open transaction's connection. Their statements are built once for each choice of backends, since
building one costs more than SQLite's answer.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from typing import Any, TypedDict

from sqlalchemy import ColumnElement, Connection, FromClause, Insert, Integer, Select, bindparam, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from app.store.records import AttemptStatus
from app.store.schema import attempts, jobs, turns

_JOBS_TOLD = 256  # as many as there may be live connections
_CHOICES = 64  # of backends; there are a handful
_CANDIDATES = 16  # of one claim: more processes are hardly in the middle of one at once
_WAITING = attempts.c.status == AttemptStatus.QUEUED.value


class WaitingFilter(TypedDict, total=False):
    """Which waiting attempts: of one backend `only` or of all `but` some, and not of the owners in `owners_but`."""

    only: str | None
    but: Collection[str]
    owners_but: Collection[str]


def queue_position(connection: Connection, job_id: str) -> int:
    """1 when the job's first waiting attempt is the next one of its backend; 0 when none waits.

    Each backend has a queue of its own: nobody waits behind another backend's photos.
    """
    backend = connection.execute(_backend_of_waiting(), {"wanted": job_id}).scalar_one_or_none()
    if backend is None:
        return 0
    return int(connection.execute(_place_of_job(backend), {"wanted": job_id}).scalar_one())


def queued_ids(
    connection: Connection,
    limit: int | None = None,
    only: str | None = None,
    but: Collection[str] = (),
    owners_but: Collection[str] = (),
) -> list[str]:
    """Waiting attempts in the order of their turns; see `WaitingFilter`."""
    statement = _ids_in_turn(only, tuple(sorted(but)), limit is not None, bool(owners_but))
    given: dict[str, Any] = {"owners": list(owners_but)} if owners_but else {}
    return list(connection.execute(statement, given if limit is None else {**given, "most": limit}).scalars())


def candidates(connection: Connection, first: str | None, only: str | None, but: Collection[str]) -> Iterator[str]:
    """What may be claimed: `first`, then, in the order of their turns, waiting attempts that were never tried."""
    if first is not None:
        yield first
    untried = connection.execute(_untried_in_turn(only, tuple(sorted(but))), {"most": _CANDIDATES})
    yield from untried.scalars().all()


def waiting_among(connection: Connection, attempt_ids: Collection[str]) -> dict[str, str]:
    """Those of some attempts that wait, with their backends."""
    return {row.id: row.backend for row in connection.execute(_waiting_among(), {"wanted": list(attempt_ids)})}


def took_turn(connection: Connection, owner: str, at: ColumnElement[float]) -> None:
    """The owner was served at a time by the database's clock."""
    connection.execute(_served(connection.dialect.name, at), {"wanted": owner})


def forget_turns(connection: Connection, before: float) -> None:
    """Remove the turns of owners who were not served since a time."""
    connection.execute(delete(turns).where(turns.c.served_at < before))


def waiting_jobs(connection: Connection, limit: int = _JOBS_TOLD) -> list[str]:
    """Jobs that have a waiting attempt, the soonest first: their place in the queue changes with every move."""
    return list(connection.execute(_jobs_by_age(), {"most": limit}).scalars())


@functools.cache
def _backend_of_waiting() -> Select[Any]:
    return select(attempts.c.backend).where(attempts.c.job_id == bindparam("wanted"), _WAITING).limit(1)


@functools.lru_cache(_CHOICES)
def _place_of_job(backend: str) -> Select[Any]:
    queue = _in_turn(backend, ()).subquery()
    place = func.row_number().over(order_by=_turn_order(queue)).label("place")
    places = select(queue.c.job_id, place).subquery()
    return select(func.min(places.c.place)).where(places.c.job_id == bindparam("wanted"))


@functools.lru_cache(_CHOICES)
def _ids_in_turn(only: str | None, but: tuple[str, ...], limited: bool, of_others: bool) -> Select[Any]:
    waiting = _in_turn(only, but)
    if of_others:
        waiting = waiting.where(jobs.c.owner.not_in(bindparam("owners", expanding=True)))
    queue = waiting.subquery()
    query = select(queue.c.id).order_by(*_turn_order(queue))
    return query.limit(bindparam("most", type_=Integer)) if limited else query


@functools.lru_cache(_CHOICES)
def _untried_in_turn(only: str | None, but: tuple[str, ...]) -> Select[Any]:
    queue = _in_turn(only, but).subquery()
    query = select(queue.c.id).where(queue.c.tries == 0).order_by(*_turn_order(queue))
    return query.limit(bindparam("most", type_=Integer))


@functools.lru_cache(_CHOICES)
def _served(dialect_name: str, at: ColumnElement[float]) -> Insert:
    upsert = (postgresql.insert if dialect_name == "postgresql" else sqlite.insert)(turns)
    served = upsert.values(owner=bindparam("wanted"), served_at=at)
    return served.on_conflict_do_update(index_elements=[turns.c.owner], set_={"served_at": at})


@functools.cache
def _waiting_among() -> Select[Any]:
    wanted = attempts.c.id.in_(bindparam("wanted", expanding=True))
    return select(attempts.c.id, attempts.c.backend).where(wanted, _WAITING)


@functools.cache
def _jobs_by_age() -> Select[Any]:
    query = select(attempts.c.job_id).where(_WAITING).group_by(attempts.c.job_id)
    return query.order_by(func.min(attempts.c.number)).limit(bindparam("most", type_=Integer))


def _turn_order(queue: FromClause) -> tuple[ColumnElement[Any], ...]:
    """The order of what `_in_turn` gives.

    Owners are served in turn, whoever was served least recently first, and each one's photos in the order they came.
    """
    return queue.c.turn, queue.c.served_at, queue.c.number


def _in_turn(only: str | None, but: tuple[str, ...]) -> Select[Any]:
    """Waiting attempts, each with its place in its owner's own queue and the time when its owner was served last.

    That time is the database's: with those of hosts, owners served by one whose clock is ahead would wait for longer.
    All of this hangs on how many wait, never on how many there were.
    """
    chosen = [attempts.c.backend == only] if only is not None else []
    chosen += [attempts.c.backend.not_in(but)] if but else []
    turn = func.row_number().over(partition_by=jobs.c.owner, order_by=attempts.c.number)
    return (
        select(
            attempts.c.id,
            attempts.c.job_id,
            attempts.c.number,
            turn.label("turn"),
            attempts.c.tries,
            func.coalesce(turns.c.served_at, 0.0).label("served_at"),
        )
        .join_from(attempts, jobs, jobs.c.id == attempts.c.job_id)
        .outerjoin(turns, turns.c.owner == jobs.c.owner)
        .where(_WAITING, *chosen)
    )
