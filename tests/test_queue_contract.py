"""What every `Queue` promises: each test runs on each implementation."""

from __future__ import annotations

import functools
import itertools
import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest

from app.queue import LocalQueue, Queue
from tests import redis_server
from tests.redis_server import RedisServer

_DATABASES = itertools.count()
SOON_SECONDS, LONG_SECONDS = 0.01, 20.0


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[RedisServer]:
    with redis_server.running() as server:
        yield server


def _local(_request: pytest.FixtureRequest) -> AbstractContextManager[Queue]:
    return nullcontext(LocalQueue())


def _celery(request: pytest.FixtureRequest) -> AbstractContextManager[Queue]:
    reason = redis_server.missing()
    if reason is not None:
        pytest.skip(reason)
    pytest.importorskip("celery", reason="celery is not installed (requirements-cluster.txt)")
    from tests.celery_end import celery_queue

    server: RedisServer = request.getfixturevalue("shared_redis")
    return celery_queue(server.url.removesuffix("/0") + f"/{next(_DATABASES)}")  # messages outlive a worker


IMPLEMENTATIONS: dict[str, Callable[[pytest.FixtureRequest], AbstractContextManager[Queue]]] = {
    "celery": _celery,
    "local": _local,
}


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def queue(request: pytest.FixtureRequest) -> Iterator[Queue]:
    with IMPLEMENTATIONS[request.param](request) as opened:
        yield opened


def test_wake_ups_come_in_order_and_then_none(queue: Queue) -> None:
    consumer = queue.open_consumer()
    for attempt_id in ("a", "b", "a"):
        queue.publish(attempt_id)
    assert [consumer.receive(LONG_SECONDS) for _ in range(3)] == ["a", "b", "a"]
    assert consumer.receive(SOON_SECONDS) is None


def test_publishing_without_a_consumer_is_harmless_and_not_remembered(queue: Queue) -> None:
    queue.publish("lost")
    assert queue.open_consumer().receive(SOON_SECONDS) is None


def test_every_consumer_hears_every_wake_up(queue: Queue) -> None:
    one, two = queue.open_consumer(), queue.open_consumer()
    queue.publish("a")
    assert (one.receive(LONG_SECONDS), two.receive(LONG_SECONDS)) == ("a", "a")


def test_each_wake_up_goes_to_one_of_several_receivers(queue: Queue) -> None:
    consumer, heard = queue.open_consumer(), []

    def receive() -> None:
        heard.append(consumer.receive(LONG_SECONDS))

    threads = [threading.Thread(target=receive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(4):
        queue.publish(str(number))
    for thread in threads:
        thread.join(LONG_SECONDS)
    assert sorted(str(one) for one in heard) == ["0", "1", "2", "3"]


def test_wake_ends_that_many_waits_without_an_id(queue: Queue) -> None:
    consumer, other = queue.open_consumer(), queue.open_consumer()
    consumer.wake(2)
    queue.publish("a")
    assert [consumer.receive(LONG_SECONDS) for _ in range(3)] == [None, None, "a"]
    assert other.receive(LONG_SECONDS) == "a"


def test_a_wake_up_of_a_known_backend_goes_to_those_who_serve_it(queue: Queue) -> None:
    local, cloud = (queue.open_consumer(functools.partial(operator.eq, name)) for name in ("local", "siliconflow"))
    queue.publish("a", "local")
    queue.publish("b", "local")
    assert [local.receive(LONG_SECONDS) for _ in range(2)] == ["a", "b"]
    assert (local.receive(SOON_SECONDS), cloud.receive(SOON_SECONDS)) == (None, None)


def test_a_wake_up_of_an_unknown_backend_goes_to_all() -> None:
    queue = LocalQueue()
    local, cloud = queue.open_consumer(), queue.open_consumer(lambda _: False)
    queue.publish("a")
    assert (local.receive(LONG_SECONDS), cloud.receive(LONG_SECONDS)) == ("a", "a")
