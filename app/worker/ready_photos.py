"""The decoded photos that wait to be restored, handed out by their owners' turns rather than in the order they came.

So a photo of somebody who had none lately passes the one that a busy owner has ready already.
"""

from __future__ import annotations

import threading
from collections import deque

from app.jobs.prepared import Prepared

_OWNERS_REMEMBERED = 64  # beyond so many others in between, whose turn it was last plays no part


class ReadyPhotos:
    """`put` by the thread that decodes, `take` by the one that restores."""

    def __init__(self) -> None:
        self._photos: list[Prepared] = []
        self._served: deque[str] = deque(maxlen=_OWNERS_REMEMBERED)  # the last one at the end
        self._changed = threading.Condition()
        self._closed = False

    def put(self, prepared: Prepared) -> None:
        """Add a photo."""
        with self._changed:
            self._photos.append(prepared)
            self._changed.notify()

    def take(self) -> Prepared | None:
        """Wait for a photo: that of the owner who was served least recently, of equals the first. None once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._photos or self._closed)
            if not self._photos:
                return None
            chosen = min(self._photos, key=lambda photo: self._served_at(photo.attempt.owner))
            self._photos.remove(chosen)
            if chosen.attempt.owner in self._served:
                self._served.remove(chosen.attempt.owner)
            self._served.append(chosen.attempt.owner)
            return chosen

    def close(self) -> None:
        """What is there is still taken, then `take` says None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _served_at(self, owner: str) -> int:
        return self._served.index(owner) if owner in self._served else -1
