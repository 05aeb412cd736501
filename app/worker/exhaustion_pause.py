"""How long a lane waits when this process lacks descriptors or memory: the same attempt would fail in the same way."""

from __future__ import annotations

from collections.abc import Callable

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 60.0


class ExhaustionPause:
    """Of one thread of a lane. `exhausted_runs` says how many runs have failed so."""

    def __init__(self, exhausted_runs: Callable[[], int]) -> None:
        self._exhausted_runs, self._seen, self._seconds = exhausted_runs, exhausted_runs(), 0.0

    def next_seconds(self) -> float:
        """How long to wait before the next attempt: twice as long while runs fail so, 0 once none has."""
        seen, self._seen = self._seen, self._exhausted_runs()
        grown = min(LONGEST_SECONDS, max(FIRST_SECONDS, 2 * self._seconds))
        self._seconds = grown if self._seen != seen else 0.0
        return self._seconds
