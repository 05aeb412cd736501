"""Events inside one process: listeners are called in the thread that publishes."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterable

from app.events.protocol import OnChange, Unsubscribe

log = logging.getLogger(__name__)


class LocalEvents:
    """Calls its listeners one after another; see `Events`."""

    def __init__(self) -> None:
        self._listeners: dict[int, OnChange] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count()

    def publish(self, job_ids: Iterable[str]) -> None:
        """See `Events`."""
        with self._lock:
            listeners = list(self._listeners.values())
        for job_id in job_ids:
            for listener in listeners:
                try:
                    listener(job_id)
                except Exception:  # a listener's fault must not hide a committed change
                    log.exception("a listener of job changes failed")

    def subscribe(self, callback: OnChange) -> Unsubscribe:
        """See `Events`."""
        with self._lock:
            number = next(self._numbers)
            self._listeners[number] = callback

        def unsubscribe() -> None:
            with self._lock:
                self._listeners.pop(number, None)

        return unsubscribe

    def follow(self, job_id: str) -> Unsubscribe:
        """See `Events`; nobody but this process changes jobs."""
        return lambda: None

    def has_listeners(self) -> bool:
        """See `Events`."""
        return bool(self._listeners)
