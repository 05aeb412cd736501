"""How often a client may ask, and how many wrong keys an address may try.

Where it is counted, in this process or for all servers, is the business of `rate_windows`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import time

from limits import RateLimitItem, RateLimitItemPerMinute, parse

from app.api.auth.rate_windows import MemoryWindows, Windows
from app.errors import TooManyRequests

WRONG_KEYS_PER_MINUTE = 10
PREVIEWS_PER_MINUTE = 20
TILES_PER_MINUTE = 6000  # a viewer asks for dozens a second while somebody moves a picture; each is one small read


@dataclasses.dataclass(frozen=True)
class RateWindow:
    """Where a client stands in the present window: requests in all and left, seconds until it ends, its length."""

    limit: int
    left: int
    resets_in_seconds: int
    window_seconds: int
    exceeded: bool = False

    def check(self) -> None:
        """Raises `TooManyRequests` `rate_limited` with the seconds until the window ends."""
        if self.exceeded:
            raise TooManyRequests(
                "rate_limited",
                f"More than {self.limit} requests in {self.window_seconds} seconds; "
                f"try again in {self.resets_in_seconds} seconds.",
                retry_after_seconds=self.resets_in_seconds,
            )


class RateLimits:
    """Limits such as `600/minute`; `0` means none. Use it from one event loop."""

    def __init__(self, rate_limit: str, windows: Windows | None = None) -> None:
        self._limit = parse_rate(rate_limit)
        self._tiles = RateLimitItemPerMinute(TILES_PER_MINUTE) if self._limit else None
        self._previews = RateLimitItemPerMinute(PREVIEWS_PER_MINUTE)
        self._wrong_keys = RateLimitItemPerMinute(WRONG_KEYS_PER_MINUTE)
        self.windows: Windows = windows or MemoryWindows()

    async def hit(self, client: str) -> RateWindow | None:
        """Count one request, and say how many are left; None where there is no limit."""
        return None if self._limit is None else await self._hit(self._limit, "asked", client)

    async def hit_tile(self, client: str) -> RateWindow | None:
        """Count one tile: they have a window of their own, so that looking at a picture leaves the other one alone."""
        return None if self._tiles is None else await self._hit(self._tiles, "tile", client)

    async def hit_preview(self, owner: str) -> RateWindow:
        """Count one preview of an owner."""
        return await self._hit(self._previews, "preview", owner)

    async def _hit(self, limit: RateLimitItem, what: str, client: str) -> RateWindow:
        taken = await self.windows.hit(limit, what, client)
        resets_at, left = await self.windows.look(limit, what, client)
        left = max(0, left) if taken else 0
        return RateWindow(limit.amount, left, _seconds_until(resets_at), limit.get_expiry(), exceeded=not taken)

    async def count_wrong_key(self, address: str) -> None:
        """Remember one wrong key. Raises `TooManyRequests` `too_many_wrong_keys` once an address tried too many."""
        if not await self.windows.hit(self._wrong_keys, "wrong", address):
            resets_at, _ = await self.windows.look(self._wrong_keys, "wrong", address)
            wait = _seconds_until(resets_at)
            raise TooManyRequests(
                "too_many_wrong_keys",
                f"Too many wrong keys came from your address; try again in {wait} seconds.",
                retry_after_seconds=wait,
            )


def _seconds_until(moment: float) -> int:
    # The limits library counts on the wall clock, so the rest of its window is read off the same one.
    return max(1, math.ceil(moment - time.time()))


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
