"""The bytes that an owner has here: photos and results, with what lies beside them, added up from the rows.

Functions take the open transaction's connection.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, func, select

from app.errors import InsufficientStorage
from app.store.locks import AdvisoryLock, hold
from app.store.schema import attempts, jobs, photos

_MEGABYTE = 1024 * 1024


def count_stored(connection: Connection, owner: str) -> int:
    """Bytes of all photos and results of an owner."""
    uploads = select(func.coalesce(func.sum(photos.c.bytes), 0)).where(photos.c.owner == owner)
    return int(connection.execute(uploads).scalar_one()) + count_results(connection, jobs.c.owner == owner)


def count_results(connection: Connection, which: ColumnElement[bool]) -> int:
    """Bytes of the results of some jobs, of what lies beside them, and of their masks."""
    sizes = (attempts.c.result_bytes, attempts.c.beside_bytes, attempts.c.mask_bytes)
    each = [func.coalesce(size, 0) for size in sizes]
    joined = attempts.join(jobs, attempts.c.job_id == jobs.c.id)
    added = select(func.coalesce(func.sum(each[0] + each[1] + each[2]), 0)).select_from(joined).where(which)
    return int(connection.execute(added).scalar_one())


def refuse_over_storage(connection: Connection, owner: str, coming_bytes: int, limit_bytes: int | None) -> None:
    """An owner may have so many bytes here (None: any number). What is counted stays true until the commit.

    A result's size is not known before: it needs room for a byte, and what was accepted is kept however large it is.

    Raises `InsufficientStorage` `storage_limit_reached`.
    """
    if limit_bytes is None:
        return
    hold(connection, AdvisoryLock.STORAGE)  # else two at once would both fit
    stored = count_stored(connection, owner)
    if stored + max(1, coming_bytes) > limit_bytes:
        raise InsufficientStorage(
            "storage_limit_reached",
            f"Your photos and results here take {megabytes(stored)} MB of {megabytes(limit_bytes)} MB, so this does "
            "not fit; remove some of them, or wait until older ones expire.",
        )


def megabytes(count: int) -> str:
    """A number of bytes in megabytes, for a sentence."""
    return f"{count / _MEGABYTE:.1f}".removesuffix(".0")
