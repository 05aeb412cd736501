"""Hints over Redis: a server tells the others at once which jobs it changed, so that they need not wait for their look.

At most once and never relied on: rows are looked at all the same (see `polling`), so a Redis that is away, frozen or
empty costs nothing but speed. redis is imported only where it is set up.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import queue
import secrets
import threading
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from app.threads import SupervisedThread

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

CHANNEL = "neural-image-restore:jobs"
MOST_JOBS_A_HINT = 64  # of a move of the queue, which every server sees by itself
REST_SECONDS = 0.1  # after a hint; what changes meanwhile is told in the next one
_PATIENCE_SECONDS = 0.2
_WAITING_HINTS = 1000
_TIMEOUT_SECONDS = 2.0
_AGAIN_SECONDS = 2.0


class RedisHints:
    """Sends hints, and hears those of others, each in a thread of its own; see `app.events.polling.Hints`.

    Args:
        url: address of the Redis server.
        on_hint: hears the ids of jobs that another process changed; None: this process only tells.
        again_seconds: the pause before a server that is away is tried again.
    """

    def __init__(
        self, url: str, on_hint: Callable[[Iterable[str]], None] | None, *, again_seconds: float = _AGAIN_SECONDS
    ) -> None:
        self._url, self._again_seconds = url, again_seconds
        self._name = secrets.token_hex(8)
        self._waiting: queue.Queue[list[str]] = queue.Queue(_WAITING_HINTS)
        self._away = False
        self._threads = [SupervisedThread("hints-out", self._send_loop)]
        if on_hint is not None:
            hear = functools.partial(self._hear_loop, on_hint)
            self._threads.append(SupervisedThread("hints-in", hear))

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End the threads and wait for them."""
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            thread.join(timeout_seconds)

    def send(self, job_ids: Collection[str]) -> None:
        """See `Hints`. Those that cannot be sent soon are dropped."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(list(job_ids)[:MOST_JOBS_A_HINT])

    def _send_loop(self, stop: threading.Event) -> None:
        client = self._connect()
        while not stop.is_set():
            job_ids = self._next_hint()
            if job_ids:
                self._try(stop, functools.partial(self._tell, client, job_ids))
                stop.wait(REST_SECONDS)
        client.close()

    def _next_hint(self) -> list[str]:
        """All that waits to be told, each job once; nothing when nothing comes."""
        found: dict[str, None] = {}
        with contextlib.suppress(queue.Empty):
            found.update(dict.fromkeys(self._waiting.get(timeout=_PATIENCE_SECONDS)))
            while len(found) < MOST_JOBS_A_HINT:
                found.update(dict.fromkeys(self._waiting.get_nowait()))
        return list(found)

    def _tell(self, client: Redis, job_ids: list[str]) -> None:
        client.publish(CHANNEL, json.dumps({"from": self._name, "jobs": job_ids}))
        self._away = False

    def _hear_loop(self, on_hint: Callable[[Iterable[str]], None], stop: threading.Event) -> None:
        client = self._connect()
        while not stop.is_set():
            self._try(stop, lambda: self._hear(client, on_hint, stop))
        client.close()

    def _hear(self, client: Redis, on_hint: Callable[[Iterable[str]], None], stop: threading.Event) -> None:
        with client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(CHANNEL)
            self._away = False
            while not stop.is_set():
                message = channel.get_message(timeout=_PATIENCE_SECONDS)
                if message is not None:
                    on_hint(self._jobs_of(message["data"]))

    def _jobs_of(self, data: Any) -> list[str]:
        """The jobs of another process's hint; none for our own, and for what is none."""
        try:
            hint = json.loads(data)
            return [] if hint["from"] == self._name else [str(job_id) for job_id in hint["jobs"]]
        except (ValueError, KeyError, TypeError):
            return []

    def _try(self, stop: threading.Event, work: Callable[[], object]) -> None:
        from redis.exceptions import RedisError

        try:
            work()
        except (RedisError, OSError) as error:
            if not self._away:  # said once an outage
                log.warning("Redis gives no hints, so changes are seen a little later: %s", type(error).__name__)
            self._away = True
            stop.wait(self._again_seconds)

    def _connect(self) -> Redis:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return Redis.from_url(
            self._url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=10,
        )
