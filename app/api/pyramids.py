"""The pyramids of large pictures, in nameless files: kept until nobody has looked for long or others need the room. No
other process can open them, and a crash leaves nothing behind.

Those of results that were restored in this process come with the result (`app.jobs.tile_cutting`). All others are made
for the first look, one at a time and for their owners in turn, so that however many large pictures are opened, memory
and the other requests are spared.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Hashable

from app.api.fair_calls import FairCalls
from app.api.shared_calls import is_of
from app.images import Decoder, Pyramid

KEPT_BYTES = 1024**3
IDLE_SECONDS = 3600.0  # as long as a result is kept, unless the settings say otherwise


class Pyramids:
    """Use it from one event loop. `decoder` makes the pyramids, apart from those that other requests wait for."""

    def __init__(
        self,
        decoder: Decoder,
        *,
        most_bytes: int = KEPT_BYTES,
        idle_seconds: float = IDLE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.decoder = decoder
        self._most_bytes, self._idle_seconds, self._clock = most_bytes, idle_seconds, clock
        self._calls: FairCalls[Pyramid] = FairCalls()
        self._kept: OrderedDict[Hashable, tuple[Pyramid, float]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Take what is handed over from now on, from inside the running loop."""
        self._loop = asyncio.get_running_loop()

    def hand_over(self, key: Hashable, pyramid: Pyramid) -> None:
        """Keep a pyramid that was made elsewhere, from any thread; requests that come later find it."""
        try:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._adopt, key, pyramid)
        except (AssertionError, RuntimeError):  # not started, or stopped meanwhile
            pyramid.close()

    def kept(self, key: Hashable) -> Pyramid | None:
        """The pyramid kept for this key, if one is; that counts as a look."""
        found = self._kept.pop(key, None)
        if found is None:
            return None
        self._keep(key, found[0])
        return found[0]

    async def get(self, owner: str, key: Hashable, make: Callable[[], Awaitable[Pyramid]]) -> Pyramid:
        """The pyramid kept for this key, made in the owner's turn if none is. It may be closed while others are made.

        Once all callers for a key were cancelled, it is made only if that has begun.
        """
        return self.kept(key) or await self._calls.run(owner, key, lambda: self._made(key, make))

    def forget(self, ids: Collection[str]) -> None:
        """Close those of these photos and results, by the ids that their names begin with."""
        for key in [key for key in self._kept if is_of(key, ids)]:
            self._kept.pop(key)[0].close()

    def drop_idle(self) -> None:
        """Close what nobody looked at for the idle time, and look again later."""
        limit = self._clock() - self._idle_seconds
        for key in [key for key, (_, used_at) in self._kept.items() if used_at <= limit]:
            self._kept.pop(key)[0].close()
        self._timer = None
        self._watch()

    async def close(self) -> None:
        """Close all, and the decoder; what is handed over later is closed at once."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
        for pyramid, _ in self._kept.values():
            pyramid.close()
        self._kept.clear()
        await asyncio.to_thread(self.decoder.close)

    async def _made(self, key: Hashable, make: Callable[[], Awaitable[Pyramid]]) -> Pyramid:
        found = self.kept(key)  # handed over while this waited for its turn
        if found is not None:
            return found
        pyramid = await make()
        self._keep(key, pyramid)  # here: whoever asked may have left meanwhile
        return pyramid

    def _adopt(self, key: Hashable, pyramid: Pyramid) -> None:
        if self._loop is None:
            pyramid.close()
            return
        before = self._kept.pop(key, None)  # a run that was made again
        if before is not None:
            before[0].close()
        self._keep(key, pyramid)

    def _keep(self, key: Hashable, pyramid: Pyramid) -> None:
        """As the newest; the oldest go until the rest takes no more than it may."""
        self._kept[key] = (pyramid, self._clock())
        self._watch()
        while len(self._kept) > 1 and sum(pyramid.bytes for pyramid, _ in self._kept.values()) > self._most_bytes:
            self._kept.popitem(last=False)[1][0].close()

    def _watch(self) -> None:
        if self._kept and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._idle_seconds, self.drop_idle)
