"""`SqlLibrary`: photos that are uploaded once and restored many times, one transaction a call."""

from __future__ import annotations

from sqlalchemy import Connection

from app.events import Events
from app.store import photo_queries, photo_transitions
from app.store.database import Database
from app.store.records import NewPhoto, Photo
from app.store.removal import Removal


class SqlLibrary:
    """Rows of photos in SQL; see `Library`."""

    def __init__(self, database: Database, events: Events) -> None:
        self._database, self._events = database, events

    def add(self, owner: str, new: NewPhoto, now: float, *, storage_limit: int | None = None) -> tuple[Photo, bool]:
        """See `Library`."""

        def write(connection: Connection) -> tuple[Photo, bool]:
            photo_id, created = photo_transitions.add(connection, owner, new, now, storage_limit)
            return photo_queries.find_photo(connection, owner, photo_id), created

        return self._database.write(write)

    def photo(self, owner: str, photo_id: str) -> Photo:
        """See `Library`."""
        return self._database.read(lambda connection: photo_queries.find_photo(connection, owner, photo_id))

    def photos(self, owner: str, limit: int, before: str | None = None, *, archived: bool = False) -> list[Photo]:
        """See `Library`."""
        return self._database.read(
            lambda connection: photo_queries.list_photos(connection, owner, limit, before, archived)
        )

    def select(self, owner: str, photo_id: str, attempt_id: str, now: float) -> Photo:
        """See `Library`."""

        def write(connection: Connection) -> Photo:
            photo_transitions.select_attempt(connection, owner, photo_id, attempt_id, now)
            return photo_queries.find_photo(connection, owner, photo_id)

        return self._database.write(write)

    def archive(self, owner: str, photo_id: str, now: float) -> Photo:
        """See `Library`."""

        def write(connection: Connection) -> Photo:
            photo_transitions.archive(connection, owner, photo_id, now)
            return photo_queries.find_photo(connection, owner, photo_id)

        return self._database.write(write)

    def remove(self, owner: str, photo_id: str) -> Removal:
        """See `Library`."""
        gone = self._database.write(lambda connection: photo_transitions.remove(connection, owner, photo_id))
        self._events.publish(gone.jobs)
        return gone
