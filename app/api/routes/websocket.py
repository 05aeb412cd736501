"""The WebSocket that sends a job's state at every change, and ends with it.

Only the newest state is sent: a slow reader skips what it missed, and one that does not read at all is let go. Who may
connect was decided by the access control.
"""

from __future__ import annotations

import asyncio
import contextlib

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from app.api.dependencies import AppContext, get_context, get_owner
from app.api.following import follow, sign_in_end
from app.api.live_state import REST_SECONDS, read_state
from app.api.middleware.access_control import UNAUTHORIZED_CLOSE
from app.errors import NotFound

router = APIRouter()

NOT_FOUND_CLOSE = 4404
TOO_MANY_CLOSE = 4429
TALKATIVE_CLOSE = 1008
SLOW_CLOSE = 1013
TRY_AGAIN_CLOSE = 1012
SEND_TIMEOUT_SECONDS = 10.0
MOST_INCOMING_MESSAGES = 50


@router.websocket("/api/v1/jobs/{job_id}/status")
async def live_status(socket: WebSocket, job_id: str) -> None:
    """Send the state at once and at each change; close with 1000 at the end, 4404 for an unknown job."""
    context, owner = get_context(socket), get_owner(socket)
    await socket.accept()
    with context.connections.acquire(owner) as has_place:
        if not has_place:
            await socket.close(TOO_MANY_CLOSE, "too_many_connections")
            return
        listening = asyncio.create_task(_listen(socket))
        sending = asyncio.create_task(_send_updates(context, socket, owner, job_id))
        try:
            done, _ = await asyncio.wait((listening, sending), return_when=asyncio.FIRST_COMPLETED)
            close = sending.result() if sending in done else listening.result()
        finally:
            for task in (listening, sending):
                task.cancel()
            await asyncio.wait((listening, sending))
        if close is not None:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # gone in the same moment
                await socket.close(*close)


async def _listen(socket: WebSocket) -> tuple[int, str] | None:
    """Notice the disconnect. Nothing the client says means anything, and it may not say much."""
    for _ in range(MOST_INCOMING_MESSAGES):
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return None
    return TALKATIVE_CLOSE, "too_many_messages"


async def _send_updates(context: AppContext, socket: WebSocket, owner: str, job_id: str) -> tuple[int, str] | None:
    """Send states until the job ends; gives the close code and its reason, None when the client has gone."""
    sent = ""
    with follow(context, socket, job_id) as changed:
        while True:
            changed.clear()
            if (end := sign_in_end(context, socket)) is not None:
                return UNAUTHORIZED_CLOSE, end
            try:
                state = await context.run(read_state, context, owner, job_id)
            except NotFound as error:
                return (NOT_FOUND_CLOSE, error.code) if not sent else (1000, "removed")
            if state.text != sent:
                try:
                    await asyncio.wait_for(socket.send_text(state.text), SEND_TIMEOUT_SECONDS)
                except TimeoutError:
                    return SLOW_CLOSE, "too_slow"
                except (WebSocketDisconnect, RuntimeError):
                    return None
                sent = state.text
            if state.ended:
                return 1000, "ended"
            if context.job_events.closing:
                return TRY_AGAIN_CLOSE, "draining"
            await asyncio.sleep(REST_SECONDS)
            await changed.wait()
