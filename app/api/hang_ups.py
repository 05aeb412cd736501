"""Clients that hang up while their answer is still being made: they are noticed, and what they waited for is left."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

Answer = TypeVar("Answer")


async def disconnected(request: Request) -> None:
    """Return once the client has hung up; of a request whose body was read, or that has none."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def while_connected(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """What `work` returns, as long as the client stays; else it is cancelled. For requests as in `disconnected`.

    Raises `ClientDisconnect` when the client hung up first.
    """
    working, gone = asyncio.create_task(work), asyncio.create_task(disconnected(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        gone.result()  # raises what came instead, as from a body that is too slow
        raise ClientDisconnect
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)
