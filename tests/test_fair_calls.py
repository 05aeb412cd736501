"""Calls that are made one at a time: owners in turn, joined, dropped when everybody has left; and whoever hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from app.api.fair_calls import FairCalls
from app.api.hang_ups import while_connected


class Calls:
    """Calls by key that wait until each is let go, in the order in which they began."""

    def __init__(self) -> None:
        self.fair: FairCalls[str] = FairCalls()
        self.begun: list[str] = []
        self._gates: dict[str, asyncio.Event] = {}

    def ask(self, owner: str, key: str, error: Exception | None = None) -> asyncio.Task[str]:
        """Somebody asks; the call ends with its key, or with the error."""

        async def work() -> str:
            self.begun.append(key)
            await self._gates[key].wait()
            if error is not None:
                raise error
            return key

        self._gates.setdefault(key, asyncio.Event())
        return asyncio.create_task(self.fair.run(owner, key, work))

    async def end(self, key: str, asked: asyncio.Task[str]) -> None:
        """Let a call end, wait for whoever asked, and let the next one begin."""
        self._gates[key].set()
        await asyncio.wait([asked])
        await settled()


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.to_thread(int)


def script(steps: Callable[[Calls], Awaitable[None]]) -> None:
    async def main() -> None:
        await steps(Calls())

    asyncio.run(main())


def test_owners_come_in_turn_and_one_call_at_a_time() -> None:
    async def steps(calls: Calls) -> None:
        greedy = {f"g{number}": calls.ask("greedy", f"g{number}") for number in range(5)}
        await settled()
        modest = {key: calls.ask(owner, key) for owner, key in (("modest", "m0"), ("modest", "m1"), ("late", "l0"))}
        await settled()
        asked = greedy | modest
        for number in range(len(asked)):
            assert len(calls.begun) == number + 1
            await calls.end(calls.begun[-1], asked[calls.begun[-1]])
        assert calls.begun == ["g0", "g1", "m0", "l0", "g2", "m1", "g3", "g4"]
        assert [task.result() for task in asked.values()] == list(asked)

    script(steps)


def test_what_nobody_waits_for_any_more_is_never_begun() -> None:
    async def steps(calls: Calls) -> None:
        first, left, stays = (calls.ask("a", key) for key in ("first", "left", "stays"))
        shared = [calls.ask("a", "shared") for _ in range(2)]
        await settled()
        left.cancel()
        shared[0].cancel()
        await settled()
        again = calls.ask("a", "left")  # behind the others now
        for key, asked in (("first", first), ("stays", stays), ("shared", shared[1]), ("left", again)):
            await settled()
            assert calls.begun[-1] == key
            await calls.end(key, asked)
            assert asked.result() == key
        assert calls.begun == ["first", "stays", "shared", "left"]
        assert left.cancelled()

    script(steps)


def test_what_has_begun_goes_on_without_its_callers_and_others_join_it() -> None:
    async def steps(calls: Calls) -> None:
        first = calls.ask("a", "one")
        await settled()
        first.cancel()
        await settled()
        joined, other = calls.ask("b", "one"), calls.ask("b", "two")
        await settled()
        assert calls.begun == ["one"]
        await calls.end("one", joined)
        assert joined.result() == "one"
        await calls.end("two", other)
        assert calls.begun == ["one", "two"]

    script(steps)


def test_a_call_that_failed_fails_for_all_is_made_again_and_the_next_begins() -> None:
    async def steps(calls: Calls) -> None:
        failing = [calls.ask("a", "one", ZeroDivisionError()) for _ in range(2)]
        other = calls.ask("a", "two")
        await settled()
        await calls.end("one", failing[0])
        for asked in failing:
            with pytest.raises(ZeroDivisionError):
                await asked
        await calls.end("two", other)
        again = calls.ask("a", "one")
        await calls.end("one", again)
        assert again.result() == "one"

    script(steps)


def request_of(receive: Callable[[], Awaitable[Any]]) -> Request:
    return Request({"type": "http", "method": "GET", "headers": []}, receive)


def test_work_ends_with_the_client_that_asked_for_it() -> None:
    async def main() -> None:
        came: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        request, ended = request_of(came.get), asyncio.Event()

        async def endless() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async def quick() -> int:
            return 7

        assert await while_connected(request, quick()) == 7
        waiting = asyncio.create_task(while_connected(request, endless()))
        came.put_nowait({"type": "http.request"})
        await settled()
        assert not waiting.done()
        came.put_nowait({"type": "http.disconnect"})
        with pytest.raises(ClientDisconnect):
            await waiting
        assert ended.is_set()

    asyncio.run(main())


def test_what_is_wrong_with_the_request_itself_is_told() -> None:
    async def main() -> None:
        async def receive() -> None:
            raise TimeoutError("too slow")

        with pytest.raises(TimeoutError, match="too slow"):
            await while_connected(request_of(receive), asyncio.Event().wait())

    asyncio.run(main())
