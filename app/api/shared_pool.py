"""Threads for requests, shared fairly: an owner has a few at a time, and its further calls wait in their order.

So nobody's request waits behind another owner's work, however many that owner sends.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from app.worker.lane import lower_priority

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


class SharedPool:
    """`threads` threads, of which one owner has at most `share` at a time. Use `run` from one event loop."""

    def __init__(self, name: str, threads: int, share: int, prepare: Callable[[], object] | None = None) -> None:
        """`prepare` is called in each new thread."""
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=prepare)
        self._share = share
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._calls: Counter[str] = Counter()

    async def run(
        self, owner: str, function: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Answer:
        """Run a function that waits for disk, database or a child process, off the event loop.

        A caller that is cancelled does not end the function, whose thread counts until it is free.
        """
        context = contextvars.copy_context()  # what log lines and spans are about goes along
        turn = self._turns.setdefault(owner, asyncio.Semaphore(self._share))
        self._calls[owner] += 1
        try:
            await turn.acquire()
        except BaseException:
            self._leave(owner)
            raise
        try:
            work = asyncio.get_running_loop().run_in_executor(
                self._executor, lambda: context.run(function, *args, **kwargs)
            )
        except BaseException:
            turn.release()
            self._leave(owner)
            raise

        def free(_: object) -> None:
            turn.release()
            self._leave(owner)

        work.add_done_callback(free)
        return await asyncio.shield(work)

    def shutdown(self) -> None:
        """Wait for what runs, and end the threads."""
        self._executor.shutdown()

    def _leave(self, owner: str) -> None:
        self._calls[owner] -= 1
        if not self._calls[owner]:
            del self._calls[owner], self._turns[owner]


class Pools:
    """The pools of the API. What is quick never waits for what is heavy, and health waits for neither.

    Attributes:
        quick: rows and small files.
        heavy: header checks, previews, crops, long lists, archives.
        system: health, figures and counts.
        previews: networks, which wait for their turn on the device.
    """

    def __init__(self) -> None:
        self.quick = SharedPool("request", threads=8, share=4)
        self.heavy = SharedPool("heavy", threads=6, share=2)
        self.system = SharedPool("system", threads=2, share=2)
        self.previews = SharedPool("preview", threads=4, share=1, prepare=lower_priority)

    def shutdown(self) -> None:
        """End all threads."""
        for pool in (self.quick, self.heavy, self.system, self.previews):
            pool.shutdown()
