"""What an owner has used: the photos of each day, counted in the transaction that accepts them.

A day is one of UTC. What is counted is what was accepted, since attempts are removed after an hour; an attempt that the
result cache answers is taken out again.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from typing import Protocol, TypedDict

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.errors import TooManyRequests
from app.store import changes
from app.store.database import Database
from app.store.queue_order import forget_turns
from app.store.records import AttemptStatus
from app.store.schema import attempts, jobs, usage
from app.store.stored_bytes import count_stored

DAY_SECONDS = 86_400


class Shares(TypedDict, total=False):
    """What an owner may have; None or absent: any number.

    `owner_limit` photos that wait, `daily_limit` photos accepted on one day, `storage_limit` bytes of photos and
    results.
    """

    owner_limit: int | None
    daily_limit: int | None
    storage_limit: int | None


@dataclasses.dataclass(frozen=True)
class OwnerUsage:
    """What an owner has used today, and how many of its photos wait."""

    photos_today: int
    waiting: int


class Accounts(Protocol):
    """What concerns owners. Usable from any thread; a part of `Store`, with its errors. Times are epoch seconds."""

    def usage(self, owner: str, now: float) -> OwnerUsage:
        """Photos accepted from the owner on the day of `now`, and those of its photos that wait."""
        ...

    def stored_bytes(self, owner: str) -> int:
        """Bytes of the owner's photos and results, with what lies beside them; it looks at all of their rows."""
        ...

    def forget_usage(self, before: float) -> None:
        """Remove the counts of the days that ended before a time, and whose turn it was before it."""
        ...

    def end_session(self, session_id: str, until: float) -> None:
        """Remember that a sign-in was ended, until a time (epoch seconds) at which its cookie is too old."""
        ...

    def ended_sessions(self, now: float) -> set[str]:
        """The sign-ins that were ended and whose cookies are not too old yet."""
        ...


class SqlAccounts:
    """Rows of owners in SQL; see `Accounts`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def usage(self, owner: str, now: float) -> OwnerUsage:
        """See `Accounts`."""

        def read(connection: Connection) -> OwnerUsage:
            today = select(usage.c.photos).where(usage.c.owner == owner, usage.c.day == day_of(now))
            return OwnerUsage(connection.execute(today).scalar() or 0, count_waiting(connection, owner))

        return self._database.read(read)

    def stored_bytes(self, owner: str) -> int:
        """See `Accounts`."""
        return self._database.read(lambda connection: count_stored(connection, owner))

    def forget_usage(self, before: float) -> None:
        """See `Accounts`."""

        def write(connection: Connection) -> None:
            connection.execute(delete(usage).where(usage.c.day < day_of(before)))
            forget_turns(connection, before)

        self._database.write(write)

    def end_session(self, session_id: str, until: float) -> None:
        """See `Accounts`."""
        now = self._database.now()
        self._database.write(lambda connection: changes.end_session(connection, session_id, until, now))

    def ended_sessions(self, now: float) -> set[str]:
        """See `Accounts`."""
        return self._database.read(lambda connection: changes.find_ended_sessions(connection, now))


def count_waiting(connection: Connection, owner: str) -> int:
    """How many photos of an owner wait."""
    queued = select(func.count()).join_from(attempts, jobs, jobs.c.id == attempts.c.job_id)
    queued = queued.where(attempts.c.status == AttemptStatus.QUEUED.value, jobs.c.owner == owner)
    return int(connection.execute(queued).scalar_one())


def charge(connection: Connection, owner: str, coming: int, daily_limit: int | None, now: float) -> None:
    """Count photos that are being accepted, if so many are left of the day's (None: nothing is counted).

    One guarded statement, so that servers which accept at the same moment cannot both take the last. It is the first
    that an acceptance writes: when it refuses, nothing was changed.

    Raises `TooManyRequests` `quota_exceeded` with the seconds until midnight UTC.
    """
    if daily_limit is None:
        return
    upsert = (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(usage)
    raised = upsert.values(owner=owner, day=day_of(now), photos=coming).on_conflict_do_update(
        index_elements=[usage.c.owner, usage.c.day],
        set_={"photos": usage.c.photos + coming},
        where=usage.c.photos + coming <= daily_limit,
    )
    if coming > daily_limit or connection.execute(raised.returning(usage.c.photos)).one_or_none() is None:
        today = select(usage.c.photos).where(usage.c.owner == owner, usage.c.day == day_of(now))
        raise _exceeded(daily_limit, connection.execute(today).scalar() or 0, now)


def refund(connection: Connection, attempt_id: str) -> None:
    """Take one attempt out of the count of the day on which it was accepted; nothing where that day is not counted.

    Call it in the transaction that ends the attempt, before photos are locked: an acceptance locks in that order too.
    """
    found = select(jobs.c.owner, attempts.c.created_at).join_from(attempts, jobs, jobs.c.id == attempts.c.job_id)
    row = connection.execute(found.where(attempts.c.id == attempt_id)).one()
    counted = (usage.c.owner == row.owner) & (usage.c.day == day_of(row.created_at)) & (usage.c.photos > 0)
    connection.execute(update(usage).where(counted).values(photos=usage.c.photos - 1))


def day_of(now: float) -> str:
    """The day of a moment, UTC, as in `2026-01-31`."""
    return datetime.datetime.fromtimestamp(now, datetime.UTC).date().isoformat()


def next_day(now: float) -> float:
    """When the day of a moment ends."""
    return (math.floor(now / DAY_SECONDS) + 1) * float(DAY_SECONDS)


def _exceeded(limit: int, used: int, now: float) -> TooManyRequests:
    wait = math.ceil(next_day(now) - now)
    left = max(0, limit - used)
    return TooManyRequests(
        "quota_exceeded",
        f"You may send {limit} photos a day, and {left} of today's {'is' if left == 1 else 'are'} left; "
        f"the next day begins at midnight UTC, in {_hours(wait)}.",
        retry_after_seconds=wait,
    )


def _hours(seconds: int) -> str:
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
