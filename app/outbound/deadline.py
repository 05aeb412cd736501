"""The time that one exchange may take in all, and the callback that stops it: every wait is cut into slices."""

from __future__ import annotations

import time
from collections.abc import Callable

from app.errors import Cancelled

SLICE_SECONDS = 0.5  # the longest delay of a cancellation, and the interval of heartbeats
_SHORTEST_SLICE_SECONDS = 0.001


class DeadlineExceeded(Exception):
    """The total time is used up, whatever came in the meantime."""


class Deadline:
    """Total deadline and cancellation of one exchange.

    Args:
        seconds: the time for everything: resolving, connecting, TLS, sending, waiting and reading.
        keep_on: called about twice a second; False stops the exchange.
        clock: monotonic seconds.
    """

    def __init__(
        self, seconds: float, keep_on: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._keep_on = clock, keep_on
        self._ends_at = clock() + seconds
        self._asked_at = float("-inf")

    def check(self) -> None:
        """Raises `DeadlineExceeded` after the deadline, `Cancelled` when the caller does not want it any more."""
        now = self._clock()
        if now >= self._ends_at:
            raise DeadlineExceeded
        if now - self._asked_at >= SLICE_SECONDS:
            self._asked_at = now
            if not self._keep_on():
                raise Cancelled

    def share(self, most_seconds: float = SLICE_SECONDS) -> float:
        """How long a single wait may take now, in seconds; never zero, which would mean not to wait at all."""
        return max(_SHORTEST_SLICE_SECONDS, min(most_seconds, self._ends_at - self._clock()))
