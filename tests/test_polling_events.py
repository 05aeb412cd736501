"""Events of several processes on one database: what one changes the others hear of at their next look."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import pytest

from app.errors import Unavailable
from app.events.polling import PollingEvents
from app.jobs.change_watch import SESSIONS_SECONDS, ChangeWatch
from app.metrics import Metrics
from app.store import NewVersion, SqlStore
from app.threads import ThreadState
from tests.databases import IMPLEMENTATIONS, needs_postgres
from tests.harness import until
from tests.test_store_contract import ME, add, finish, first, photo, result


class Follower:
    """What a server hears that looks at a store; each look that asked the store is counted."""

    def __init__(self, store: SqlStore) -> None:
        self.store, self.looks = store, 0
        self.events = PollingEvents(self._look)
        self.heard: list[str] = []
        self.events.subscribe(self.heard.append)

    def _look(self, job_ids: Collection[str]) -> Mapping[str, tuple[int, ...]]:
        self.looks += 1
        return self.store.revisions(job_ids)

    def tick(self) -> list[str]:
        self.heard.clear()
        self.events.tick()
        return sorted(self.heard)


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    """The store of the process that changes things; followers do not hear from it."""
    opened = SqlStore(IMPLEMENTATIONS[request.param](tmp_path))
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def follower(store: SqlStore) -> Follower:
    return Follower(store)


TRANSITIONS: dict[str, Callable[[SqlStore, str], object]] = {
    "progress": lambda store, a: store.report_progress(a, "t", 0.5, "upscaling"),
    "sent": lambda store, a: store.mark_sent(a, "t"),
    "completed": lambda store, a: store.complete(a, "t", result(a), 1.0),
    "failed": lambda store, a: store.fail(a, "t", "code", "message", 1.0),
    "given back": lambda store, a: store.give_back(a, "t", 1.0),
    "crashed": lambda store, a: store.crashed(a, "t", 1.0),
    "cancelled": lambda store, a: store.cancel_or_remove(ME, store.attempt(a).job_id, 1.0),  # type: ignore[union-attr]
}


@pytest.mark.parametrize("name", TRANSITIONS)
def test_every_transition_of_another_process_is_heard_once(store: SqlStore, follower: Follower, name: str) -> None:
    job, other = add(store, photos=2), add(store)
    for attempt in (*job.attempts, *other.attempts):
        store.claim(attempt.id, "t", 1.0)
    follower.events.follow(job.id)
    follower.events.follow(other.id)
    assert follower.tick() == sorted([job.id, other.id])  # they may have changed before the first look
    assert follower.tick() == []
    TRANSITIONS[name](store, job.attempts[1].id)
    assert follower.tick() == [job.id]
    assert follower.tick() == []


def test_a_new_version_and_a_removal_are_heard(store: SqlStore, follower: Follower) -> None:
    job = add(store)
    finish(store, first(job))
    follower.events.follow(job.id)
    follower.tick()
    store.new_version(first(job), 1, NewVersion("v2.png", 1, ()))
    assert follower.tick() == [job.id]
    store.cancel_or_remove(ME, job.id, 2.0)
    assert follower.tick() == [job.id]
    assert follower.tick() == []


def test_a_job_that_waits_hears_when_the_queue_moves_and_a_running_one_does_not(
    store: SqlStore, follower: Follower
) -> None:
    head, running, waiting = add(store), add(store), add(store)
    store.claim(first(running), "t", 1.0)
    follower.events.follow(running.id)
    follower.events.follow(waiting.id)
    follower.tick()
    store.claim(first(head), "u", 1.0)
    assert follower.tick() == [waiting.id]
    store.give_back(first(head), "u", 1.0)
    assert follower.tick() == [waiting.id]
    assert store.renew_leases(["t"]) == {"t"}  # nothing that anybody could see
    store.sweep_leases(1.0)
    assert follower.tick() == []


def test_nothing_is_asked_while_nobody_follows_and_one_query_serves_all(store: SqlStore, follower: Follower) -> None:
    jobs = [add(store) for _ in range(5)]
    store.claim(first(jobs[0]), "t", 1.0)
    assert (follower.tick(), follower.looks) == ([], 0)
    unfollow = [follower.events.follow(job.id) for job in jobs]
    assert (follower.tick(), follower.looks) == (sorted(job.id for job in jobs), 1)
    for end in unfollow:
        end()
    assert (follower.tick(), follower.looks) == ([], 1)


def test_one_that_lets_go_twice_does_not_let_go_for_another(store: SqlStore, follower: Follower) -> None:
    job = add(store)
    ends = [follower.events.follow(job.id) for _ in range(2)]
    ends[0]()
    ends[0]()
    assert follower.tick() == [job.id]


def test_a_change_between_two_follows_is_heard(store: SqlStore, follower: Follower) -> None:
    job = add(store)
    store.claim(first(job), "t", 1.0)
    follower.events.follow(job.id)()
    store.report_progress(first(job), "t", 0.5, "upscaling")
    follower.events.follow(job.id)
    assert follower.tick() == [job.id]


def test_a_hint_is_told_of_only_to_followers(follower: Follower) -> None:
    follower.events.follow("a")
    follower.events.hear(["a", "b"])
    assert follower.heard == ["a"]


@needs_postgres
def test_two_processes_hear_each_other(tmp_path: Path) -> None:
    url = IMPLEMENTATIONS["postgres"](tmp_path)
    one, two = SqlStore(url), SqlStore(url)
    one.open()
    two.open()
    follower = Follower(two)
    job = one.add_job(ME, [photo()], "{}", "local", 9, 1.0)
    follower.events.follow(job.id)
    follower.tick()
    one.claim(first(job), "t", 1.0)
    assert follower.tick() == [job.id]
    one.close()
    two.close()


# The loop around it.


class Ended:
    """A watch over the sign-ins of a store."""

    def __init__(self, store: SqlStore) -> None:
        self.told: list[set[str]] = []
        self.watch = ChangeWatch(
            store, Metrics(), look=lambda: None, forget_sessions=lambda ids: self.told.append(set(ids))
        )


def test_a_sign_out_at_another_server_is_told_of_once(store: SqlStore) -> None:
    ended = Ended(store)
    ended.watch.tick(0.0, 10.0)
    store.accounts.end_session("one", 8e12)
    ended.watch.tick(SESSIONS_SECONDS / 2, 10.0)
    assert ended.told == []  # not with every look
    ended.watch.tick(SESSIONS_SECONDS, 10.0)
    store.accounts.end_session("two", 5.0)  # of a cookie that is too old already
    store.accounts.end_session("three", 9e12)
    ended.watch.tick(SESSIONS_SECONDS * 2, 10.0)
    ended.watch.tick(SESSIONS_SECONDS * 3, 10.0)
    assert ended.told == [{"one"}, {"three"}]


def test_the_thread_looks_until_it_is_stopped_and_an_outage_is_said_once(
    store: SqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        raise Unavailable("database_unavailable", "It is away.")

    watch = ChangeWatch(store, Metrics(), look=look)
    watch.start()
    until(lambda: looks >= 3)
    assert watch.state is ThreadState.RUNNING
    watch.stop()
    assert str(watch.state) == "stopped"
    assert caplog.text.count("cannot be seen: It is away.") == 1
