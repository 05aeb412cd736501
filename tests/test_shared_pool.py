"""The pools of the API by themselves: shares of owners, calls that are joined, answers that are kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from app.api.shared_calls import KeptAnswers, SharedCalls
from app.api.shared_pool import SharedPool
from tests.harness import until


class Work:
    """Calls that wait until they are let go, and how many run."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.gate.wait(20)
        with self._lock:
            self.running -= 1
        return "done"


async def settle(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(until, condition)


def test_an_owner_has_its_share_and_no_other_waits_for_it() -> None:
    async def main() -> None:
        pool, work = SharedPool("test", threads=3, share=2), Work()
        calls = [asyncio.create_task(pool.run("greedy", work)) for _ in range(20)]
        await settle(lambda: work.running == 2)
        assert await asyncio.wait_for(pool.run("modest", lambda: "at once"), 5) == "at once"
        work.gate.set()
        assert await asyncio.gather(*calls) == ["done"] * 20
        assert work.most == 2
        pool.shutdown()

    asyncio.run(main())


def test_a_caller_that_left_still_counts_until_its_thread_is_free() -> None:
    async def main() -> None:
        pool, work = SharedPool("test", threads=3, share=1), Work()
        for _ in range(5):
            call = asyncio.create_task(pool.run("impatient", work))
            await settle(lambda: work.running == 1)
            call.cancel()
            await asyncio.wait([call])
        assert work.running == 1
        work.gate.set()
        assert await pool.run("impatient", lambda: "free again") == "free again"
        assert work.most == 1
        pool.shutdown()

    asyncio.run(main())


def test_an_error_comes_back_and_frees_the_place() -> None:
    async def main() -> None:
        pool = SharedPool("test", threads=1, share=1)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await pool.run("a", lambda: 1 / 0)
        pool.shutdown()

    asyncio.run(main())


def counting(made: list[int], gate: asyncio.Event) -> Callable[[], Awaitable[bytes]]:
    async def make() -> bytes:
        made.append(1)
        await gate.wait()
        return b"x" * 10

    return make


def test_calls_for_the_same_are_joined_and_their_answer_is_kept() -> None:
    async def main() -> None:
        made, gate, answers = list[int](), asyncio.Event(), KeptAnswers(most_bytes=25)
        calls = [asyncio.create_task(answers.get("a", counting(made, gate))) for _ in range(30)]
        await settle(lambda: bool(made))
        calls[0].cancel()
        gate.set()
        assert await asyncio.gather(*calls[1:]) == [b"x" * 10] * 29
        assert await answers.get("a", counting(made, gate)) == b"x" * 10
        assert len(made) == 1
        for key in ("b", "a", "c"):  # two have room, and of these "b" was used longest ago
            await answers.get(key, counting(made, gate))
        assert len(made) == 3
        await answers.get("a", counting(made, gate))
        assert len(made) == 3
        await answers.get("b", counting(made, gate))
        assert len(made) == 4

    asyncio.run(main())


def test_kept_answers_go_with_what_they_were_made_of_and_with_age() -> None:
    async def main() -> None:
        now, made, gate = [0.0], list[int](), asyncio.Event()
        answers = KeptAnswers(kept_seconds=60, clock=lambda: now[0])
        gate.set()
        gone, other = "a" * 32, "b" * 32
        keys = [(f"{gone}.png", 640), (f"{gone}-2.png", 0, 90), (f"{other}.png", 640)]
        for key in keys:
            await answers.get(key, counting(made, gate))
        answers.forget({gone})
        for key in keys:
            await answers.get(key, counting(made, gate))
        assert len(made) == 5
        now[0] = 59.0
        answers.drop_old()
        await answers.get(keys[2], counting(made, gate))
        assert len(made) == 5
        now[0] = 60.0
        answers.drop_old()
        await answers.get(keys[2], counting(made, gate))
        assert len(made) == 6

    asyncio.run(main())


def test_a_call_that_failed_is_made_again() -> None:
    async def main() -> None:
        calls: SharedCalls[int] = SharedCalls()

        async def fail() -> int:
            raise ZeroDivisionError

        async def work() -> int:
            return 7

        with pytest.raises(ZeroDivisionError):
            await calls.run("a", fail)
        assert await calls.run("a", work) == 7

    asyncio.run(main())
