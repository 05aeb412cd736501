"""The word "sent": a call that costs money stands in the row before it is made, and nothing repeats it unasked."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.storage import new_id
from app.store import Attempt, AttemptStatus, NewPhoto, Result, SqlStore, Store
from app.store.schema import VERSION
from tests.databases import IMPLEMENTATIONS, Clock

ME = "me"


LEASE_SECONDS = 60.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Store]:
    opened = SqlStore(IMPLEMENTATIONS[request.param](tmp_path), lease_seconds=LEASE_SECONDS, clock=clock)
    opened.open()
    yield opened
    opened.close()


def add(store: Store, backend: str = "siliconflow") -> str:
    photo = NewPhoto(new_id(), "0" * 64, "cat.jpg", "image/jpeg", 40, 30, 1000)
    return store.add_job(ME, [photo], "{}", backend, 1000, 1.0).attempts[0].id


def row(store: Store, attempt_id: str) -> Attempt:
    found = store.attempt(attempt_id)
    assert found is not None
    return found


def sent(store: Store) -> str:
    """An attempt whose run has been handed to the provider."""
    attempt_id = add(store)
    assert store.claim(attempt_id, "run", 2.0)
    assert store.mark_sent(attempt_id, "run")
    return attempt_id


def test_the_word_stands_in_the_row_before_anything_else_happens(store: Store) -> None:
    attempt_id = sent(store)
    attempt = row(store, attempt_id)
    assert (attempt.sent, attempt.stage, attempt.status) == (True, "sending", AttemptStatus.PROCESSING)


ENDS: dict[str, Callable[[Store, str], object]] = {
    "its process died": lambda store, _: store.sweep_leases(9.0),
    "its process died, tries left": lambda store, _: store.sweep_leases(9.0, max_lapses=99),
    "the thread died": lambda store, attempt_id: store.crashed(attempt_id, "run", 9.0),
    "the run was stopped in good order": lambda store, attempt_id: store.give_back(attempt_id, "run", 9.0),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_sent_attempt_is_never_queued_again(store: Store, clock: Clock, how: str) -> None:
    attempt_id = sent(store)
    clock.now += LEASE_SECONDS + 1
    ENDS[how](store, attempt_id)
    attempt = row(store, attempt_id)
    assert (attempt.status, attempt.error_code, attempt.ended_at) == (AttemptStatus.FAILED, "interrupted", 9.0)
    assert "may have charged" in (attempt.error_message or "")
    assert store.queued_ids() == []
    assert store.recover(10.0) == []


@pytest.mark.parametrize("how", ENDS)
def test_one_that_was_not_sent_yet_waits_again(store: Store, clock: Clock, how: str) -> None:
    attempt_id = add(store)
    assert store.claim(attempt_id, "run", 2.0)
    clock.now += LEASE_SECONDS + 1
    ENDS[how](store, attempt_id)
    assert row(store, attempt_id).status is AttemptStatus.QUEUED
    assert not row(store, attempt_id).sent


@pytest.mark.parametrize("max_tries", [2, 99])
def test_a_start_of_the_only_process_knows_that_what_was_sent_is_interrupted(tmp_path: Path, max_tries: int) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'jobs.sqlite3'}")
    store.open()
    attempt_id, waits = sent(store), add(store)
    store.claim(waits, "run", 2.0)
    assert store.recover(9.0, max_tries) == [waits]
    assert (row(store, attempt_id).status, row(store, attempt_id).error_code) == (AttemptStatus.FAILED, "interrupted")
    store.close()


def test_only_the_run_that_holds_the_claim_can_say_sent(store: Store) -> None:
    attempt_id = add(store)
    assert not store.mark_sent(attempt_id, "run")  # not claimed
    store.claim(attempt_id, "run", 2.0)
    assert not store.mark_sent(attempt_id, "another run")
    store.cancel_or_remove(ME, row(store, attempt_id).job_id, 3.0)
    assert not store.mark_sent(attempt_id, "run")
    assert not row(store, attempt_id).sent


def test_a_sent_attempt_ends_like_any_other_while_its_run_lives(store: Store) -> None:
    done, failed, cancelled = sent(store), sent(store), sent(store)
    assert store.report_progress(done, "run", 0.1, "provider")
    assert store.complete(done, "run", Result(f"{done}.jpg", "image/jpeg", 8, 8, 9, "model", 1.0), 5.0)
    assert store.fail(failed, "run", "provider_busy", "Service busy, please try again", 5.0)
    store.cancel_or_remove(ME, row(store, cancelled).job_id, 5.0)
    states = [row(store, attempt_id).status.value for attempt_id in (done, failed, cancelled)]
    assert states == ["completed", "failed", "cancelled"]


def test_the_place_in_the_queue_counts_only_photos_of_the_same_backend(store: Store) -> None:
    ids = [add(store, backend) for backend in ("local", "siliconflow", "local", "siliconflow", "local")]
    places = [store.queue_position(row(store, attempt_id).job_id) for attempt_id in ids]
    assert places == [1, 1, 2, 2, 3]
    store.claim(ids[0], "run", 2.0)
    assert [store.queue_position(row(store, attempt_id).job_id) for attempt_id in ids] == [0, 1, 1, 2, 2]


def test_the_pace_of_this_machine_is_not_that_of_a_provider(store: Store) -> None:
    for backend, seconds in (("local", 2.0), ("siliconflow", 90.0)):
        attempt_id = add(store, backend)
        store.claim(attempt_id, "run", 2.0)
        result = Result(f"{attempt_id}.jpg", "image/jpeg", 1000, 1000, 9, "model", seconds)
        assert store.complete(attempt_id, "run", result, 5.0)
    assert store.seconds_per_megapixel() == 2.0


def test_the_waiting_can_be_listed_by_backend(store: Store) -> None:
    local, cloud = add(store, "local"), add(store)
    assert store.queued_ids() == [local, cloud]
    assert store.queued_ids(only="siliconflow") == [cloud]
    assert store.queued_ids(but=["siliconflow"]) == [local]


def test_a_database_of_the_first_version_gets_the_column(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite3"
    store = SqlStore(f"sqlite:///{file}")
    store.open()
    attempt_id = add(store)
    store.close()
    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE attempts DROP COLUMN sent")
        connection.execute("PRAGMA user_version=1")
    connection.close()
    store.open()
    try:
        assert not row(store, attempt_id).sent
        assert store.claim(attempt_id, "run", 2.0)
        assert store.mark_sent(attempt_id, "run")
    finally:
        store.close()
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    connection.close()
