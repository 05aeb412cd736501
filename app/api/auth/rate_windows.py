"""Where requests are counted: in this process, or in Redis for all servers together.

A Redis that is away locks nobody out and lets nobody in unchecked: meanwhile each server counts by itself. redis is
imported only where it is set up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from limits import RateLimitItem
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError

from app.health_reasons import HealthReason
from app.notices import say

log = logging.getLogger(__name__)

AWAY_SECONDS = 5.0  # after a failure, for which nobody waits for Redis
_TIMEOUT_SECONDS = 1.0  # once in an outage, requests wait for it
_CONNECT_TIMEOUT_SECONDS = 2.0  # many connections are opened at once after a start
_MOST_CONNECTIONS = 16


class Windows(Protocol):
    """Counts hits in windows of time. Use it from one event loop."""

    async def hit(self, item: RateLimitItem, *words: str) -> bool:
        """Count one; False, uncounted, when the window of these words is full."""
        ...

    async def look(self, item: RateLimitItem, *words: str) -> tuple[float, int]:
        """When the window ends (epoch seconds), and how many hits are left in it."""
        ...

    def problem(self) -> str | None:
        """What is wrong with the counting now, in one sentence; None when all is well."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


class MemoryWindows:
    """Counts in this process."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    async def hit(self, item: RateLimitItem, *words: str) -> bool:
        """See `Windows`."""
        return await self._limiter.hit(item, *words)

    async def look(self, item: RateLimitItem, *words: str) -> tuple[float, int]:
        """See `Windows`."""
        window = await self._limiter.get_window_stats(item, *words)
        return window.reset_time, window.remaining

    def problem(self) -> str | None:
        """See `Windows`."""
        return None

    async def close(self) -> None:
        """See `Windows`."""


class RedisWindows:
    """Counts in Redis, and in this process while Redis is away. `clock` is monotonic seconds."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        # All waiting is bounded: for a frozen server, for one that is gone, and for a free connection.
        from limits.aio.storage import RedisStorage
        from redis.asyncio import BlockingConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_MOST_CONNECTIONS,
            timeout=_CONNECT_TIMEOUT_SECONDS,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        storage = RedisStorage(
            f"async+{url}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix="neural-image-restore:rates",
            connection_pool=self._pool,  # type: ignore[arg-type]
        )
        self._shared, self._own = FixedWindowRateLimiter(storage), MemoryWindows()
        self._clock = clock
        self._places = asyncio.Semaphore(_MOST_CONNECTIONS)
        self._is_away = False
        self._away_until = -float("inf")

    async def hit(self, item: RateLimitItem, *words: str) -> bool:
        """See `Windows`."""
        async with self._places:  # who waits here sees that those before it had no answer, and does not ask as well
            if self._clock() < self._away_until:
                return await self._own.hit(item, *words)
            try:
                admitted = await self._shared.hit(item, *words)
            except StorageError as error:
                self._failed(error)
                return await self._own.hit(item, *words)
        if self._is_away:
            log.info("Redis counts requests again")
            self._is_away = False
        return admitted

    async def look(self, item: RateLimitItem, *words: str) -> tuple[float, int]:
        """See `Windows`."""
        if not self._is_away:
            try:
                window = await self._shared.get_window_stats(item, *words)
            except StorageError as error:
                self._failed(error)
            else:
                return window.reset_time, window.remaining
        return await self._own.look(item, *words)

    def problem(self) -> str | None:
        """See `Windows`."""
        if not self._is_away:
            return None
        words = "Redis cannot be reached, so each server counts the requests of a client by itself."
        return say(HealthReason.REDIS_AWAY, words)

    async def close(self) -> None:
        """See `Windows`."""
        await self._pool.aclose()

    def _failed(self, error: StorageError) -> None:
        if not self._is_away:  # said once an outage
            log.warning("requests are counted by this server alone, since Redis is away: %s", error.__cause__ or error)
        self._is_away = True
        self._away_until = self._clock() + AWAY_SECONDS
