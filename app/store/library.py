"""The `Library`: photos that are uploaded once and restored many times, one transaction a call.

It is the store's face for photos, as `Store` is for jobs and attempts; it knows nothing of files, pictures or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from app.store import photo_queries, photo_transitions
from app.store.records import NewPhoto, Photo
from app.store.removal import Removal
from app.store.sqlite import Database


class Library:
    """Photos of the photo routes. By id every photo of an owner is found; lists and equal bytes know the library only.

    Any call may raise `Unavailable`, as those of `Store`; then nothing was changed.
    """

    def __init__(self, database: Database, notify: Callable[[Iterable[str]], None]) -> None:
        self._database, self._notify = database, notify

    def add(self, owner: str, new: NewPhoto, now: float) -> tuple[Photo, bool]:
        """Take in an upload that is safe on disk under `new.id`.

        Returns the photo and whether it is new: equal bytes of one owner give the photo that is there already, and the
        upload's file is of no use then.
        """
        with self._database.writing() as connection:
            photo_id, created = photo_transitions.add(connection, owner, new, now)
            return photo_queries.find_photo(connection, owner, photo_id), created

    def photo(self, owner: str, photo_id: str) -> Photo:
        """One photo of this owner. Raises `NotFound` `photo_not_found`."""
        with self._database.reading() as connection:
            return photo_queries.find_photo(connection, owner, photo_id)

    def photos(self, owner: str, limit: int, before: str | None = None, *, archived: bool = False) -> list[Photo]:
        """A page of the library, newest first; `before` is the id of the last photo of the page before.

        Raises `NotFound` `photo_not_found` when `before` is unknown (it may have expired).
        """
        with self._database.reading() as connection:
            return photo_queries.list_photos(connection, owner, limit, before, archived)

    def select(self, owner: str, photo_id: str, attempt_id: str, now: float) -> Photo:
        """Choose the attempt to keep; see `photo_moves.select_attempt` for the errors."""
        with self._database.writing() as connection:
            photo_transitions.select_attempt(connection, owner, photo_id, attempt_id, now)
            return photo_queries.find_photo(connection, owner, photo_id)

    def archive(self, owner: str, photo_id: str, now: float) -> Photo:
        """Set a restored photo aside: no attempts any more; see `photo_moves.archive` for the errors."""
        with self._database.writing() as connection:
            photo_transitions.archive(connection, owner, photo_id, now)
            return photo_queries.find_photo(connection, owner, photo_id)

    def remove(self, owner: str, photo_id: str) -> Removal:
        """Remove a photo with its attempts; remove the named files afterwards.

        Raises `NotFound` `photo_not_found` or `Conflict` `photo_busy`.
        """
        with self._database.writing() as connection:
            gone = photo_transitions.remove(connection, owner, photo_id)
        self._notify(gone.jobs)
        return gone
