"""Following a job inside a request that stays open: for as long as whoever asked is signed in, and no longer.

Who may come was decided when the request came; who stays is asked again at each change, and when a token ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Callable, Iterator

from starlette.requests import HTTPConnection

from app.api.auth.caller import CLOCK_LEEWAY_SECONDS
from app.api.dependencies import AppContext

LONGEST_SLEEP_SECONDS = 60.0  # then the clock is read again: it may be set, and a machine may sleep


class SignInEnd(enum.StrEnum):
    """Why a caller is signed in no more, as streams and WebSockets say it."""

    SIGNED_OUT = "signed_out"
    EXPIRED = "token_expired"


@contextlib.contextmanager
def follow(context: AppContext, connection: HTTPConnection, job_id: str) -> Iterator[asyncio.Event]:
    """An event that is set at each change of the job and when the token of the context's caller ends.

    Clear it, ask `sign_in_end`, read the row, then wait.
    """
    moment = _last_moment(context, connection)
    with context.job_events.watch(job_id) as woken, contextlib.ExitStack() as stack:
        if moment is not None:
            stack.callback(_Alarm(woken, moment, context.wall).cancel)
        yield woken


def sign_in_end(context: AppContext, connection: HTTPConnection) -> SignInEnd | None:
    """Why whoever made this request may not be answered any more, or None: its session or its token has ended since."""
    session_id = connection.scope["state"]["session_id"]
    if session_id is not None and context.authentication.sessions.has_ended(session_id):
        return SignInEnd.SIGNED_OUT
    moment = _last_moment(context, connection)
    return None if moment is None or context.wall() < moment else SignInEnd.EXPIRED


def _last_moment(context: AppContext, connection: HTTPConnection) -> float | None:
    """Epoch seconds from which a new request like this one would be refused; None for a key."""
    ends_at = context.caller.expires_at
    if ends_at is None or connection.scope["state"]["session_id"] is not None:
        return ends_at
    return ends_at + CLOCK_LEEWAY_SECONDS  # as the token itself is judged; a session is our own, and ends to the second


class _Alarm:
    """Sets an event once a moment (epoch seconds) has come. Use it from the event loop."""

    def __init__(self, event: asyncio.Event, moment: float, wall: Callable[[], float]) -> None:
        self._event, self._moment, self._wall = event, moment, wall
        self._timer: asyncio.TimerHandle | None = None
        self._look()

    def cancel(self) -> None:
        """Set nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        left = self._moment - self._wall()
        if left <= 0:
            self._event.set()
        else:
            self._timer = asyncio.get_running_loop().call_later(min(left, LONGEST_SLEEP_SECONDS), self._look)
