"""What Redis adds between servers, and that nothing breaks while it is away or frozen: rate windows and hints."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.api.auth.rate_limits import WRONG_KEYS_PER_MINUTE, RateLimits
from app.api.auth.rate_windows import AWAY_SECONDS, RedisWindows
from app.errors import TooManyRequests
from app.events.redis_hints import CHANNEL, MOST_JOBS_A_HINT, RedisHints
from tests import redis_server
from tests.databases import Clock
from tests.harness import until
from tests.http_service import running, settings_for
from tests.redis_server import RedisServer

needs_redis = pytest.mark.skipif(redis_server.missing() is not None, reason=redis_server.missing() or "")


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[RedisServer]:
    with redis_server.running() as server:
        yield server


@pytest.fixture
def redis(shared_redis: RedisServer) -> Iterator[RedisServer]:
    """The one server, running and thawed again after the test."""
    if not shared_redis.answers():
        shared_redis.start()
    yield shared_redis
    shared_redis.thaw_if_running()


class Servers:
    """Rate limits of two servers, each with its own windows, and one clock to let outages pass."""

    def __init__(self, url: str, rate: str) -> None:
        self.clock = Clock()
        self.windows = [RedisWindows(url, self.clock) for _ in range(2)]
        self.limits = [RateLimits(rate, windows) for windows in self.windows]

    async def admitted(self, count: int, client: str) -> int:
        """How many of so many requests at once, spread over both servers, are let in."""
        return await let_in([ask(limits, client) for limits in self.limits for _ in range(count // 2)])

    async def close(self) -> None:
        for windows in self.windows:
            await windows.close()


async def ask(limits: RateLimits, client: str) -> None:
    """One request; raises when it is one too many."""
    window = await limits.hit(client)
    if window is not None:
        window.check()


async def let_in(asked: list[Coroutine[Any, Any, None]]) -> int:
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(answer is None or isinstance(answer, TooManyRequests) for answer in answers), answers
    return sum(answer is None for answer in answers)


def run(url: str, rate: str, scenario: Callable[[Servers], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        servers = Servers(url, rate)
        await scenario(servers)
        await servers.close()

    asyncio.run(whole())


@needs_redis
def test_two_servers_count_one_window_also_when_200_come_at_once(redis: RedisServer) -> None:
    async def scenario(servers: Servers) -> None:
        assert await servers.admitted(200, "many") == 50
        with pytest.raises(TooManyRequests) as refused:
            await ask(servers.limits[0], "many")
        assert 1 <= (refused.value.retry_after_seconds or 0) <= 3600
        await ask(servers.limits[0], "somebody else")
        assert [windows.problem() for windows in servers.windows] == [None, None]

    run(redis.url, "50/hour", scenario)


@needs_redis
def test_wrong_keys_are_counted_for_all_servers(redis: RedisServer) -> None:
    async def scenario(servers: Servers) -> None:
        asked = [limits.count_wrong_key("1.2.3.4") for limits in servers.limits for _ in range(WRONG_KEYS_PER_MINUTE)]
        assert await let_in(asked) == WRONG_KEYS_PER_MINUTE

    run(redis.url, "0", scenario)


@needs_redis
def test_without_redis_each_server_counts_by_itself_says_so_once_and_comes_back(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(servers: Servers) -> None:
        assert await servers.admitted(2, "a") == 2
        redis.kill()
        assert await servers.admitted(200, "a") == 100  # fifty at each
        assert all("by itself" in str(windows.problem()) for windows in servers.windows)
        assert caplog.text.count("counted by this server alone") == 2  # once a server
        redis.start()
        assert await servers.admitted(2, "b") == 2
        assert servers.windows[0].problem() is not None  # not asked again at once
        servers.clock.now += AWAY_SECONDS
        assert await servers.admitted(200, "c") == 50
        assert [windows.problem() for windows in servers.windows] == [None, None]

    run(redis.url, "50/hour", scenario)


@needs_redis
def test_a_frozen_redis_costs_a_moment_and_then_none(redis: RedisServer) -> None:
    async def scenario(servers: Servers) -> None:
        await servers.limits[0].hit("before")
        redis.freeze()
        async with asyncio.timeout(5):
            assert await servers.admitted(100, "frozen") == 100
        async with asyncio.timeout(0.4):  # less than it waits for Redis
            await servers.limits[0].hit("another")

    run(redis.url, "50/hour", scenario)


# A service of one process, in a process of its own, and what of other processes it has loaded.
_ALONE = """
import sys
from pathlib import Path
from tests.http_service import running
with running(Path(sys.argv[1])):
    names = {"redis", "app.events.polling", "app.events.redis_hints", "app.jobs.change_watch"}
    print(sorted(names & set(sys.modules)))
"""


def test_nothing_for_other_processes_is_loaded_by_a_service_that_is_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, tmp_path], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr


# Hints.


class Server:
    """The hints of one server, and what it hears from others."""

    def __init__(self, url: str) -> None:
        self.heard: list[str] = []
        self.hints = RedisHints(url, self.heard.extend, again_seconds=0.05)
        self.hints.start()


@pytest.fixture
def servers(redis: RedisServer) -> Iterator[tuple[Server, Server]]:
    pair = Server(redis.url), Server(redis.url)
    yield pair
    for server in pair:
        server.hints.stop()


def tell(sender: Server, listener: Server, job_ids: list[str]) -> None:
    """Send until it is heard: who is not listening yet misses a hint."""

    def heard() -> bool:
        if not set(job_ids) & set(listener.heard):
            sender.hints.send(job_ids)
        return bool(listener.heard)

    until(heard)


@needs_redis
def test_a_hint_reaches_the_others_and_not_its_sender(servers: tuple[Server, Server]) -> None:
    one, two = servers
    tell(one, two, ["a", "b"])
    tell(two, one, ["c"])
    assert (set(two.heard), set(one.heard)) == ({"a", "b"}, {"c"})


@needs_redis
def test_what_is_no_hint_is_nothing_and_a_long_one_is_cut(servers: tuple[Server, Server], redis: RedisServer) -> None:
    import redis as client

    one, two = servers
    tell(one, two, ["first"])
    other = client.Redis.from_url(redis.url)
    for nonsense in (b"\xff", "[]", "3", '{"from": 1}', '{"from": 1, "jobs": 3}'):
        other.publish("neural-image-restore:jobs", nonsense)
    other.close()
    one.hints.send([str(number) for number in range(1000)])
    until(lambda: set(two.heard) != {"first"})
    assert [job_id for job_id in two.heard if job_id != "first"] == [str(number) for number in range(MOST_JOBS_A_HINT)]


@needs_redis
def test_changes_that_come_close_together_are_told_once(servers: tuple[Server, Server], redis: RedisServer) -> None:
    """A worker that restores ten small photos a second changes a hundred rows."""
    import redis as client

    one, two = servers
    tell(one, two, ["first"])
    listener: Any = client.Redis.from_url(redis.url).pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    listener.subscribe(CHANNEL)
    asking: Any = client.Redis.from_url(redis.url)
    until(lambda: asking.pubsub_numsub(CHANNEL)[0][1] >= 3)
    two.heard.clear()
    for number in range(60):
        one.hints.send([str(number % 6)])
    until(lambda: {str(number) for number in range(6)} <= set(two.heard))  # "first" may have been told twice
    told = [message for _ in range(20) if (message := listener.get_message(timeout=0.05)) is not None]
    listener.close()
    assert len([message for message in told if b"first" not in message["data"]]) <= 6


@needs_redis
def test_a_process_that_serves_nobody_tells_and_does_not_hear(
    servers: tuple[Server, Server], redis: RedisServer
) -> None:
    one, _ = servers
    worker = RedisHints(redis.url, None)
    worker.start()

    def is_heard() -> bool:
        worker.send(["mine"])
        return "mine" in one.heard

    try:
        until(is_heard)
        names = [thread.name for thread in threading.enumerate()]
        assert (names.count("hints-out"), names.count("hints-in")) == (3, 2)
    finally:
        worker.stop()


@needs_redis
def test_hints_come_back_after_redis_was_killed_and_sending_never_waits(
    servers: tuple[Server, Server], redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = servers
    tell(one, two, ["a"])
    redis.kill()
    until(lambda: "gives no hints" in caplog.text)

    def send_many() -> None:
        for _ in range(5000):
            one.hints.send(["lost"])

    sender = threading.Thread(target=send_many, daemon=True)
    sender.start()
    sender.join(2.0)
    assert not sender.is_alive()
    redis.start()
    two.heard.clear()
    tell(one, two, ["b"])


@needs_redis
def test_a_service_counts_in_redis_and_its_health_says_when_that_is_away(redis: RedisServer, tmp_path: Path) -> None:
    with running(tmp_path, broker_url=redis.url, rate_limit="1000/hour") as service:
        assert service.client.get("/api/v1/health").json()["status"] == "ready"
        redis.kill()
        health = service.client.get("/api/v1/health").json()
        assert health["status"] == "degraded"
        assert health["reasons"] == [
            "Redis cannot be reached, so each server counts the requests of a client by itself."
        ]
        assert service.client.get("/health/ready").status_code == 200


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://", "amqp://localhost"])
def test_a_broker_that_is_no_redis_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="BROKER_URL must be the address of a Redis server"):
        settings_for(tmp_path, broker_url=url)
    assert "geheim" in settings_for(tmp_path, broker_url="redis://:geheim@localhost:1/0").secrets
