"""Waits for the server that keeps the files to come back, so that a short outage costs no finished work.

The time is bounded, and between two tries the run gives signs of life and hears whether it is still wanted. Folders
never need it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from app.errors import Unavailable

log = logging.getLogger(__name__)

OUTAGE = "storage_unavailable"
PATIENCE_SECONDS = 120.0  # from the first failure on; also the longest wait of a photo that then fails
INTERVAL_SECONDS = 2.0

Answer = TypeVar("Answer")


class StorageRetries:
    """Repeats calls of the storage. `clock` is monotonic seconds, `pause` waits."""

    def __init__(self, clock: Callable[[], float], pause: Callable[[float], None]) -> None:
        self._clock, self._pause = clock, pause

    def __call__(self, call: Callable[[], Answer], still_wanted: Callable[[], bool]) -> Answer:
        """The answer of `call`, made again while its server is away and `still_wanted` says True; else its error."""
        ends_at: float | None = None
        while True:
            try:
                return call()
            except Unavailable as error:
                now = self._clock()
                ends_at = now + PATIENCE_SECONDS if ends_at is None else ends_at
                if error.code != OUTAGE or now >= ends_at or not still_wanted():
                    raise
                log.warning("the photos' storage is away; the run waits for it")
                self._pause(INTERVAL_SECONDS)
