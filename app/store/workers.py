"""Processes that restore: what each says of itself every few seconds, and until when it counts as alive.

And what becomes of attempts that wait for what none of them does.

Who was seen is told by the database's clock alone, so that the clocks of hosts do not matter. A report is any JSON
object; `app.jobs.worker_reports` says what stands in it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from sqlalchemy import Connection, Float, cast, delete, insert, select, update

from app.events import Events
from app.store import leases
from app.store.database import Database
from app.store.schema import LIVE_SECONDS, as_json, workers

GONE_SECONDS = 600.0  # after so long without a report a row is removed
FAILED_A_SWEEP = 200  # the next sweep goes on


@dataclasses.dataclass(frozen=True)
class LiveWorker:
    """One process that was seen lately.

    Attributes:
        name: host and process, as it stands beside the claims.
        started_at, warm_up_asked_at: epoch seconds by the database's clock; None: nobody has asked.
        silent_seconds: time since its last report.
        report: what it said then.
    """

    name: str
    host: str
    started_at: float
    warm_up_asked_at: float | None
    silent_seconds: float
    report: Mapping[str, Any]


class Workers(Protocol):
    """The processes that restore. Usable from any thread; a part of `Store`, with its errors."""

    def report(self, name: str, host: str, report: Mapping[str, Any], *, starting: bool = False) -> float | None:
        """Say that this worker lives, and what it is; with `starting` it has just begun, whatever bore its name before.

        Never waits for a connection that others use. Returns when a warm-up was last asked of it (epoch seconds by the
        database's clock). Removes rows of workers that have been silent for long.
        """
        ...

    def live(self, within_seconds: float = LIVE_SECONDS) -> list[LiveWorker]:
        """The workers that reported within so many seconds, by name."""
        ...

    def forget(self, name: str) -> None:
        """A worker ends in good order: it is not alive from now on. Harmless when it is unknown."""
        ...

    def ask_warm_up(self, within_seconds: float = LIVE_SECONDS) -> float:
        """Ask every live worker to load and run its default model; the time by the database's clock (epoch seconds)."""
        ...

    def fail_unserved(self, backends: Collection[str], now: float) -> tuple[str, ...]:
        """Fail the oldest attempts that wait for these backends as `backend_unavailable`; their ids.

        Whether nobody serves these backends is the caller's word.
        """
        ...


class SqlWorkers:
    """Rows of workers in SQL; see `Workers`."""

    def __init__(self, database: Database, events: Events) -> None:
        self._database, self._events = database, events

    def report(self, name: str, host: str, report: Mapping[str, Any], *, starting: bool = False) -> float | None:
        """See `Workers`."""

        def write(connection: Connection) -> float | None:
            now = self._database.now()
            seen: dict[str, Any] = {"host": host, "seen_at": now, "report_json": as_json(report)}
            first = {"started_at": now, "warm_up_asked_at": None}
            known = update(workers).where(workers.c.name == name).values(**seen, **(first if starting else {}))
            row = connection.execute(known.returning(workers.c.warm_up_asked_at)).one_or_none()
            if row is None:
                connection.execute(insert(workers).values(name=name, **seen, **first))
            connection.execute(delete(workers).where(workers.c.seen_at < now - GONE_SECONDS))
            return None if row is None else row.warm_up_asked_at

        return self._database.write_apart(write)

    def live(self, within_seconds: float = LIVE_SECONDS) -> list[LiveWorker]:
        """See `Workers`."""
        now = self._database.now()
        query = select(workers, (now - workers.c.seen_at).label("silent_seconds"))
        query = query.where(workers.c.seen_at >= now - within_seconds).order_by(workers.c.name)
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return [
            LiveWorker(row.name, row.host, row.started_at, row.warm_up_asked_at, row.silent_seconds, _facts(row))
            for row in rows
        ]

    def forget(self, name: str) -> None:
        """See `Workers`."""
        self._database.write(lambda connection: connection.execute(delete(workers).where(workers.c.name == name)))

    def ask_warm_up(self, within_seconds: float = LIVE_SECONDS) -> float:
        """See `Workers`."""

        def write(connection: Connection) -> float:
            now = float(connection.execute(select(cast(self._database.now(), Float))).scalar_one())
            live = update(workers).where(workers.c.seen_at >= now - within_seconds)
            connection.execute(live.values(warm_up_asked_at=now))
            return now

        return self._database.write(write)

    def fail_unserved(self, backends: Collection[str], now: float) -> tuple[str, ...]:
        """See `Workers`."""
        ended = self._database.write(lambda connection: leases.end_unserved(connection, backends, now, FAILED_A_SWEEP))
        self._events.publish({job_id: None for _, job_id in ended})
        return tuple(attempt_id for attempt_id, _ in ended)


def _facts(row: Any) -> dict[str, Any]:
    """The report of a row; empty when it is no JSON object."""
    try:
        facts = json.loads(row.report_json)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}
