"""The submissions with an Idempotency-Key that this process is taking just now, so that somebody can renew them.

A large batch takes minutes: its photos are judged, scanned and stored one by one. Meanwhile its client may have given
up and sent it again, and must not be believed the only one.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Iterator

from app.store import HeldKey


class KeysInWork:
    """A key is held by the thread that takes its submission. Usable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: collections.Counter[HeldKey] = collections.Counter()

    @contextlib.contextmanager
    def holding(self, held: HeldKey) -> Iterator[None]:
        """Hold a key as long as the block lasts."""
        with self._lock:
            self._held[held] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held -= collections.Counter((held,))  # leaves no zeros behind

    def held(self) -> list[HeldKey]:
        """The keys that are held now."""
        with self._lock:
            return list(self._held)
