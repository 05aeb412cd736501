"""Leases, as every `Store` keeps them: by the database's clock alone, found when they run out, and never before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.errors import Unavailable
from app.events import LocalEvents
from app.stages import Stage
from app.storage import new_id
from app.store import Attempt, AttemptStatus, SqlStore, Store
from tests.databases import IMPLEMENTATIONS, Clock
from tests.test_store_contract import add, first, photo, result

LEASE_SECONDS = 60.0
WALL = 7_000_000.0  # of the machine that calls: far from the database's clock, and of no account for leases


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def events() -> LocalEvents:
    return LocalEvents()


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path, events: LocalEvents, clock: Clock) -> Iterator[Store]:
    url = IMPLEMENTATIONS[request.param](tmp_path)
    opened = SqlStore(url, events, worker="host:7", lease_seconds=LEASE_SECONDS, clock=clock)
    opened.open()
    yield opened
    opened.close()


def row(store: Store, attempt_id: str) -> Attempt:
    found = store.attempt(attempt_id)
    assert found is not None
    return found


def test_a_claim_says_who_runs_and_until_when_by_the_clock_of_the_database(store: Store, clock: Clock) -> None:
    attempt_id = first(add(store))
    claimed = store.claim(attempt_id, "t", WALL)
    assert claimed is not None
    assert (claimed.worker, claimed.lease_until, claimed.started_at) == ("host:7", clock.now + LEASE_SECONDS, WALL)
    assert store.sweep_leases(WALL + 1e6).lapsed == ()  # a machine whose clock is ahead takes nothing away


def test_a_lease_that_ran_out_ends_the_run_and_a_renewed_one_does_not(store: Store, clock: Clock) -> None:
    kept, lost = first(add(store)), first(add(store))
    store.claim(kept, "kept", WALL)
    store.claim(lost, "lost", WALL)
    clock.now += LEASE_SECONDS - 1
    assert store.renew_leases(["kept", "of nobody"]) == {"kept"}
    assert store.sweep_leases(WALL).lapsed == ()
    clock.now += 2
    assert store.sweep_leases(WALL).lapsed == (lost,)
    assert (row(store, lost).status, row(store, lost).tries) == (AttemptStatus.QUEUED, 1)
    assert (row(store, lost).lapses, row(store, lost).burned_tries) == (1, 0)
    assert (row(store, lost).worker, row(store, lost).lease_until) == (None, None)
    assert store.holds(kept, "kept")
    assert store.renew_leases(["kept", "lost"]) == {"kept"}


def lapse(store: Store, clock: Clock, attempt_id: str, token: str) -> None:
    assert store.claim(attempt_id, token, WALL) is not None
    clock.now += LEASE_SECONDS + 1
    assert store.sweep_leases(WALL).lapsed == (attempt_id,)


def test_lost_leases_burn_no_try_and_end_with_the_fifth_all_the_same(store: Store, clock: Clock) -> None:
    """Frozen hosts and cut networks are not the photo's fault; one that takes its host along never loops for ever."""
    attempt_id = first(add(store))
    for token in "abcd":
        lapse(store, clock, attempt_id, token)
        assert (row(store, attempt_id).status, row(store, attempt_id).burned_tries) == (AttemptStatus.QUEUED, 0)
    lapse(store, clock, attempt_id, "e")
    failed = row(store, attempt_id)
    assert (failed.status, failed.error_code, failed.ended_at) == (AttemptStatus.FAILED, "worker_lost", WALL)


def test_after_lost_leases_there_are_still_three_tries(store: Store, clock: Clock) -> None:
    attempt_id = first(add(store))
    lapse(store, clock, attempt_id, "a")
    lapse(store, clock, attempt_id, "b")
    for token in "cde":
        assert row(store, attempt_id).status is AttemptStatus.QUEUED
        assert store.claim(attempt_id, token, WALL) is not None
        store.crashed(attempt_id, token, WALL)
    assert (row(store, attempt_id).status, row(store, attempt_id).error_code) == (
        AttemptStatus.FAILED,
        "worker_crashed",
    )


def test_a_lapsed_run_is_alone_at_its_next_one(store: Store, clock: Clock) -> None:
    attempt_id = first(add(store))
    lapse(store, clock, attempt_id, "a")
    assert row(store, attempt_id).tries == 1  # what lanes look at
    assert store.claim_next("b", WALL) is None


def test_a_sent_attempt_whose_lease_ran_out_is_not_sent_again(store: Store, clock: Clock) -> None:
    attempt_id = first(add(store))
    store.claim(attempt_id, "t", WALL)
    store.mark_sent(attempt_id, "t")
    clock.now += LEASE_SECONDS + 1
    store.sweep_leases(WALL)
    assert (row(store, attempt_id).status, row(store, attempt_id).error_code) == (AttemptStatus.FAILED, "interrupted")


ENDS: dict[str, Callable[[Store, str], object]] = {
    "completed": lambda store, a: store.complete(a, "t", result(a), WALL),
    "failed": lambda store, a: store.fail(a, "t", "code", "message", WALL),
    "cancelled": lambda store, a: store.cancel_or_remove("me", row(store, a).job_id, WALL),
    "given back": lambda store, a: store.give_back(a, "t", WALL),
}


@pytest.mark.parametrize("how", ENDS)
def test_what_ended_has_no_lease_that_could_run_out(store: Store, clock: Clock, how: str) -> None:
    attempt_id = first(add(store))
    store.claim(attempt_id, "t", WALL)
    ENDS[how](store, attempt_id)
    ended = row(store, attempt_id)
    assert ended.lease_until is None
    clock.now += 1e6
    assert store.sweep_leases(WALL).lapsed == ()
    assert store.renew_leases(["t"]) == set()
    assert row(store, attempt_id) == ended


def test_followers_hear_of_a_lost_run(store: Store, clock: Clock, events: LocalEvents) -> None:
    job, other = add(store), add(store)
    store.claim(first(job), "t", WALL)
    heard: list[str] = []
    events.subscribe(heard.append)
    clock.now += LEASE_SECONDS + 1
    store.sweep_leases(WALL)
    assert heard == [job.id, other.id]  # the other's place in the queue moved


def test_what_waits_for_long_is_notified_of_again_and_only_the_oldest(store: Store, clock: Clock) -> None:
    waiting = [first(add(store)) for _ in range(20)]
    assert store.sweep_leases(WALL, forgotten_seconds=60.0).to_notify == ()  # seen for the first time
    clock.now += 59
    assert store.sweep_leases(WALL, forgotten_seconds=60.0).to_notify == ()
    clock.now += 2
    assert store.sweep_leases(WALL, forgotten_seconds=60.0).to_notify == tuple(waiting[:16])
    assert store.sweep_leases(WALL, forgotten_seconds=60.0).to_notify == ()
    clock.now += 61
    store.claim(waiting[0], "t", WALL)
    assert store.sweep_leases(WALL, forgotten_seconds=60.0).to_notify == tuple(waiting[1:16])


def test_a_lost_run_is_notified_of_at_once(store: Store, clock: Clock) -> None:
    attempt_id = first(add(store))
    store.claim(attempt_id, "t", WALL)
    clock.now += LEASE_SECONDS + 1
    assert store.sweep_leases(WALL).to_notify == (attempt_id,)


def test_a_claim_can_be_bound_to_the_number_of_tries_it_was_judged_by(store: Store) -> None:
    """Between reading a row and claiming it, another process may have tried and crashed: then it must run alone."""
    attempt_id = first(add(store))
    store.claim(attempt_id, "a", WALL)
    store.crashed(attempt_id, "a", WALL)
    assert store.claim(attempt_id, "b", WALL, tries=0) is None
    assert row(store, attempt_id).status is AttemptStatus.QUEUED
    assert store.claim(attempt_id, "b", WALL, tries=1) is not None


def test_the_next_untried_attempt_is_that_of_the_owner_whose_turn_it_is(store: Store, clock: Clock) -> None:
    """As the lanes of one machine choose, whatever the clocks of the hosts say that claimed before."""
    jobs = [add(store, photos=3, owner="greedy"), add(store, owner="modest"), add(store, owner="third")]
    owners = {attempt.id: job.owner for job in jobs for attempt in job.attempts}
    order = []
    for number in range(5):
        clock.now += 1
        head = store.queued_ids(1)
        taken = store.claim_next(f"t{number}", WALL - number)
        assert taken is not None
        assert [taken.id] == head
        order.append(owners[taken.id])
    assert order == ["greedy", "modest", "third", "greedy", "greedy"]


def test_whose_turn_it_is_hangs_on_the_clock_of_the_database_alone(store: Store, clock: Clock) -> None:
    ahead, behind = 600.0, 0.0
    mine, others = add(store, photos=2, owner="mine"), add(store, photos=2, owner="others")
    assert store.claim(mine.attempts[0].id, "a", WALL + ahead) is not None
    clock.now += 1
    assert store.claim(others.attempts[0].id, "b", WALL + behind) is not None
    assert store.queued_ids() == [mine.attempts[1].id, others.attempts[1].id]


def test_the_one_that_was_read_as_the_next_is_taken_unless_it_is_gone_or_was_tried(store: Store) -> None:
    ids = [first(add(store)) for _ in range(3)]
    assert [attempt.id for attempt in store.waiting(2)] == ids[:2]
    taken = store.claim_next("a", WALL, first=ids[1], stage=Stage.WAITING)
    assert taken is not None
    assert (taken.id, taken.stage, taken.claim) == (ids[1], Stage.WAITING, "a")
    assert taken == row(store, ids[1])
    other = store.claim_next("b", WALL, first=ids[1])
    assert other is not None
    assert (other.id, other.stage) == (ids[0], Stage.DECODING)
    store.crashed(ids[0], "b", WALL)  # it waits again, and must run alone
    last = store.claim_next("c", WALL, first=ids[0])
    assert last is not None
    assert last.id == ids[2]


def test_an_owners_turn_is_over_whatever_became_of_its_run(store: Store, clock: Clock) -> None:
    mine, others = add(store, photos=2, owner="mine"), add(store, photos=2, owner="others")
    assert store.queued_ids(1) == [mine.attempts[0].id]
    store.claim(mine.attempts[0].id, "a", WALL)
    store.give_back(mine.attempts[0].id, "a", WALL)
    assert store.queued_ids(1) == [others.attempts[0].id]
    store.accounts.forget_usage(clock.now + 1.0)  # whoever was not served for long is as one who never was
    assert store.queued_ids(1) == [mine.attempts[0].id]


@pytest.mark.parametrize("how", ["by id", "next"])
def test_a_claim_stands_though_its_turn_could_not_be_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Raised, the error would say that nothing was claimed, and the row would stay in work with nobody at it."""

    def refuse(*_: object) -> None:
        raise Unavailable("storage_full", "Full.")

    attempt_id = first(add(store))
    monkeypatch.setattr("app.store.queue_order.took_turn", refuse)
    claimed = store.claim(attempt_id, "a", WALL) if how == "by id" else store.claim_next("a", WALL)
    assert claimed is not None
    assert (claimed.id, row(store, attempt_id).claim) == (attempt_id, "a")


def test_those_that_wait_are_told_from_the_others_with_their_backends(store: Store) -> None:
    ids = [store.add_job("me", [photo()], "{}", name, 99, 1.0).attempts[0].id for name in ("cloud", "local", "local")]
    store.claim(ids[1], "a", WALL)
    assert store.waiting_among([*ids, "0" * 32]) == {ids[0]: "cloud", ids[2]: "local"}
    assert store.waiting_among([]) == {}


def test_the_next_untried_attempt_is_taken_in_order_and_by_backend(store: Store) -> None:
    ids = [store.add_job("me", [photo()], "{}", name, 99, 1.0).attempts[0].id for name in ("cloud", "local", "local")]
    store.claim(ids[1], "a", WALL)
    store.crashed(ids[1], "a", WALL)  # must run alone, so it is nobody's next
    taken = store.claim_next("b", WALL, but=["cloud"])
    assert taken is not None
    assert (taken.id, taken.status, taken.claim, taken.tries) == (ids[2], AttemptStatus.PROCESSING, "b", 1)
    assert store.claim_next("c", WALL, but=["cloud"]) is None
    cloud = store.claim_next("c", WALL, only="cloud")
    assert cloud is not None
    assert cloud.id == ids[0]


@pytest.mark.parametrize("how", ["by id", "next"])
def test_a_hundred_racing_claims_of_25_rows_win_each_once(store: Store, how: str) -> None:
    waiting = [first(add(store)) for _ in range(25)]
    won: list[Attempt] = []

    def run(start: int) -> None:
        for number in range(25):
            token = new_id()
            if how == "by id":
                claimed = store.claim(waiting[(start + number) % 25], token, WALL)
            else:
                claimed = store.claim_next(token, WALL)
            if claimed is not None:
                assert claimed.claim == token
                won.append(claimed)

    threads = [threading.Thread(target=run, args=(start % 3,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(attempt.id for attempt in won) == sorted(waiting)
    assert all(row(store, attempt.id).claim == attempt.claim for attempt in won)
