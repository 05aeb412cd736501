"""Locks that all processes on one database share, each for the rest of the open transaction.

SQLite needs none of them: a writing transaction there is the only one, from its start.
"""

from __future__ import annotations

import enum

from sqlalchemy import Connection, func, select


class AdvisoryLock(enum.IntEnum):
    """What is done by one transaction at a time. PostgreSQL knows these locks by number, in the whole database."""

    MIGRATION = 0x4E495200
    QUEUE = 0x4E495201  # counting what waits, and adding to it
    LEASE_SWEEP = 0x4E495202
    EXPIRY = 0x4E495203
    KEEPING = 0x4E495204  # adding up what an owner keeps, and keeping more
    STORAGE = 0x4E495205  # adding up the bytes of an owner, and taking in more; the last of several to be held


def hold(connection: Connection, lock: AdvisoryLock) -> None:
    """Wait for the lock and hold it until the end of the transaction."""
    if _has_locks(connection):
        connection.execute(select(func.pg_advisory_xact_lock(lock.value)))


def try_hold(connection: Connection, lock: AdvisoryLock) -> bool:
    """Hold the lock if it is free; False, without waiting, when another transaction has it."""
    if not _has_locks(connection):
        return True
    return bool(connection.execute(select(func.pg_try_advisory_xact_lock(lock.value))).scalar_one())


def _has_locks(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"
