"""The body of a request on its way in: counted as it comes, and not waited for without end.

It wraps the ASGI `receive` callable.
"""

from __future__ import annotations

import asyncio
import dataclasses

from starlette.types import Message, Receive, Scope

from app.api.middleware.request_context import close_after_answer
from app.errors import RestoreError, TooLarge

_MEGABYTE = 1024 * 1024


class BodyTooSlow(RestoreError):
    """408: the body did not come in time."""

    status = 408


@dataclasses.dataclass(frozen=True)
class Pace:
    """How slowly a body may come: the longest silence, and after a grace time a least mean speed."""

    silence_seconds: float = 30.0
    grace_seconds: float = 60.0
    least_bytes_per_second: float = 16 * 1024


DEFAULT_PACE = Pace()


class MeteredBody:
    """A `receive` that stops reading once the limit is passed or the sender is too slow.

    Raises `TooLarge` `body_too_large` or `BodyTooSlow` `request_timeout`; both end the connection after the answer.

    Attributes:
        complete: whether the whole body was read.
    """

    def __init__(self, receive: Receive, scope: Scope, limit_bytes: int, pace: Pace) -> None:
        self._receive, self._scope = receive, scope
        self._limit, self._pace = limit_bytes, pace
        self._count = 0
        self.complete = False
        self._clock = asyncio.get_running_loop().time
        self._started = self._clock()

    async def __call__(self) -> Message:
        """The next message; after the whole body only the disconnect follows, and that may take its time."""
        if self.complete:
            return await self._receive()
        message = await self._next_in_time()
        if message["type"] != "http.request":
            return message
        self._count += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        if self._count > self._limit:
            close_after_answer(self._scope)
            raise too_large(self._limit)
        return message

    async def _next_in_time(self) -> Message:
        allowed = self._pace.grace_seconds + self._count / self._pace.least_bytes_per_second
        left = self._started + allowed - self._clock()
        try:
            async with asyncio.timeout(min(self._pace.silence_seconds, max(left, 0.0))):
                return await self._receive()
        except TimeoutError:
            close_after_answer(self._scope)
            raise BodyTooSlow(
                "request_timeout", "The rest of the request did not come in time; send it again over a faster line."
            ) from None


def too_large(limit_bytes: int) -> TooLarge:
    """The error for a body over its limit."""
    words = f"{limit_bytes / _MEGABYTE:.3g} MB" if limit_bytes >= _MEGABYTE else f"{limit_bytes // 1024} KB"
    return TooLarge("body_too_large", f"The request is larger than the {words} accepted here; send less at once.")
