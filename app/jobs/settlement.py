"""The ends of runs on their way into their rows: written now, or kept until the store takes them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from app.errors import RestoreError

log = logging.getLogger(__name__)

Move = Callable[[], object]


class Settlement:
    """Makes moves of rows. What the store refuses (a full disk, say) is kept for `retry`. Usable from any thread."""

    def __init__(self) -> None:
        self._unsettled: list[tuple[str, tuple[Move, ...]]] = []
        self._lock = threading.Lock()

    def settle(self, token: str, *moves: Move) -> None:
        """Make the first move of a run's row now, or keep it: a run never leaves its row in the middle.

        A move that the store can never take (nobody expected why) gives way to the next one.
        """
        for number, move in enumerate(moves):
            try:
                move()
            except RestoreError as error:
                log.error("the end of a run could not be written yet: %s", error.detail)
                with self._lock:
                    self._unsettled.append((token, moves[number:]))
            except Exception:
                log.exception("the end of a run could not be written as it is")
                continue
            return

    def retry(self) -> int:
        """Try again what was kept; returns how much still is."""
        with self._lock:
            waiting, self._unsettled = self._unsettled, []
        for token, moves in waiting:
            self.settle(token, *moves)
        return len(self._unsettled)

    def tokens(self) -> set[str]:
        """The claims of the runs whose end is kept."""
        with self._lock:
            return {token for token, _ in self._unsettled}
