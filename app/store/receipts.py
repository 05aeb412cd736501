"""What providers answered to calls that cost money, kept in the attempt's row until it ends.

A run that dies after its call leaves here what the next one needs to fetch the result, which is free. An address of
a result is as good as the result, so it stands nowhere else, and goes when the attempt ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from app.events import Events
from app.store.database import Database
from app.store.guarded_updates import held_by, update_attempt
from app.store.schema import as_json


class ReceiptRows(Protocol):
    """Keeps receipts. Usable from any thread; may raise `Unavailable`, as the calls of `Store`."""

    def keep(self, attempt_id: str, token: str, receipts: Sequence[Mapping[str, Any]]) -> bool:
        """Write all receipts of an attempt, JSON-ready; no call of the run is unanswered, so it is not `sent` any more.

        From now on a crash puts it back into the queue. False: the run does not hold its claim, nothing was changed.
        """
        ...


class SqlReceiptRows:
    """Rows in SQL; see `ReceiptRows`."""

    def __init__(self, database: Database, events: Events) -> None:
        self._database, self._events = database, events

    def keep(self, attempt_id: str, token: str, receipts: Sequence[Mapping[str, Any]]) -> bool:
        """See `ReceiptRows`."""
        values = {"sent": False, "receipts_json": as_json(tuple(receipts))}
        row = self._database.write(lambda connection: update_attempt(connection, held_by(attempt_id, token), **values))
        if row is not None:
            self._events.publish([str(row.job_id)])
        return row is not None
