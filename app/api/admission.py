"""Whether a new photo can be taken at all, answered before a byte of its body is read.

The exact count stands in the store's transaction; this is the cheap look ahead that keeps a flood off the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from app.api.shared_calls import SharedCalls
from app.errors import RestoreError, Unavailable
from app.storage import Storage

log = logging.getLogger(__name__)

COUNT_KEPT_SECONDS = 0.25
_DRAINING_RETRY_SECONDS = 30
_FULL_DISK_RETRY_SECONDS = 60
_FULL_QUEUE_RETRY_SECONDS = 5


class Admission:
    """Says no early, by a count that is at most `COUNT_KEPT_SECONDS` old. Use it from the event loop."""

    def __init__(
        self, storage: Storage, queue_limit: int, count_queued: Callable[[], Awaitable[int]], clock: Callable[[], float]
    ) -> None:
        self.draining = False
        self._storage, self._queue_limit = storage, queue_limit
        self._count_queued, self._clock = count_queued, clock
        self._queued = 0
        self._counted_at = float("-inf")
        self._counts: SharedCalls[None] = SharedCalls()
        self._retry_seconds = _FULL_QUEUE_RETRY_SECONDS

    async def check(self) -> None:
        """Raises `Unavailable`: `draining`, `storage_full` or `queue_full`, each with a time to try again."""
        if self.draining:
            raise Unavailable(
                "draining",
                "The service is shutting down and takes no new photos; try again in a moment.",
                retry_after_seconds=_DRAINING_RETRY_SECONDS,
            )
        if not self._storage.free_disk_ok():
            raise Unavailable(
                "storage_full",
                "There is too little free disk space for new photos; try again later or ask the operator to free some.",
                retry_after_seconds=_FULL_DISK_RETRY_SECONDS,
            )
        if self._clock() - self._counted_at > COUNT_KEPT_SECONDS:
            await self._counts.run("queued", self._recount)
        if self._queued >= self._queue_limit:
            raise Unavailable(
                "queue_full",
                f"The queue is full ({self._queue_limit} photos wait); "
                f"send this again in about {self._retry_seconds} seconds.",
                retry_after_seconds=self._retry_seconds,
            )

    def update_retry_after(self, error: RestoreError) -> None:
        """Take over the store's better estimate of when a full queue has room again."""
        if error.code == "queue_full" and error.retry_after_seconds is not None:
            self._retry_seconds = error.retry_after_seconds

    async def _recount(self) -> None:
        try:
            self._queued = await self._count_queued()
        except RestoreError as error:  # the database is busy: the store itself will say so to whoever submits
            log.warning("waiting photos could not be counted: %s", error.detail)
            self._queued = 0
        self._counted_at = self._clock()
