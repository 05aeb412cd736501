"""Server-sent events of a job, for those who cannot use WebSockets: the same messages over plain HTTP.

Each event's id names the state, on whatever server it was read, so a client that comes back with `Last-Event-ID` is
not told again what it knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.sse import format_sse_event
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.api import schemas
from app.api.dependencies import AppContext, get_context, get_owner
from app.api.following import follow, sign_in_end
from app.api.live_state import REST_SECONDS, LiveState, read_state
from app.api.routes.jobs import JobId
from app.errors import NotFound, TooManyRequests

router = APIRouter()

KEEP_ALIVE_SECONDS = 15.0
RECONNECT_MILLISECONDS = 2000
_FULL_RETRY_SECONDS = 15


class _EventStream(StreamingResponse):
    """Events for as long as the client stays; `place` is given back however it ends."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], place: contextlib.ExitStack) -> None:
        super().__init__(events, headers={"X-Accel-Buffering": "no"})  # no proxy shall wait for a full buffer
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        with self._place:
            await super().__call__(scope, receive, send)


_EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["message", "end"]},
        "id": {"type": "string"},
        "data": {"type": "string", "description": "the state as JSON, or why the stream ends"},
        "retry": {"type": "integer"},
    },
}


@router.get(
    "/api/v1/jobs/{job_id}/events",
    tags=["jobs"],
    summary="A job's state as server-sent events",
    response_class=StreamingResponse,
    responses={
        200: {"content": {_EventStream.media_type: {"schema": _EVENT}}},
        204: {"description": "the job has ended, and the client knows"},
        **schemas.problems(401, 404, 429),
    },
)
async def live_events(request: Request, job_id: JobId) -> Response:
    """The state at once and at each change, as the WebSocket sends it, then an event `end` that says why.

    A client that comes back with the id of the last state gets 204, after which an `EventSource` stays away.
    """
    context, owner = get_context(request), get_owner(request)
    state = await context.run(read_state, context, owner, job_id)
    known = request.headers.get("last-event-id", "")
    if state.ended and known == _event_id(state):
        return Response(status_code=204)
    with contextlib.ExitStack() as stack:
        if not stack.enter_context(context.connections.acquire(owner)):
            raise TooManyRequests(
                "too_many_connections",
                "Too many connections follow jobs already; close some and try again.",
                retry_after_seconds=_FULL_RETRY_SECONDS,
            )
        return _EventStream(_events(request, context, owner, job_id, known), stack.pop_all())


async def _events(request: Request, context: AppContext, owner: str, job_id: str, known: str) -> AsyncIterator[bytes]:
    """Only the newest state is sent: a slow reader skips what it missed."""
    yield format_sse_event(retry=RECONNECT_MILLISECONDS)
    with follow(context, request, job_id) as changed:
        while True:
            changed.clear()
            if (end := sign_in_end(context, request)) is not None:
                yield _end(end)
                return
            try:
                state = await context.run(read_state, context, owner, job_id)
            except NotFound:
                yield _end("removed")
                return
            if (event_id := _event_id(state)) != known:
                yield format_sse_event(data_str=state.text, id=event_id)
                known = event_id
            if state.ended:
                yield _end("ended")
                return
            if context.job_events.closing:  # without an `end`, so that the client comes back
                return
            await asyncio.sleep(REST_SECONDS)
            while not await _changes(changed):
                yield format_sse_event(comment="still here")


async def _changes(changed: asyncio.Event) -> bool:
    """Whether something happened before it was time for a sign of life."""
    try:
        async with asyncio.timeout(KEEP_ALIVE_SECONDS):
            return await changed.wait()
    except TimeoutError:
        return False


def _event_id(state: LiveState) -> str:
    return hashlib.sha256(state.text.encode()).hexdigest()[:16]


def _end(reason: str) -> bytes:
    return format_sse_event(event="end", data_str=json.dumps({"reason": reason}))
