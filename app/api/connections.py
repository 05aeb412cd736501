"""How many WebSockets, uploads under way, previews or archives are held in all and by each owner."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

MOST_CONNECTIONS = 256
MOST_OF_ONE_OWNER = 16


class Connections:
    """Counts the live connections, in all and of each owner. Use it from the event loop."""

    def __init__(self, most: int = MOST_CONNECTIONS, most_of_one: int = MOST_OF_ONE_OWNER) -> None:
        self._most, self._most_of_one = most, most_of_one
        self._held: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """How many are held now."""
        return self._held.total()

    def held_by(self, owner: str) -> int:
        """How many one owner holds now."""
        return self._held[owner]

    def has_place(self, owner: str) -> bool:
        """Whether there is one left for this owner."""
        return self._held.total() < self._most and self._held[owner] < self._most_of_one

    @contextlib.contextmanager
    def acquire(self, owner: str) -> Iterator[bool]:
        """Take a place while the block runs; gives False when there is none left."""
        if not self.has_place(owner):
            yield False
            return
        self._held[owner] += 1
        try:
            yield True
        finally:
            self._held[owner] -= 1
            self._held += Counter()  # drops owners at zero
