"""Brings the tables of any earlier version to today's: new tables and columns are added, nothing else is changed.

Steps that only add let servers of two versions work beside each other while one after another is replaced. Workers of
two versions do not everywhere, so some steps wait until the older ones have gone.
"""

from __future__ import annotations

from sqlalchemy import Column, ColumnElement, Connection, Integer, MetaData, Table, delete, insert, inspect, select
from sqlalchemy.schema import CreateColumn, CreateTable

from app.errors import Internal, Unavailable
from app.store.schema import LIVE_SECONDS, VERSION, metadata, workers

# Workers of a version before 7 know no receipts: one that took over a photo would pay the provider for it once more,
# and would leave the address of its result in the row.
_WORKERS_FROM = 7
# One row, where the database has no number of its own for it.
_version_table = Table("schema_version", MetaData(), Column("version", Integer, nullable=False))


def migrate(connection: Connection, now: ColumnElement[float] | None = None) -> None:
    """Create what is missing, in the open transaction.

    Args:
        connection: of the database.
        now: the database's clock, where other processes may be using it; None: this process has it for itself.

    Raises:
        Internal: `database_newer` for the tables of a later version.
        Unavailable: `older_workers` while there are workers that must not work beside this version.
    """
    found = _version(connection)
    if now is not None and 0 < found < _WORKERS_FROM:
        _refuse_older_workers(connection, now)
    if found > VERSION:
        raise Internal(
            "database_newer",
            "The job database was written by a later version of this service; start that version again.",
        )
    metadata.create_all(connection)
    add_columns(connection)
    _add_indexes(connection)
    _set_version(connection)


def _version(connection: Connection) -> int:
    """The version that wrote the tables; 0 when there are none."""
    if connection.dialect.name == "sqlite":
        return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    connection.execute(CreateTable(_version_table, if_not_exists=True))
    return int(connection.execute(select(_version_table.c.version)).scalar() or 0)


def _refuse_older_workers(connection: Connection, now: ColumnElement[float]) -> None:
    if not inspect(connection).has_table(workers.name):
        return
    live = select(workers.c.name).where(workers.c.seen_at >= now - LIVE_SECONDS).order_by(workers.c.name)
    names = connection.execute(live).scalars().all()
    if names:
        raise Unavailable(
            "older_workers",
            f"Workers of an earlier version still run ({', '.join(names)}). Stop them, then start this version: they "
            "would pay the provider once more for photos that were paid for already.",
        )


def _set_version(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA user_version={VERSION}")
        return
    connection.execute(delete(_version_table))
    connection.execute(insert(_version_table).values(version=VERSION))


def add_columns(connection: Connection) -> None:
    """Give the tables of an earlier version the columns they lack; each has a default or may be empty."""
    found = inspect(connection)
    for table in metadata.sorted_tables:
        present = {column["name"] for column in found.get_columns(table.name)}
        for column in table.columns:
            if column.name not in present:
                words = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {words}")


def _add_indexes(connection: Connection) -> None:
    """Give them the indexes they lack."""
    for table in metadata.sorted_tables:
        for index in table.indexes:
            index.create(connection, checkfirst=True)
