"""Waiting for a job inside a request: `Prefer: wait=SECONDS` (RFC 7240).

It knows the events and the store; a client that hangs up ends its wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request

from app.api.dependencies import get_context, get_owner
from app.api.following import SignInEnd, follow, sign_in_end
from app.api.hang_ups import disconnected
from app.errors import Unauthorized
from app.store import Job

LONGEST_WAIT_SECONDS = 300
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?:$|[,;])", re.IGNORECASE)


def preferred_wait(headers: Headers) -> int | None:
    """The seconds of `Prefer: wait`, at most 300, or None."""
    found = _WAIT.search(", ".join(headers.getlist("prefer")))
    return min(int(found[1]), LONGEST_WAIT_SECONDS) if found else None


async def wait_for_end(request: Request, job_id: str, seconds: float) -> Job | None:
    """The job once it has ended, None when it did not in time, or not before the caller's token ended.

    Raises:
        ClientDisconnect: nobody waits for the answer any more.
        NotFound: the job was removed meanwhile.
        Unauthorized: the request's session was signed out meanwhile.
    """
    gone = asyncio.create_task(disconnected(request))
    try:
        async with asyncio.timeout(seconds):
            return await _ended(request, job_id, gone)
    except TimeoutError:
        return None
    finally:
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone


async def _ended(request: Request, job_id: str, gone: asyncio.Task[None]) -> Job | None:
    """The ended job; None when the service stops or the caller's token ends first."""
    context, owner = get_context(request), get_owner(request)
    with follow(context, request, job_id) as changed:
        while True:
            changed.clear()
            end = sign_in_end(context, request)
            if end is SignInEnd.SIGNED_OUT:
                raise Unauthorized("key_required", "The session was signed out; sign in again.")
            if end is not None:
                return None  # the job is accepted all the same, and a refusal would have it sent once more
            job = await context.run(context.store.job, owner, job_id)
            if job.status.ended:
                return job
            if context.job_events.closing:
                return None
            next_change = asyncio.create_task(changed.wait())
            try:
                await asyncio.wait((next_change, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                next_change.cancel()
            if gone.done():
                raise ClientDisconnect
