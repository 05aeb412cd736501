"""What every `Events` promises: each test runs on each implementation."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from app.events import Events, LocalEvents
from app.events.polling import PollingEvents

IMPLEMENTATIONS: dict[str, Callable[[], Events]] = {
    "local": LocalEvents,
    "polling": lambda: PollingEvents(lambda job_ids: dict.fromkeys(job_ids, 1)),
}


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def events(request: pytest.FixtureRequest) -> Events:
    return IMPLEMENTATIONS[request.param]()


def test_every_listener_hears_every_change_until_it_unsubscribes(events: Events) -> None:
    one: list[str] = []
    two: list[str] = []
    unsubscribe = events.subscribe(one.append)
    events.subscribe(two.append)
    events.publish(["a", "b"])
    unsubscribe()
    unsubscribe()
    events.publish(iter(["c"]))
    assert (one, two) == (["a", "b"], ["a", "b", "c"])


def test_the_same_callback_may_listen_twice(events: Events) -> None:
    heard: list[str] = []
    first = events.subscribe(heard.append)
    events.subscribe(heard.append)
    events.publish(["a"])
    first()
    events.publish(["b"])
    assert heard == ["a", "a", "b"]


def test_a_faulty_listener_harms_neither_the_publisher_nor_the_others(
    events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(_job_id: str) -> None:
        raise RuntimeError("listener")

    heard: list[str] = []
    events.subscribe(faulty)
    events.subscribe(heard.append)
    events.publish(["a", "b"])
    assert heard == ["a", "b"]
    assert "listener of job changes failed" in caplog.text


def test_nothing_is_asked_of_a_publisher_when_nobody_listens(events: Events) -> None:
    assert not events.has_listeners()
    unsubscribe = events.subscribe(lambda _: None)
    assert events.has_listeners()
    unsubscribe()
    assert not events.has_listeners()


def test_a_listener_may_unsubscribe_from_inside_its_callback(events: Events) -> None:
    heard: list[str] = []

    def once(job_id: str) -> None:
        heard.append(job_id)
        unsubscribe()

    unsubscribe = events.subscribe(once)
    events.publish(["a"])
    events.publish(["b"])
    assert heard == ["a"]


def test_threads_may_publish_and_subscribe_at_once(events: Events) -> None:
    heard: list[str] = []
    events.subscribe(heard.append)

    def work(name: str) -> None:
        for number in range(50):
            events.subscribe(lambda _: None)()
            events.publish([f"{name}{number}"])

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heard) == len(set(heard)) == 200


def test_a_job_may_be_followed_several_times_and_let_go_twice(events: Events) -> None:
    first, second = events.follow("a"), events.follow("a")
    heard: list[str] = []
    events.subscribe(heard.append)
    first()
    first()
    events.publish(["a", "b"])  # of which nobody follows the other; it is told of all the same
    second()
    events.publish(["a"])
    assert heard == ["a", "b", "a"]
