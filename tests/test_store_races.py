"""Several processes on one database: whatever they do at the same moment, limits hold and rows stay whole.

Each process is played by a store of its own (SQLite allows one process, so there the threads share one).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.errors import Conflict, InsufficientStorage, NotFound, RestoreError
from app.store import Job, NewPhoto, SqlStore, Store
from tests.databases import IMPLEMENTATIONS
from tests.test_store_contract import ME, add, finish, first, photo, result

Stores = tuple[Store, Store]


@pytest.fixture(params=IMPLEMENTATIONS)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    url = IMPLEMENTATIONS[request.param](tmp_path)
    with contextlib.ExitStack() as opened:
        made: list[SqlStore] = []
        for _ in range(1 if request.param == "sqlite" else 2):
            store = SqlStore(url)
            store.open()
            opened.callback(store.close)
            made.append(store)
        yield made[0], made[-1]


def at_once(works: list[Callable[[], object]]) -> list[object]:
    """Run all works in threads that begin together; what each gave or raised."""
    barrier, outcomes = threading.Barrier(len(works)), list[object](works)

    def run(number: int) -> None:
        barrier.wait()
        try:
            outcomes[number] = works[number]()
        except RestoreError as error:
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_a_queue_of_20_admits_20_of_100_racing_submits(stores: Stores) -> None:
    def submit(number: int) -> Callable[[], object]:
        return lambda: add(stores[number % 2], limit=20)

    outcomes = at_once([submit(number) for number in range(100)])
    assert sum(isinstance(outcome, Job) for outcome in outcomes) == 20
    refused = [outcome for outcome in outcomes if not isinstance(outcome, Job)]
    assert {getattr(outcome, "code", outcome) for outcome in refused} == {"queue_full"}
    assert stores[0].counts().queued == 20


def test_of_two_tabs_that_restore_one_photo_one_is_told_that_it_is_busy(stores: Stores) -> None:
    kept, _ = stores[0].library.add(ME, photo(), 1.0)
    for _ in range(10):
        outcomes = at_once(
            [functools.partial(store.restore_photo, ME, kept.id, "{}", "local", 99, 1.0) for store in stores]
        )
        (job,) = [outcome[0] for outcome in outcomes if isinstance(outcome, tuple)]
        (refused,) = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
        assert refused.code == "photo_busy"
        stores[0].cancel_or_remove(ME, job.id, 2.0)


def test_one_submission_that_two_servers_take_at_once_is_one_job(stores: Stores) -> None:
    """A frozen one that was taken over wakes up: both hear of the same job, whichever made it."""
    kept, _ = stores[0].library.add(ME, photo(), 1.0)
    for number in range(10):
        submits: list[Callable[[], object]] = [
            functools.partial(store.submit, ME, [photo()], "{}", "local", 99, 1.0, job_id=f"{number:032}")
            for store in (*stores, *stores)
        ]
        restores: list[Callable[[], object]] = [
            functools.partial(store.restore_photo, ME, kept.id, "{}", "local", 99, 1.0, job_id=f"a{number:031}")
            for store in (*stores, *stores)
        ]
        outcomes = [*at_once(submits), *at_once(restores)]
        jobs = [outcome[0] for outcome in outcomes if isinstance(outcome, tuple)]
        assert [job.id for job in jobs] == [f"{number:032}"] * 4 + [f"a{number:031}"] * 4
        assert len({job.attempts[0].id for job in jobs}) == 2
        stores[0].cancel_or_remove(ME, jobs[-1].id, 2.0)


def test_of_two_jobs_that_fit_one_by_one_only_one_is_kept(stores: Stores) -> None:
    """Without the lock both processes add up what neither has kept yet."""
    for _ in range(10):
        jobs = [add(stores[0]) for _ in stores]
        for job in jobs:
            finish(stores[0], first(job))
        kept_bytes = photo().bytes + result("x").bytes
        limit = 2 * kept_bytes - 1
        outcomes = at_once(
            [
                functools.partial(store.keeping.keep, ME, job.id, limit, 1.0)
                for store, job in zip(stores, jobs, strict=True)
            ]
        )
        (kept,) = [outcome for outcome in outcomes if isinstance(outcome, Job)]
        (refused,) = [outcome for outcome in outcomes if isinstance(outcome, InsufficientStorage)]
        assert refused.code == "keep_limit_reached"
        stores[0].keeping.let_go(ME, kept.id, 2.0)


def test_equal_bytes_that_come_twice_at_once_are_one_photo(stores: Stores) -> None:
    for number in range(10):
        copies = [dataclasses.replace(photo(), sha256=f"{number:064}") for _ in range(4)]

        def upload(place: int, copies: list[NewPhoto] = copies) -> Callable[[], tuple[str, bool]]:
            def add_one() -> tuple[str, bool]:
                kept, is_new = stores[place % 2].library.add(ME, copies[place], 1.0)
                return kept.id, is_new

            return add_one

        outcomes = at_once([upload(place) for place in range(4)])
        assert len({outcome[0] for outcome in outcomes if isinstance(outcome, tuple)}) == 1
        assert [outcome[1] for outcome in outcomes if isinstance(outcome, tuple)].count(True) == 1
        assert all(isinstance(outcome, tuple) for outcome in outcomes)


def test_a_hundred_racing_claims_of_25_rows_from_two_processes_win_each_once(stores: Stores) -> None:
    waiting = [first(add(stores[0])) for _ in range(25)]

    def claim(number: int) -> Callable[[], object]:
        attempt_id, store = waiting[number % 25], stores[number % 2]
        return lambda: store.claim(attempt_id, f"{number}", 1.0)

    won = [attempt for attempt in at_once([claim(number) for number in range(100)]) if attempt is not None]
    assert sorted(getattr(attempt, "id", str(attempt)) for attempt in won) == sorted(waiting)


def test_users_runs_sweeps_and_the_janitor_at_once_leave_the_rows_whole(stores: Stores) -> None:
    """Refusals are right, errors are not; afterwards everything can be ended and removed."""
    kept = [stores[0].library.add(ME, dataclasses.replace(photo(), sha256=f"{n:064}"), 1.0)[0].id for n in range(3)]
    wrong: list[BaseException] = []

    def live(number: int) -> None:
        store, chance = stores[number % 2], random.Random(number)
        for _ in range(60):
            try:
                _move(store, chance, kept)
            except (Conflict, NotFound):
                pass
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=live, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    store = stores[0]
    for job in store.jobs(ME, 1000):
        store.cancel_or_remove(ME, job.id, 2.0)
    store.expire(before=1e12)
    assert (store.counts().queued, store.counts().processing, store.jobs(ME, 1000)) == (0, 0, [])
    for row in store.library.photos(ME, 100) + store.library.photos(ME, 100, archived=True):
        store.library.remove(ME, row.id)
    assert store.named_files.photo_ids() == set()


def _move(store: Store, chance: random.Random, kept: list[str]) -> None:
    """One move of a user, a run or the janitor, most of them at the same few photos."""
    photo_id = chance.choice(kept)
    kind = chance.choice(["restore", "restore", "run", "run", "run", "select", "archive", "remove", "cancel", "expire"])
    if kind == "restore":
        store.restore_photo(ME, photo_id, "{}", "local", 99, 1.0)
    elif kind == "run":
        claimed = store.claim_next(f"{chance.getrandbits(64)}", 1.0)
        if claimed is not None and claimed.claim is not None:
            store.report_progress(claimed.id, claimed.claim, 0.5, "upscaling")
            store.renew_leases([claimed.claim])
            if chance.random() < 0.7:
                store.complete(claimed.id, claimed.claim, result(claimed.id), 2.0)
            else:
                store.crashed(claimed.id, claimed.claim, 2.0)
    elif kind == "select":
        attempts = store.library.photo(ME, photo_id).attempts
        store.library.select(ME, photo_id, attempts[-1].id if attempts else "0" * 32, 2.0)
    elif kind == "archive" and chance.random() < 0.3:
        store.library.archive(ME, photo_id, 2.0)
    elif kind == "remove" and chance.random() < 0.3:
        store.library.remove(ME, photo_id)
        again = dataclasses.replace(photo(), sha256=f"{chance.getrandbits(64):064}")
        kept[kept.index(photo_id)] = store.library.add(ME, again, 1.0)[0].id
    elif kind == "cancel":
        for job in store.jobs(ME, 2):
            store.cancel_or_remove(ME, job.id, 2.0)
    elif kind == "expire":
        store.sweep_leases(2.0)
        store.expire(before=chance.choice([1.0, 1e12]))
