"""What each owner has here, for operators: an owner whose key or token is gone can remove or let go nothing itself.

Functions take the open transaction's connection.
"""

from __future__ import annotations

import dataclasses

from sqlalchemy import Connection, func, select, update

from app.store.schema import jobs, library, photos
from app.store.stored_bytes import count_stored


@dataclasses.dataclass(frozen=True)
class Holding:
    """What one owner has: the numbers of jobs, of those that are kept and of photos, and the bytes of all files."""

    owner: str
    jobs: int
    kept: int
    photos: int
    stored_bytes: int


def holdings(connection: Connection) -> list[Holding]:
    """Of every owner of a job or a photo, by owner."""
    owners = select(photos.c.owner).union(select(jobs.c.owner))
    return [holding_of(connection, owner) for owner in sorted(connection.execute(owners).scalars())]


def holding_of(connection: Connection, owner: str) -> Holding:
    """Of one owner; zeros where there is nothing."""
    counted = select(func.count(), func.count(jobs.c.kept_at)).select_from(jobs).where(jobs.c.owner == owner)
    all_jobs, kept = connection.execute(counted).one()
    of_owner = select(func.count()).select_from(photos).where(photos.c.owner == owner)
    number = connection.execute(of_owner).scalar_one()
    return Holding(owner, all_jobs, kept, number, count_stored(connection, owner))


def hand_over(connection: Connection, owner: str, new_owner: str) -> None:
    """Give all jobs and photos to another owner. A photo that it has already stays as long as what was made of it."""
    connection.execute(update(photos).where(photos.c.owner == owner).values(owner=new_owner))
    connection.execute(update(jobs).where(jobs.c.owner == owner).values(owner=new_owner))
    both = select(library.c.sha256).where(library.c.owner == new_owner)
    connection.execute(library.delete().where(library.c.owner == owner, library.c.sha256.in_(both)))
    connection.execute(update(library).where(library.c.owner == owner).values(owner=new_owner))


def let_go(connection: Connection, owner: str, now: float) -> None:
    """Keep none of the owner's jobs any longer; their retention counts from now (epoch seconds)."""
    kept = (jobs.c.owner == owner) & jobs.c.kept_at.is_not(None)
    connection.execute(update(jobs).where(kept).values(kept_at=None, let_go_at=now))
