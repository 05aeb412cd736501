"""Copies all rows of one database into an empty one, whole or not at all, as when a service outgrows SQLite."""

from __future__ import annotations

from sqlalchemy import Connection, Table, func, insert, select

from app.errors import Conflict, Internal
from app.store.database import Database
from app.store.locks import AdvisoryLock, hold
from app.store.schema import metadata, workers

_ROWS_A_BATCH = 500


def copy_rows(source: Database, target: Database) -> dict[str, int]:
    """Copy every row from one open database to another; the number of rows by table.

    Raises:
        Conflict: `target_not_empty`.
        Internal: `copy_incomplete`, the numbers of rows differ afterwards; nothing was kept.
    """
    return source.read(lambda reading: target.write(lambda writing: _copy_all(reading, writing)))


def _copy_all(source: Connection, target: Connection) -> dict[str, int]:
    hold(target, AdvisoryLock.QUEUE)  # nobody submits meanwhile
    # A row comes after those that it refers to; what processes say of themselves is of this very moment.
    tables = [table for table in metadata.sorted_tables if table is not workers]
    if any(_count(target, table) for table in tables):
        raise Conflict(
            "target_not_empty",
            "The database of DATABASE_URL has jobs or photos already, so nothing was copied; name an empty one.",
        )
    for table in tables:
        _copy_table(source, target, table)
    counts = {table.name: _count(source, table) for table in tables}
    if counts != {table.name: _count(target, table) for table in tables}:
        raise Internal("copy_incomplete", "Not every row arrived, so nothing was kept; try again.")
    return counts


def _copy_table(source: Connection, target: Connection, table: Table) -> None:
    rows = source.execute(select(table)).mappings()
    for batch in rows.partitions(_ROWS_A_BATCH):
        target.execute(insert(table), [dict(row) for row in batch])
    if "number" in table.columns and target.dialect.name == "postgresql":
        _go_on_counting(target, table)


def _go_on_counting(target: Connection, table: Table) -> None:
    """PostgreSQL's own counter knows nothing of numbers that were given elsewhere."""
    highest = target.execute(select(func.max(table.c.number))).scalar_one()
    if highest is not None:
        target.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "number"), highest)))


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
