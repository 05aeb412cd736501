"""How often a client may ask, and how many wrong keys an address may try.

Where it is counted, in this process or for all servers, is the business of `rate_windows`.
"""

from __future__ import annotations

import ipaddress
import math
import time

from limits import RateLimitItem, RateLimitItemPerMinute, parse

from app.api.auth.rate_windows import MemoryWindows, Windows
from app.errors import TooManyRequests

WRONG_KEYS_PER_MINUTE = 10


class RateLimits:
    """Limits such as `600/minute`; `0` means none. Use it from one event loop."""

    def __init__(self, rate_limit: str, windows: Windows | None = None) -> None:
        self._limit = parse_rate(rate_limit)
        self._wrong_keys = RateLimitItemPerMinute(WRONG_KEYS_PER_MINUTE)
        self.windows: Windows = windows or MemoryWindows()

    async def hit(self, client: str) -> None:
        """Count one request. Raises `TooManyRequests` `rate_limited` with the seconds until the window ends."""
        if self._limit is not None and not await self.windows.hit(self._limit, "asked", client):
            wait = await self._seconds_left(self._limit, "asked", client)
            raise TooManyRequests(
                "rate_limited",
                f"More than {self._limit.amount} requests in {self._limit.get_expiry()} seconds; "
                f"try again in {wait} seconds.",
                retry_after_seconds=wait,
            )

    async def count_wrong_key(self, address: str) -> None:
        """Remember one wrong key. Raises `TooManyRequests` `too_many_wrong_keys` once an address tried too many."""
        if not await self.windows.hit(self._wrong_keys, "wrong", address):
            wait = await self._seconds_left(self._wrong_keys, "wrong", address)
            raise TooManyRequests(
                "too_many_wrong_keys",
                f"Too many wrong keys came from your address; try again in {wait} seconds.",
                retry_after_seconds=wait,
            )

    async def _seconds_left(self, item: RateLimitItem, *words: str) -> int:
        # The limits library counts on the wall clock, so the rest of its window is read off the same one.
        return max(1, math.ceil(await self.windows.reset_time(item, *words) - time.time()))


def parse_rate(text: str) -> RateLimitItem | None:
    """`600/minute` as an item, None for `0` or nothing. Raises ValueError with a plain sentence."""
    if text.strip() in ("", "0"):
        return None
    try:
        return parse(text)
    except ValueError:
        raise ValueError(f"RATE_LIMIT '{text}' is not like 600/minute, 10/second or 0") from None


def network_of(address: str) -> str:
    """What counts as one address: IPv4 as it is, IPv6 by its /64, which a single client owns whole."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if not isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
