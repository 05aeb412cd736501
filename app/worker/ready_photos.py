"""The decoded photos that wait to be restored, handed out by their owners' turns rather than in the order they came.

So a photo of somebody who had none lately passes the one that a busy owner has ready already. Where the backend shares
its device, it does not even wait for the end of the one at work: it is handed out beside that.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from app.jobs.prepared import Prepared

_OWNERS_REMEMBERED = 64  # beyond so many others in between, whose turn it was last plays no part


class ReadyPhotos:
    """`put` by the thread that decodes; `take`, and `passed_on` at its end, by those that restore.

    `fits_beside` says whether there is memory for one more to be at work.
    """

    def __init__(self, fits_beside: Callable[[], bool]) -> None:
        self._fits_beside = fits_beside
        self._photos: list[Prepared] = []
        self._at_work: dict[str, tuple[str, bool]] = {}  # by token: its owner, and whether it shares the device
        self._served: deque[str] = deque(maxlen=_OWNERS_REMEMBERED)  # the last one at the end
        self._changed = threading.Condition()
        self._closed = False

    def put(self, prepared: Prepared) -> None:
        """Add a photo."""
        with self._changed:
            self._photos.append(prepared)
            self._changed.notify_all()

    def take(self) -> Prepared | None:
        """Wait for a photo: that of the owner who was served least recently, of equals the first. None once closed.

        Beside one that is at work only another owner's is given, on a device that both share, where memory allows.
        """
        with self._changed:
            while (chosen := self._next()) is None:
                if self._closed and not self._photos:
                    return None
                self._changed.wait()
            self._photos.remove(chosen)
            self._at_work[chosen.token] = (chosen.attempt.owner, chosen.shares_device)
            if chosen.attempt.owner in self._served:
                self._served.remove(chosen.attempt.owner)
            self._served.append(chosen.attempt.owner)
            return chosen

    def passed_on(self, token: str) -> None:
        """The photo of this run has ended, or is being encoded."""
        with self._changed:
            self._at_work.pop(token, None)
            self._changed.notify_all()

    def look_again(self) -> None:
        """Memory became free."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """What is there is still taken, then `take` says None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self) -> Prepared | None:
        waiting = [photo for photo in self._photos if self._may_join(photo)]
        return min(waiting, key=lambda photo: self._served_at(photo.attempt.owner), default=None)

    def _may_join(self, photo: Prepared) -> bool:
        if not self._at_work:
            return True
        may_share = photo.shares_device and all(shares for _, shares in self._at_work.values())
        is_another = photo.attempt.owner not in {owner for owner, _ in self._at_work.values()}
        return may_share and is_another and self._fits_beside()

    def _served_at(self, owner: str) -> int:
        return self._served.index(owner) if owner in self._served else -1
