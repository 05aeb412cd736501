"""Work that several requests ask for at once and that is done once: whoever comes while it runs joins it.

`SharedCalls` joins; `KeptAnswers` also keeps what was made, the most recently used first.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")

KEPT_BYTES = 64 * 1024 * 1024
KEPT_SECONDS = 3600.0
ID_CHARACTERS = 32


class SharedCalls(Generic[Answer]):
    """Runs one call a key at a time. Use it from one event loop."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[Answer]] = {}

    async def run(self, key: Hashable, start: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer of the call that runs for this key, started now if none does; a caller may leave."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.ensure_future(_awaited(start))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return await asyncio.shield(task)


class KeptAnswers:
    """Bytes by key, made once and kept until others that were used later take the room, or for so many seconds.

    Use it from one event loop.
    """

    def __init__(
        self,
        most_bytes: int = KEPT_BYTES,
        *,
        kept_seconds: float = KEPT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_bytes, self._kept_seconds, self._clock = most_bytes, kept_seconds, clock
        self._calls: SharedCalls[bytes] = SharedCalls()
        self._kept: OrderedDict[Hashable, tuple[bytes, float]] = OrderedDict()
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    async def get(self, key: Hashable, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """What is kept for this key, made now if nothing is."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        made = await self._calls.run(key, make)
        self._keep(key, made)
        return made

    def forget(self, ids: Collection[str]) -> None:
        """Drop what was made of these photos and results, by the ids that their names begin with."""
        self._drop([key for key in self._kept if is_of(key, ids)])

    def drop_old(self) -> None:
        """Drop what was made too long ago, and look again later."""
        limit = self._clock() - self._kept_seconds
        self._drop([key for key, (_, made_at) in self._kept.items() if made_at <= limit])
        self._timer = None
        self._watch()

    def _keep(self, key: Hashable, made: bytes) -> None:
        if key not in self._kept and len(made) <= self._most_bytes:
            self._kept[key] = (made, self._clock())
            self._bytes += len(made)
            self._watch()
        while self._bytes > self._most_bytes:
            self._drop([next(iter(self._kept))])

    def _drop(self, keys: Iterable[Hashable]) -> None:
        for key in keys:
            self._bytes -= len(self._kept.pop(key)[0])

    def _watch(self) -> None:
        if self._kept and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._kept_seconds, self.drop_old)


def is_of(key: Hashable, ids: Collection[str]) -> bool:
    """Whether a key begins with the name of one of these photos or results, whose own names begin with the ids."""
    name = key[0] if isinstance(key, tuple) else key
    return isinstance(name, str) and name[:ID_CHARACTERS] in ids


async def _awaited(start: Callable[[], Awaitable[Answer]]) -> Answer:
    return await start()
