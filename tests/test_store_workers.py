"""Workers, as every `Store` keeps them: alive while they report, by the database's clock alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.events import LocalEvents
from app.store import LIVE_SECONDS, AttemptStatus, JobOrigin, SqlStore, Store, WebhookStatus
from app.store.workers import GONE_SECONDS
from tests.databases import IMPLEMENTATIONS, Clock
from tests.test_store_contract import ME, add, first, photo


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def events() -> LocalEvents:
    return LocalEvents()


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, events: LocalEvents) -> Iterator[Store]:
    opened = SqlStore(IMPLEMENTATIONS[request.param](tmp_path), events, clock=clock)
    opened.open()
    yield opened
    opened.close()


def names(store: Store) -> list[str]:
    return [worker.name for worker in store.workers.live()]


def test_a_worker_lives_as_long_as_it_reports(store: Store, clock: Clock) -> None:
    assert store.workers.live() == []
    store.workers.report("b:1", "b", {"status": "idle"}, starting=True)
    clock.now += 5
    store.workers.report("a:2", "a", {"status": "busy", "models": [{"name": "größe"}]}, starting=True)
    store.workers.report("b:1", "b", {"status": "busy"})
    one, two = store.workers.live()
    assert (one.name, one.host, one.started_at, one.silent_seconds) == ("a:2", "a", 1005.0, 0.0)
    assert one.report == {"status": "busy", "models": [{"name": "größe"}]}
    assert (two.started_at, two.report, two.warm_up_asked_at) == (1000.0, {"status": "busy"}, None)
    clock.now += LIVE_SECONDS
    assert names(store) == ["a:2", "b:1"]
    store.workers.report("b:1", "b", {})
    clock.now += 0.1
    assert names(store) == ["b:1"]


def test_one_that_ends_is_gone_at_once_and_a_dead_one_is_removed_later(store: Store, clock: Clock) -> None:
    store.workers.report("dead", "h", {}, starting=True)
    store.workers.report("ends", "h", {}, starting=True)
    store.workers.forget("ends")
    store.workers.forget("never seen")
    assert names(store) == ["dead"]
    clock.now += GONE_SECONDS
    store.workers.report("alive", "h", {}, starting=True)
    assert [worker.name for worker in store.workers.live(GONE_SECONDS)] == ["alive", "dead"]
    clock.now += 1
    store.workers.report("alive", "h", {})
    clock.now -= 1
    assert [worker.name for worker in store.workers.live(GONE_SECONDS)] == ["alive"]


def test_a_warm_up_is_asked_of_those_that_live_and_a_new_process_of_the_same_name_was_not_asked(
    store: Store, clock: Clock
) -> None:
    store.workers.report("dead", "h", {}, starting=True)
    clock.now += LIVE_SECONDS + 1
    assert store.workers.report("alive", "h", {}, starting=True) is None
    asked_at = store.workers.ask_warm_up()
    assert asked_at == pytest.approx(clock.now)
    assert store.workers.report("alive", "h", {}) == asked_at
    assert store.workers.report("dead", "h", {}) is None
    clock.now += 1
    assert store.workers.report("alive", "h", {}, starting=True) is None
    assert {worker.name: worker.started_at for worker in store.workers.live()} == {"alive": clock.now, "dead": 1000.0}


def test_what_is_no_object_is_an_empty_report_and_a_text_of_any_origin_is_kept(store: Store) -> None:
    store.workers.report("host\0:1", "h", {"reasons": ["NUL \0 and half \ud800"]}, starting=True)
    (worker,) = store.workers.live()
    assert "half" in worker.report["reasons"][0]
    store.workers.report("list", "h", [1], starting=True)  # type: ignore[arg-type]
    assert [worker.report for worker in store.workers.live() if worker.name == "list"] == [{}]


def test_workers_of_one_name_may_report_at_once(store: Store) -> None:
    failed: list[Exception] = []

    def report() -> None:
        for number in range(10):
            try:
                store.workers.report("same", "h", {"number": number}, starting=number == 0)
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert names(store) == ["same"]


def test_what_waits_for_a_backend_that_nobody_serves_fails_and_frees_its_places(
    store: Store, events: LocalEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.workers.FAILED_A_SWEEP", 2)
    origin = JobOrigin(webhook_url="https://example.org/")
    asked = ("{}", "siliconflow", 9, 1.0)
    cloud, _ = store.submit(ME, [photo() for _ in range(4)], *asked, origin=origin)
    store.claim(cloud.attempts[0].id, "t", 1.0)
    local, ids = add(store), [attempt.id for attempt in cloud.attempts[1:]]
    heard: list[str] = []
    events.subscribe(heard.append)
    assert [store.workers.fail_unserved(["siliconflow"], 5.0) for _ in range(3)] == [tuple(ids[:2]), (ids[2],), ()]
    assert heard == [cloud.id, cloud.id]
    running, *failed = store.job(ME, cloud.id).attempts
    assert {(one.status, one.error_code, one.ended_at) for one in failed} == {
        (AttemptStatus.FAILED, "backend_unavailable", 5.0)
    }
    assert (running.status, store.job(ME, local.id)) == (AttemptStatus.PROCESSING, local)
    assert store.queued_ids() == [first(local)]
    assert store.accounts.usage(ME, 1.0).waiting == 1
    assert store.fail(running.id, "t", "code", "message", 6.0)
    webhook = store.job(ME, cloud.id).webhook
    assert webhook is not None
    assert webhook.status is WebhookStatus.PENDING  # the last one to end made it due
