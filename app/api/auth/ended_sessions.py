"""Sign-outs of other servers: read from the rows that all share, so that a session ends on every one of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from app.api.auth.sessions import Sessions
from app.errors import RestoreError
from app.threads import SupervisedThread

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 5.0  # so long at most a cookie lives on elsewhere


class EndedSessions:
    """Has sessions forgotten that were ended elsewhere; `read` gives the ids of all that ended before their time."""

    def __init__(
        self,
        sessions: Sessions,
        read: Callable[[], set[str]],
        on_death: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._sessions, self._read = sessions, read
        self._thread = SupervisedThread("ended-sessions", self.loop, on_death=on_death)

    def tick(self) -> None:
        """Read once."""
        self._sessions.forget(self._read())

    def loop(self, stop: threading.Event) -> None:
        """Read again and again, until `stop`."""
        while not stop.wait(INTERVAL_SECONDS):
            try:
                self.tick()
            except RestoreError as error:
                log.warning("sessions that ended on other servers could not be read: %s", error.detail)

    def start(self) -> None:
        """Read at once, and from then on in a thread."""
        self.tick()
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._thread.stop()
