"""Long calls that are made one at a time, for their owners in turn, and not at all once nobody waits for them any more.

So nobody waits behind all that another owner asked for, but behind the call that runs and one of each owner, and what
was asked for and left costs nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


@dataclasses.dataclass(eq=False)
class _Call(Generic[Answer]):
    """One call, and how many wait for its answer. `context` is that of the first of them: what log lines are about."""

    owner: str
    key: Hashable
    start: Callable[[], Awaitable[Answer]]
    answer: asyncio.Future[Answer]
    context: contextvars.Context
    callers: int = 0


class FairCalls(Generic[Answer]):
    """Runs one call at a time; whoever asks for a key that waits or runs joins it. Use it from one event loop."""

    def __init__(self) -> None:
        self._calls: dict[Hashable, _Call[Answer]] = {}
        self._lines: OrderedDict[str, dict[Hashable, _Call[Answer]]] = (
            OrderedDict()
        )  # by owner; first whose turn is next
        self._running: asyncio.Task[Answer] | None = None

    async def run(self, owner: str, key: Hashable, start: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer of the call for this key. A caller that is cancelled leaves; what has begun goes on without it."""
        call = self._calls.get(key) or self._enter(owner, key, start)
        call.callers += 1
        try:
            return await asyncio.shield(call.answer)
        finally:
            call.callers -= 1
            if not call.callers:
                self._drop_unless_begun(call)

    def _enter(self, owner: str, key: Hashable, start: Callable[[], Awaitable[Answer]]) -> _Call[Answer]:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        call = self._calls[key] = _Call(owner, key, start, answer, contextvars.copy_context())
        self._lines.setdefault(owner, {})[key] = call
        self._begin_next()
        return call

    def _drop_unless_begun(self, call: _Call[Answer]) -> None:
        line = self._lines.get(call.owner, {})
        if line.get(call.key) is not call:
            return
        del line[call.key], self._calls[call.key]
        if not line:
            del self._lines[call.owner]
        call.answer.cancel()

    def _begin_next(self) -> None:
        """Begin the first call of the owner whose turn it is; its others wait behind one of each other owner."""
        if self._running is not None or not self._lines:
            return
        owner, line = self._lines.popitem(last=False)
        call = line.pop(next(iter(line)))
        if line:
            self._lines[owner] = line
        self._running = asyncio.get_running_loop().create_task(_awaited(call.start), context=call.context)
        self._running.add_done_callback(lambda task: self._end(call, task))

    def _end(self, call: _Call[Answer], task: asyncio.Task[Answer]) -> None:
        self._running = None
        del self._calls[call.key]
        if task.cancelled():
            call.answer.cancel()
        elif (error := task.exception()) is not None:
            call.answer.set_exception(error)
            call.answer.exception()  # seen, so that nothing is logged where all callers have left
        else:
            call.answer.set_result(task.result())
        self._begin_next()


async def _awaited(start: Callable[[], Awaitable[Answer]]) -> Answer:
    return await start()
