"""Work that several requests ask for at once and that is done once: whoever comes while it runs joins it.

`SharedCalls` joins; `KeptAnswers` also keeps what was made, the most recently used first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")

KEPT_BYTES = 64 * 1024 * 1024


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
    """Bytes by key, made once and kept until others that were used later take the room. Use it from one event loop."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._calls: SharedCalls[bytes] = SharedCalls()
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._bytes = 0

    async def get(self, key: Hashable, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """What is kept for this key, made now if nothing is."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        made = await self._calls.run(key, make)
        self._keep(key, made)
        return made

    def _keep(self, key: Hashable, made: bytes) -> None:
        if key not in self._kept and len(made) <= self._most_bytes:
            self._kept[key] = made
            self._bytes += len(made)
        while self._bytes > self._most_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest)


async def _awaited(start: Callable[[], Awaitable[Answer]]) -> Answer:
    return await start()
