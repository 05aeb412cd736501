"""The lease keeper: renews before it sweeps, believes no lease after an outage, and lets a lost run be repeated."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import Conflict, Unavailable
from app.jobs.lease_keeper import LeaseKeeper, LeaseTimes
from app.jobs.unserved_backends import LONGEST_GAP_SECONDS, UNSERVED_SECONDS
from app.jobs.worker_reports import WorkerReport
from app.metrics import Metrics
from app.queue import LocalQueue
from app.store import AttemptStatus, HeldKey, SqlStore
from app.store.idempotency import CRASHED_SECONDS
from app.worker import Worker
from tests.databases import Clock
from tests.harness import Gate, Harness, until
from tests.test_store_contract import ME, add, first, photo

TIMES = LeaseTimes(lease_seconds=60.0, renew_seconds=15.0, sweep_seconds=20.0, calm_seconds=30.0)


class Keeping:
    """A keeper on a real store; the database's clock and the monotonic one go together."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.queue, self.metrics = Clock(), LocalQueue(), Metrics()
        self.store = SqlStore(f"sqlite:///{folder}/jobs.sqlite3", clock=self.clock)
        self.store.open()
        self.held: set[str] = set()
        self.settled = 0
        self.woken = self.queue.open_consumer()
        self.keeper = LeaseKeeper(
            self.store, self.queue, self.metrics, TIMES, held=lambda: self.held, settle=self._settle, jitter=lambda: 1.0
        )

    def _settle(self) -> None:
        self.settled += 1

    def tick(self, seconds: float = 0.0) -> None:
        self.clock.now += seconds
        self.keeper.tick(self.clock.now, 1.0)


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    made = Keeping(tmp_path)
    yield made
    made.store.close()


def status(keeping: Keeping, attempt_id: str) -> AttemptStatus:
    found = keeping.store.attempt(attempt_id)
    assert found is not None
    return found.status


def test_what_is_held_lives_on_and_what_nobody_holds_waits_again(keeping: Keeping) -> None:
    kept, lost = first(add(keeping.store)), first(add(keeping.store))
    keeping.store.claim(kept, "kept", 1.0)
    keeping.store.claim(lost, "lost", 1.0)
    keeping.held = {"kept"}
    for _ in range(6):
        keeping.tick(15.0)
    assert (status(keeping, kept), status(keeping, lost)) == (AttemptStatus.PROCESSING, AttemptStatus.QUEUED)
    assert keeping.woken.receive(0.0) == lost
    assert b'restore_attempts_ended_total{status="lapsed"} 1.0' in keeping.metrics.render()
    assert keeping.settled == 6


def test_a_process_that_slept_renews_its_own_before_it_sweeps(keeping: Keeping) -> None:
    attempt_id = first(add(keeping.store))
    keeping.store.claim(attempt_id, "t", 1.0)
    keeping.held = {"t"}
    keeping.tick()
    keeping.tick(9000.0)  # a suspended machine
    assert status(keeping, attempt_id) is AttemptStatus.PROCESSING


def test_after_an_outage_others_may_renew_first(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt_id = first(add(keeping.store))
    keeping.store.claim(attempt_id, "of another process", 1.0)
    keeping.tick()

    def away(_: object) -> set[str]:
        raise Unavailable("database_unavailable", "Away.")

    with monkeypatch.context() as patch:
        patch.setattr(keeping.store, "renew_leases", away)
        with pytest.raises(Unavailable):
            keeping.tick(300.0)
    keeping.tick(5.0)
    keeping.tick(15.0)
    assert status(keeping, attempt_id) is AttemptStatus.PROCESSING  # calm for 15 s only
    keeping.tick(15.0)
    assert status(keeping, attempt_id) is AttemptStatus.QUEUED


def test_a_claim_that_was_lost_is_told_to_the_log(keeping: Keeping, caplog: pytest.LogCaptureFixture) -> None:
    attempt_id = first(add(keeping.store))
    keeping.store.claim(attempt_id, "token", 1.0)
    keeping.held = {"token", "not claimed yet"}
    with caplog.at_level(logging.INFO):
        keeping.tick()
        assert caplog.text == ""
        keeping.store.crashed(attempt_id, "token", 2.0)
        keeping.tick(15.0)
    assert "token lost its claim" in caplog.text


def test_a_submission_that_is_being_taken_is_not_taken_over(keeping: Keeping) -> None:
    begun = keeping.store.idempotency.begin(ME, "k", "d", 1.0)
    with keeping.keeper.keys_in_work.holding(HeldKey(ME, "k", begun.job_id)):
        for _ in range(20):
            keeping.tick(15.0)
            with pytest.raises(Conflict):
                keeping.store.idempotency.begin(ME, "k", "d", 1.0)
    keeping.tick(CRASHED_SECONDS)  # its thread is gone
    assert keeping.store.idempotency.begin(ME, "k", "d", 1.0).job_id == begun.job_id


GPU, CLOUD = WorkerReport(("local",)), WorkerReport(("siliconflow",))


def look(keeping: Keeping, seconds: float, *workers: WorkerReport) -> None:
    """Let time pass in steps of the keeper, in which these workers live."""
    for _ in range(int(seconds / 15.0)):
        for number, report in enumerate(workers):
            keeping.store.workers.report(f"{number}", "host", report.as_facts())
        keeping.tick(15.0)


def waits_for_cloud(keeping: Keeping) -> str:
    return keeping.store.add_job(ME, [photo()], "{}", "siliconflow", 9, 1.0).attempts[0].id


def test_what_no_live_worker_serves_for_long_fails(keeping: Keeping) -> None:
    """The operator took the provider's key out of the workers while photos waited."""
    lost, kept = waits_for_cloud(keeping), first(add(keeping.store))
    look(keeping, UNSERVED_SECONDS, GPU)
    assert status(keeping, lost) is AttemptStatus.QUEUED  # nobody looked in the calm before the first sweep
    look(keeping, 75.0, GPU)
    found = keeping.store.attempt(lost)
    assert found is not None
    assert (found.status, found.error_code, found.ended_at) == (AttemptStatus.FAILED, "backend_unavailable", 1.0)
    assert status(keeping, kept) is AttemptStatus.QUEUED
    assert b'restore_attempts_ended_total{status="failed"} 1.0' in keeping.metrics.render()


@pytest.mark.parametrize("between", [(GPU, CLOUD), (), (GPU, WorkerReport())], ids=["served", "none lives", "unknown"])
def test_the_time_without_a_backend_begins_anew(keeping: Keeping, between: tuple[WorkerReport, ...]) -> None:
    waiting = waits_for_cloud(keeping)
    look(keeping, UNSERVED_SECONDS - 60.0, GPU)
    keeping.clock.now += 60.0  # the reports of before are old
    keeping.store.workers.forget("1")
    look(keeping, 60.0, *between)
    keeping.store.workers.forget("1")
    look(keeping, UNSERVED_SECONDS - 60.0, GPU)
    assert status(keeping, waiting) is AttemptStatus.QUEUED
    look(keeping, 150.0, GPU)
    assert status(keeping, waiting) is AttemptStatus.FAILED


def test_while_no_worker_lives_everything_waits(keeping: Keeping) -> None:
    waiting = waits_for_cloud(keeping)
    look(keeping, 3 * UNSERVED_SECONDS)
    assert status(keeping, waiting) is AttemptStatus.QUEUED


def test_a_process_that_slept_has_not_seen_a_backend_missing(keeping: Keeping) -> None:
    waiting = waits_for_cloud(keeping)
    look(keeping, 60.0, GPU)
    keeping.clock.now += UNSERVED_SECONDS
    look(keeping, UNSERVED_SECONDS - LONGEST_GAP_SECONDS - 60.0, GPU)
    assert status(keeping, waiting) is AttemptStatus.QUEUED


def test_a_run_whose_lease_was_lost_stops_and_its_result_is_dropped(tmp_path: Path) -> None:
    """As after a machine that was frozen for minutes: another process has the photo by then."""
    harness = Harness(tmp_path)
    gate = harness.backend.on_tile = Gate(tile=1)
    worker = Worker(harness.runner, harness.store, harness.metrics, harness.queue)
    harness.open()
    worker.start()
    job = harness.submit()
    harness.queue.publish(job.attempts[0].id)
    until(gate.reached.is_set)
    (token,) = worker.held_tokens()
    assert harness.store.crashed(job.attempts[0].id, token, 5.0)
    assert harness.store.claim(job.attempts[0].id, "of another process", 6.0)
    gate.opened.set()
    until(lambda: worker.held_tokens() == set())
    assert harness.store.holds(job.attempts[0].id, "of another process")
    assert harness.result_files() == []
    worker.drain(5.0)
    harness.close()


def test_what_could_not_be_written_yet_is_still_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(tmp_path)
    harness.open()
    worker = Worker(harness.runner, harness.store, harness.metrics, harness.queue)
    job = harness.submit()

    def refuse(*_: object) -> bool:
        raise Unavailable("storage_full", "Full.")

    with monkeypatch.context() as patch:
        patch.setattr(harness.store, "complete", refuse)
        harness.runner.run_attempt(job.attempts[0].id)
    token = harness.attempts(job)[0].claim
    assert worker.held_tokens() == {token}
    assert harness.runner.settle() == 0
    assert worker.held_tokens() == set()
    assert harness.states(job) == ["completed"]
    harness.close()


class Chosen:
    """A worker that has chosen the first of four photos and waits to be let in, since another lane has one alone."""

    def __init__(self, folder: Path) -> None:
        self.harness = Harness(folder)
        parts = (self.harness.runner, self.harness.store, self.harness.metrics, self.harness.queue)
        self.worker = Worker(*parts, rescan_seconds=1000.0)
        self.harness.open()
        self.jobs = [self.harness.submit() for _ in range(4)]
        self.ids = [job.attempts[0].id for job in self.jobs]
        self.alone = self.worker.active_runs.admit("e" * 32, "another", lambda _: True, alone=True) or ""
        self.worker.start()
        self.harness.queue.publish(self.ids[0])
        until(lambda: self.worker.active_runs.waiting("local") == 1)

    def let_in(self) -> None:
        self.worker.active_runs.leave(self.alone)

    def end(self) -> None:
        self.worker.drain(10.0)
        self.harness.close()


def test_where_another_process_was_quicker_the_next_one_is_taken(tmp_path: Path) -> None:
    chosen = Chosen(tmp_path)
    assert chosen.harness.store.claim(chosen.ids[0], "of another process", 5.0)
    chosen.let_in()
    for job in chosen.jobs[1:]:
        until(lambda job=job: chosen.harness.ended(job))  # type: ignore[misc]  # nothing woke the worker for it
        assert chosen.harness.states(job) == ["completed"]
    assert chosen.harness.attempts(chosen.jobs[0])[0].claim == "of another process"
    chosen.end()


def test_what_crashed_elsewhere_meanwhile_runs_alone(tmp_path: Path) -> None:
    chosen = Chosen(tmp_path)
    store, suspect = chosen.harness.store, chosen.ids[0]
    assert store.claim(suspect, "of another process", 5.0)
    assert store.crashed(suspect, "of another process", 6.0)
    beside: list[int] = []

    def look(_: int) -> None:
        if chosen.worker.health().current_attempt == suspect:
            beside.append(store.counts().processing)

    chosen.harness.backend.on_tile = look
    chosen.let_in()
    until(lambda: all(chosen.harness.ended(job) for job in chosen.jobs))
    assert [chosen.harness.states(job) for job in chosen.jobs] == [["completed"]] * 4
    assert set(beside) == {1}
    chosen.end()
