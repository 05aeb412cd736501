"""Webhooks as rows, on every database: due with the end of a job and never without it, claimed by one, gone with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from app.storage import new_id
from app.store import Job, JobOrigin, NewPhoto, Result, SqlStore, Store, WebhookState
from app.store.leases import INTERRUPTED
from tests.databases import IMPLEMENTATIONS, Clock

ME, URL = "me", "https://hooks.example.com/x"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=IMPLEMENTATIONS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return IMPLEMENTATIONS[request.param](tmp_path)


@pytest.fixture
def store(database_url: str, clock: Clock) -> Iterator[Store]:
    opened = SqlStore(database_url, clock=clock, lease_seconds=60)
    opened.open()
    yield opened
    opened.close()


def submit(store: Store, photos: int = 1, url: str | None = URL) -> Job:
    new = [NewPhoto(new_id(), "a" * 64, "old.jpg", "image/jpeg", 3, 2, 9) for _ in range(photos)]
    origin = JobOrigin(request_id="r-1", trace=f"00-{'1' * 32}-{'2' * 16}-01", webhook_url=url)
    return store.submit(ME, new, "{}", "local", 99, 1.0, origin=origin)[0]


def result(name: str) -> Result:
    return Result(f"{name}.png", "image/png", 6, 4, 9, "net", 1.0)


def state(store: Store, job: Job) -> WebhookState:
    found = store.job(ME, job.id).webhook
    assert found is not None
    return found


def end(store: Store, attempt_id: str) -> None:
    assert store.claim(attempt_id, "t", 2.0)
    assert store.complete(attempt_id, "t", result(attempt_id), 3.0)


def test_what_the_submission_said_stands_in_the_rows(store: Store) -> None:
    job = submit(store)
    (attempt,) = job.attempts
    assert (attempt.owner, attempt.request_id) == (ME, "r-1")
    assert attempt.trace == f"00-{'1' * 32}-{'2' * 16}-01"
    assert job.webhook == WebhookState("waiting", 0, 0.0, None, None)  # type: ignore[arg-type]
    plain = submit(store, url=None)
    assert plain.webhook is None
    end(store, plain.attempts[0].id)
    assert store.webhooks.claim_due(60) is None


def test_it_is_due_with_the_end_of_the_last_attempt(store: Store) -> None:
    job = submit(store, photos=2)
    one, two = (attempt.id for attempt in job.attempts)
    end(store, one)
    assert store.webhooks.claim_due(60) is None
    assert state(store, job).status == "waiting"
    assert store.claim(two, "t", 2.0)
    assert store.fail(two, "t", "no_space", "…", 3.0)
    due = store.webhooks.claim_due(60)
    assert due is not None
    assert (due.job_id, due.owner, due.url, due.tries) == (job.id, ME, URL, 1)
    assert [one.webhook.status for one in store.jobs(ME, 9) if one.webhook] == ["pending"]


@pytest.mark.parametrize("how", ["cancelled", "crashed", "interrupted", "lapsed"])
def test_every_way_to_end_makes_it_due(store: Store, clock: Clock, how: str) -> None:
    job = submit(store)
    attempt_id = job.attempts[0].id
    if how == "cancelled":
        store.cancel_or_remove(ME, job.id, 3.0)
    else:
        assert store.claim(attempt_id, "t", 2.0)
        if how == "crashed":
            assert store.crashed(attempt_id, "t", 3.0, max_tries=1)
        elif how == "interrupted":
            assert store.mark_sent(attempt_id, "t")
            assert store.give_back(attempt_id, "t", 3.0)
            assert store.job(ME, job.id).attempts[0].error_code == INTERRUPTED
        else:
            clock.now += 61
            store.sweep_leases(3.0, max_lapses=1)
    due = store.webhooks.claim_due(60)
    assert due is not None
    assert due.job_id == job.id
    store.webhooks.delivered(due, 204)
    assert store.webhooks.claim_due(60) is None


def test_a_run_that_is_given_back_ends_nothing(store: Store) -> None:
    job = submit(store)
    assert store.claim(job.attempts[0].id, "t", 2.0)
    assert store.give_back(job.attempts[0].id, "t", 3.0)
    assert store.webhooks.claim_due(60) is None


def test_one_process_tells_it_and_another_only_when_that_was_silent_for_long(store: Store, clock: Clock) -> None:
    end(store, submit(store).attempts[0].id)
    first = store.webhooks.claim_due(60)
    assert first is not None
    clock.now += 59
    assert store.webhooks.claim_due(60) is None
    clock.now += 2
    second = store.webhooks.claim_due(60)
    assert second is not None
    assert (second.id, second.tries) == (first.id, 2)
    assert not store.webhooks.delivered(first, 200)  # it took too long, and another try is under way
    assert store.webhooks.delivered(second, 200)
    assert not store.webhooks.failed(second, "timeout", None, 5.0)


def test_owners_may_be_left_out(store: Store) -> None:
    end(store, submit(store).attempts[0].id)
    assert store.webhooks.claim_due(60, but=[ME]) is None
    assert store.webhooks.claim_due(60, but=["other"]) is not None


def test_a_failed_try_is_put_off_and_the_last_one_ends_it(store: Store, clock: Clock) -> None:
    job = submit(store)
    end(store, job.attempts[0].id)
    due = store.webhooks.claim_due(60)
    assert due is not None
    assert store.webhooks.failed(due, "refused", 500, 10.0)
    assert state(store, job) == WebhookState("pending", 1, clock.now + 10, 500, "refused")  # type: ignore[arg-type]
    assert store.webhooks.claim_due(60) is None
    clock.now += 10
    again = store.webhooks.claim_due(60)
    assert again is not None
    assert store.webhooks.give_back(again)
    assert state(store, job).tries == 1
    last = store.webhooks.claim_due(60)
    assert last is not None
    assert store.webhooks.failed(last, "timeout", None, None)
    assert (state(store, job).status, state(store, job).error) == ("failed", "timeout")
    assert store.webhooks.claim_due(60) is None


@pytest.mark.parametrize("how", ["removed", "photo removed", "expired"])
def test_it_goes_with_its_job(store: Store, database_url: str, how: str) -> None:
    job = submit(store)
    end(store, job.attempts[0].id)
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM webhooks")).scalar_one() == 1
    if how == "removed":
        store.cancel_or_remove(ME, job.id, 4.0)
    elif how == "expired":
        store.expire(100.0)
    else:
        store.library.remove(ME, job.attempts[0].photo_id)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM webhooks")).scalar_one() == 0
    engine.dispose()


def at_once(count: int, work: object) -> None:
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait(10)
        work(number)  # type: ignore[operator]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)


def test_two_attempts_that_end_at_once_make_it_due(store: Store) -> None:
    for _ in range(8):
        job = submit(store, photos=4)
        ids = [attempt.id for attempt in job.attempts]
        for attempt_id in ids:
            assert store.claim(attempt_id, "t", 2.0)
        at_once(4, lambda n, ids=ids: store.complete(ids[n], "t", result(ids[n]), 3.0))
        assert state(store, job).status == "pending"


def test_many_who_look_at_once_get_each_one_once(store: Store) -> None:
    for _ in range(6):
        end(store, submit(store).attempts[0].id)
    found: list[str] = []

    def take(_: int) -> None:
        for _ in range(6):
            due = store.webhooks.claim_due(60)
            if due is not None:
                found.append(due.id)

    at_once(4, take)
    assert len(found) == len(set(found)) == 6
