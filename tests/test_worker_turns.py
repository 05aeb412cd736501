"""Owners in turn: nobody's photo waits behind more than the one in work, however much another owner has sent.

Where the backend shares its device not even behind that one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import DeviceLost, Unprocessable
from app.images import Decoder
from app.jobs.memory_need import NETWORK_BYTES, PROCESS_BYTES, attempt_bytes, need_bytes
from app.store import Job
from app.worker import Worker
from app.worker.active_runs import ActiveRuns, Step
from app.worker.ready_photos import ReadyPhotos
from tests.harness import Gate, Harness, photo_bytes, until

Make = Callable[..., tuple[Harness, Worker]]
LOUD, QUIET, THIRD = "loud", "quiet", "third"


@pytest.fixture
def make(tmp_path: Path, decoder: Decoder) -> Iterator[Make]:
    made: list[tuple[Harness, Worker]] = []

    def build(decode: Any = None, memory_bytes: int | None = None) -> tuple[Harness, Worker]:
        harness = Harness(tmp_path, None, decode or decoder)
        harness.open()
        parts = (harness.runner, harness.store, harness.metrics, harness.queue)
        # No rescan: every photo must be woken for.
        worker = Worker(*parts, rescan_seconds=60.0, stop_grace_seconds=5.0, memory_bytes=memory_bytes)
        made.append((harness, worker))
        return harness, worker

    yield build
    for harness, worker in made:
        if isinstance(harness.backend.on_tile, Gate):
            harness.backend.on_tile.opened.set()
        worker.stop()
        harness.store.close()


def submit(harness: Harness, owner: str, photos: int = 1) -> Job:
    uploads = [harness.upload(photo_bytes(seed=number)) for number in range(photos)]
    job = harness.store.add_job(owner, uploads, '{"scale": 2}', "local", 1000, time.time())
    for attempt in job.attempts:
        harness.queue.publish(attempt.id)
    return job


def follow(
    harness: Harness, worker: Worker, gate: Gate, on_begin: Callable[[str], None] = lambda owner: None
) -> list[str]:
    """The owners of the photos in the order in which their restorations began; the first is held by the gate."""
    began: list[str] = []

    def on_tile(number: int) -> None:
        if number == 0:
            (run,) = worker.active_runs.at(Step.RESTORING)
            began.append(run.owner)
            on_begin(run.owner)
        if len(began) == 1:
            gate(number)

    harness.backend.on_tile = on_tile
    return began


def ended(harness: Harness) -> bool:
    counts = harness.store.counts()
    return counts.queued == 0 and counts.processing == 0


def ahead(worker: Worker) -> list[str]:
    return [run.owner for run in worker.active_runs.at(Step.READY)]


def test_another_owners_photo_passes_the_one_that_is_ready_and_all_that_wait(make: Make) -> None:
    harness, worker = make()
    gate = Gate()
    began = follow(harness, worker, gate, lambda owner: until(lambda: owner != QUIET or THIRD in ahead(worker) + began))
    worker.start()
    submit(harness, LOUD, 6)
    until(gate.reached.is_set)
    until(lambda: ahead(worker) == [LOUD])
    submit(harness, QUIET, 2)
    until(lambda: ahead(worker) == [LOUD, QUIET])
    submit(harness, THIRD, 1)
    gate.opened.set()
    until(lambda: ended(harness))
    assert began[:4] == [LOUD, QUIET, THIRD, LOUD]
    assert sorted(began[4:6]) == [LOUD, QUIET]
    assert began[6:] == [LOUD] * 3


def test_one_photo_of_an_owner_and_two_in_all_are_ahead(make: Make) -> None:
    harness, worker = make()
    gate = Gate()
    follow(harness, worker, gate)
    worker.start()
    jobs = [submit(harness, LOUD, 5)]
    until(lambda: ahead(worker) == [LOUD])
    jobs += [submit(harness, owner, 2) for owner in (QUIET, THIRD)]
    until(lambda: len(ahead(worker)) == 2)
    harness.queue.publish(jobs[0].attempts[4].id)
    until(lambda: harness.queue.all_heard())
    assert (ahead(worker), harness.store.counts().processing) == ([LOUD, QUIET], 3)
    gate.opened.set()
    until(lambda: ended(harness))


def test_without_memory_for_two_the_second_owner_waits_for_the_place_and_is_next(make: Make) -> None:
    harness, worker = make(memory_bytes=PROCESS_BYTES + 10**9)
    gate = Gate()
    began = follow(harness, worker, gate)
    submit(harness, LOUD, 4)
    encoding = worker.active_runs.admit("e" * 32, "local", lambda _: True, alone=False, owner=THIRD, need_bytes=10**9)
    assert encoding is not None
    worker.active_runs.move(encoding, Step.FINISHING)
    worker.start()
    until(gate.reached.is_set)
    until(lambda: ahead(worker) == [LOUD])
    submit(harness, QUIET, 1)
    until(lambda: worker.active_runs.waiting("local") == 1)
    assert ahead(worker) == [LOUD]
    worker.active_runs.leave(encoding)
    until(lambda: ahead(worker) == [LOUD, QUIET])
    gate.opened.set()
    until(lambda: ended(harness))
    assert began[:2] == [LOUD, QUIET]


def test_a_photo_claimed_in_place_of_the_chosen_one_is_judged_before_it_is_decoded(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process was quicker for a small photo, and the next one is so large that it must be alone."""
    harness, worker = make(memory_bytes=PROCESS_BYTES + 10**9)
    beside = worker.active_runs.admit("e" * 32, "another", lambda _: True, alone=False)
    small = submit(harness, QUIET)
    large = harness.store.add_job(
        THIRD, [harness.upload(photo_bytes(), 20_000, 20_000)], '{"scale": 2}', "local", 9, 2e9
    )
    claim_next, first = harness.store.claim_next, small.attempts[0].id
    given_back: list[str] = []

    def quicker(token: str, now: float, **wanted: Any) -> Any:
        harness.store.claim(first, "of another process", 5.0)
        claimed = claim_next(token, now, **wanted)
        given_back.append(getattr(claimed, "id", ""))
        return claimed

    monkeypatch.setattr(harness.store, "claim_next", quicker)
    worker.start()
    until(lambda: worker.active_runs.waiting("local") == 1)  # chosen again, to be alone
    (attempt,) = harness.store.job(THIRD, large.id).attempts
    assert (attempt.status.value, attempt.tries, given_back) == ("queued", 0, [attempt.id])
    worker.active_runs.leave(beside or "")
    until(lambda: harness.store.job(THIRD, large.id).attempts[0].status.ended)
    assert harness.store.job(THIRD, large.id).attempts[0].status.value == "completed"


def test_a_run_takes_another_attempt_over_only_where_that_would_be_let_in() -> None:
    runs = ActiveRuns(time.monotonic)
    token = runs.admit("a" * 32, "local", lambda _: True, alone=False, owner=LOUD, need_bytes=1) or ""
    assert runs.take_over(token, "b" * 32, lambda _: False, alone=True, owner=QUIET, need_bytes=5)  # it is alone
    run = runs.run(token)
    assert run is not None
    assert (run.attempt_id, run.owner, run.need_bytes, run.alone) == ("b" * 32, QUIET, 5, True)
    runs.leave(token)
    token, other = (runs.admit(name * 32, "local", lambda _: True, alone=False) or "" for name in "cd")
    assert not runs.take_over(token, "b" * 32, lambda _: True, alone=True)
    assert not runs.take_over(token, "b" * 32, lambda seen: len(seen) != 1, alone=False)
    assert runs.take_over(token, "b" * 32, lambda seen: [run.token for run in seen] == [other], alone=False)
    assert not runs.take_over("gone", "b" * 32, lambda _: True, alone=False)


def share_device(harness: Harness, worker: Worker) -> tuple[Gate, list[list[str]]]:
    """A backend whose photos all stand at the gate after they began; and the owners at work whenever one begins."""
    gate, together = Gate(), []

    def on_tile(number: int) -> None:
        if number == 0:
            together.append(sorted(run.owner for run in worker.active_runs.at(Step.RESTORING)))
            gate(number)

    harness.backend.shares_device = True
    harness.backend.expecting_photo = contextlib.nullcontext
    harness.backend.on_tile = on_tile
    return gate, together


def at_work(worker: Worker) -> list[str]:
    return sorted(run.owner for run in worker.active_runs.at(Step.RESTORING))


def test_on_a_shared_device_one_other_owners_photo_is_restored_beside_the_one_at_work(make: Make) -> None:
    harness, worker = make()
    gate, together = share_device(harness, worker)
    worker.start()
    submit(harness, LOUD, 4)
    until(lambda: (at_work(worker), ahead(worker)) == ([LOUD], [LOUD]))
    submit(harness, QUIET, 2)
    until(lambda: at_work(worker) == [LOUD, QUIET])
    submit(harness, THIRD, 1)
    until(lambda: len(ahead(worker)) == 2)
    until(lambda: len(together) == 2)
    gate.opened.set()
    until(lambda: ended(harness))
    assert together[:2] == [[LOUD], [LOUD, QUIET]]
    assert all(len(owners) == len(set(owners)) <= 2 for owners in together)


def test_of_two_photos_at_work_only_the_one_that_lost_the_card_burns_a_try(make: Make) -> None:
    harness, worker = make()
    gate, _ = share_device(harness, worker)
    restore = harness.backend.restore

    def lose(*arguments: Any) -> Any:
        restore(*arguments)
        raise DeviceLost("cuda:0 is lost")

    harness.backend.restore = lose
    worker.start()
    jobs = [submit(harness, LOUD, 2)]
    until(lambda: at_work(worker) == [LOUD])
    jobs.append(submit(harness, QUIET, 1))
    until(lambda: at_work(worker) == [LOUD, QUIET])
    gate.opened.set()
    until(lambda: worker.card_lost and worker.active_runs.is_empty())
    until(lambda: harness.store.counts().processing == 0)
    rows = [attempt for job in jobs for attempt in harness.store.job(job.owner, job.id).attempts]
    assert {attempt.status.value for attempt in rows} == {"queued"}
    assert sorted(attempt.tries for attempt in rows) == [0, 0, 1]


@pytest.mark.parametrize("lacking_bytes", [0, 1])
def test_a_photo_is_restored_beside_another_only_where_a_second_network_fits(make: Make, lacking_bytes: int) -> None:
    photo_bytes_each = need_bytes(24 * 16, 2.0, "image/jpeg")
    in_memory = PROCESS_BYTES + NETWORK_BYTES + 2 * photo_bytes_each
    harness, worker = make(memory_bytes=in_memory - lacking_bytes)
    gate, together = share_device(harness, worker)
    worker.start()
    for number, owner in enumerate((LOUD, QUIET, THIRD), 1):
        (attempt,) = submit(harness, owner).attempts
        assert attempt_bytes(attempt) == photo_bytes_each
        until(lambda: len(at_work(worker) + ahead(worker)) == number)  # noqa: B023 - asked at once
    if not lacking_bytes:
        until(lambda: len(together) == 2)
    gate.opened.set()
    until(lambda: ended(harness))
    assert together[:2] == ([[LOUD], [QUIET]] if lacking_bytes else [[LOUD], [LOUD, QUIET]])


@pytest.mark.parametrize("memory_bytes", [None, PROCESS_BYTES + NETWORK_BYTES])
def test_the_photo_of_an_owner_who_had_none_is_decoded_in_haste(make: Make, memory_bytes: int | None) -> None:
    """Where the two will share the device; a second photo of either owner makes nobody stand still."""
    harness, worker = make(memory_bytes=memory_bytes)
    gate, _ = share_device(harness, worker)
    expected: list[list[str]] = []

    @contextlib.contextmanager
    def expecting() -> Iterator[None]:
        expected.append(at_work(worker))
        yield

    harness.backend.expecting_photo = expecting
    worker.start()
    submit(harness, LOUD, 3)
    until(lambda: (at_work(worker), ahead(worker)) == ([LOUD], [LOUD]))
    submit(harness, QUIET, 2)
    if memory_bytes is None:
        until(lambda: (at_work(worker), ahead(worker)) == ([LOUD, QUIET], [LOUD, QUIET]))
        assert expected == [[LOUD]]
    gate.opened.set()
    until(lambda: ended(harness))
    assert memory_bytes is None or expected == []


def test_photos_that_fail_while_they_are_decoded_leave_nobody_asleep(make: Make) -> None:
    """Their wake-ups were spent while an owner had one ahead already."""

    class Failing:
        def decode(self, *_: object, **__: object) -> None:
            raise Unprocessable("undecodable_image", "Broken.")

    harness, worker = make(Failing())
    worker.start()
    jobs = [submit(harness, owner, 5) for owner in (LOUD, QUIET)]
    until(lambda: ended(harness), 10.0)
    assert {attempt.error_code for job in jobs for attempt in harness.store.job(job.owner, job.id).attempts} == {
        "undecodable_image"
    }


def test_the_owner_served_least_recently_is_next() -> None:
    ready = ReadyPhotos(lambda: False)

    def photo(owner: str) -> Any:
        return SimpleNamespace(attempt=SimpleNamespace(owner=owner), token=owner, shares_device=False)

    for owner in (LOUD, QUIET):
        ready.put(photo(owner))
    taken = []
    for coming in (LOUD, QUIET, THIRD, LOUD):
        found = ready.take()
        assert found is not None
        taken.append(found.attempt.owner)
        ready.passed_on(found.token)
        ready.put(photo(coming))
    assert taken == [LOUD, QUIET, LOUD, THIRD]
    ready.close()
    for owner in (QUIET, LOUD):
        last = ready.take()
        assert last is not None
        assert last.attempt.owner == owner
        ready.passed_on(last.token)
    assert ready.take() is None
