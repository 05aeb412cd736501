"""Waits for the server that keeps the files to come back, or for room on a full disk, so that neither costs a photo.

The time is bounded, and between two tries the run gives signs of life and hears whether it is still wanted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from app.errors import RestoreError, Unavailable

log = logging.getLogger(__name__)

OUTAGE = "storage_unavailable"
FULL_DISK = ("storage_full", "no_space")
PATIENCE_SECONDS = 120.0  # from the first failure on; also the longest wait of a photo that then fails
FULL_DISK_PATIENCE_SECONDS = 15 * 60.0  # somebody has to make room, or results have to expire
INTERVAL_SECONDS = 2.0

Answer = TypeVar("Answer")


class StorageRetries:
    """Repeats calls of the storage. `clock` is monotonic seconds, `pause` waits."""

    def __init__(self, clock: Callable[[], float], pause: Callable[[float], None]) -> None:
        self._clock, self._pause = clock, pause

    def __call__(
        self, call: Callable[[], Answer], still_wanted: Callable[[], bool], *, for_room: bool = True
    ) -> Answer:
        """The answer of `call`, made again while there is hope and `still_wanted` says True; else its error.

        There is hope while the server is away, and, where `for_room`, while the disk is full.
        """
        began_at: float | None = None
        while True:
            try:
                return call()
            except Unavailable as error:
                now = self._clock()
                waited = 0.0 if began_at is None else now - began_at
                if waited >= _patience_seconds(error, for_room=for_room) or not _is_wanted(still_wanted):
                    raise
                if began_at is None:
                    began_at = now
                    log.warning("the run waits for the photos' storage: %s", error.detail)
                self._pause(INTERVAL_SECONDS)


def _is_wanted(still_wanted: Callable[[], bool]) -> bool:
    """Where the database cannot say it now, it will be asked again."""
    try:
        return still_wanted()
    except RestoreError:
        return True


def _patience_seconds(error: Unavailable, *, for_room: bool) -> float:
    """How long to wait in all at such an error; 0: not at all."""
    if error.code == OUTAGE:
        return PATIENCE_SECONDS
    return FULL_DISK_PATIENCE_SECONDS if for_room and error.code in FULL_DISK else 0.0
