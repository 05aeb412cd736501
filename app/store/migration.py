"""Brings the tables of any earlier version to today's: new tables and columns are added, nothing else is changed.

Steps that only add let servers of two versions work beside each other while one after another is replaced.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect
from sqlalchemy.schema import CreateColumn

from app.errors import Internal
from app.store.schema import VERSION, metadata


def migrate(connection: Connection) -> None:
    """Create what is missing, in the open transaction. Raises `Internal` `database_newer` for a later version's."""
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if version > VERSION:
        raise Internal(
            "database_newer",
            "The job database was written by a later version of this service; start that version again.",
        )
    metadata.create_all(connection)
    add_columns(connection)
    connection.exec_driver_sql(f"PRAGMA user_version={VERSION}")


def add_columns(connection: Connection) -> None:
    """Give the tables of an earlier version the columns they lack; each has a default or may be empty."""
    found = inspect(connection)
    for table in metadata.sorted_tables:
        present = {column["name"] for column in found.get_columns(table.name)}
        for column in table.columns:
            if column.name not in present:
                words = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {words}")
