"""The lanes of the worker: a waiting backend runs beside the local one, bounded; every guarantee holds across both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import Cancelled, Unavailable
from app.images import Decoder, Picture
from app.options import RestoreOptions
from app.results import RestorationResult
from app.stages import OnProgress, Stage
from app.store import Job, SqlStore
from app.worker import Worker
from app.worker.active_runs import Step
from tests.harness import OWNER, Gate, Harness, photo_bytes, until

CLOUD = "siliconflow"
Make = Callable[..., tuple[Harness, Worker]]


class Provider:
    """A backend that says "sent" and waits for its gate, with a word of progress now and then, as the real one does."""

    name = CLOUD

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.calls = self.at_once = self.most_at_once = 0
        self.before_sending: Callable[[], object] = lambda: None
        self._lock = threading.Lock()

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        self.before_sending()
        if not on_progress(0.05, Stage.SENDING):
            raise Cancelled
        with self._lock:
            self.calls += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            while not self.gate.wait(0.02):
                if not on_progress(0.1, Stage.PROVIDER):
                    raise Cancelled
        finally:
            with self._lock:
                self.at_once -= 1
        return RestorationResult(Picture(255 - picture.rgb, source_format="PNG"), "cloud", 0.1, {})


@pytest.fixture
def make(tmp_path: Path, decoder: Decoder) -> Iterator[Make]:
    made: list[tuple[Harness, Worker]] = []

    def build(provider: Any = None, most: int = 2, **options: Any) -> tuple[Harness, Worker]:
        harness = Harness(tmp_path, None, decoder)
        harness.open()
        if provider is not None:
            harness.backends[CLOUD] = provider
        options = {"rescan_seconds": 0.05, "stop_grace_seconds": 5.0, "waiting": {CLOUD: most}, **options}
        worker = Worker(harness.runner, harness.store, harness.metrics, harness.queue, **options)
        made.append((harness, worker))
        return harness, worker

    yield build
    for harness, worker in made:
        provider = harness.backends.get(CLOUD)
        if isinstance(provider, Provider):
            provider.gate.set()
        worker.stop()
        harness.store.close()


@pytest.fixture
def provider() -> Provider:
    return Provider()


def submit(harness: Harness, worker: Worker, backend: str, photos: int = 1, *, notify: bool = True) -> Job:
    uploads = [harness.upload(photo_bytes(seed=n, kind="PNG")) for n in range(photos)]
    job = harness.store.add_job(OWNER, uploads, '{"scale": 2}', backend, 1000, time.time())
    for attempt in job.attempts:
        if notify:
            harness.queue.publish(attempt.id)
    return job


def test_cloud_photos_do_not_wait_behind_local_ones_nor_the_other_way_round(make: Make, provider: Provider) -> None:
    harness, worker = make(provider)
    gate = harness.backend.on_tile = Gate()
    worker.start()
    local = submit(harness, worker, "local", 3)
    until(gate.reached.is_set)
    provider.gate.set()
    cloud = submit(harness, worker, CLOUD, 4)
    until(lambda: harness.ended(cloud))  # while the local lane stands still
    assert harness.states(cloud) == ["completed"] * 4
    assert "completed" not in harness.states(local)
    provider.gate.clear()
    held = submit(harness, worker, CLOUD, 2)
    until(lambda: provider.at_once == 2)
    gate.opened.set()
    until(lambda: harness.ended(local))  # while the cloud lane stands still
    assert harness.states(local) == ["completed"] * 3
    assert harness.states(held) == ["processing"] * 2
    assert worker.health().current_attempt in {attempt.id for attempt in held.attempts}


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_than_the_set_number_are_with_the_provider_or_in_memory(
    make: Make, provider: Provider, most: int
) -> None:
    harness, worker = make(provider, most=most)
    worker.start()
    job = submit(harness, worker, CLOUD, 6)
    until(lambda: provider.at_once == most)
    # Each thread of the lane holds one photo until it has ended, so nobody is left to take another.
    assert len([thread for thread in threading.enumerate() if thread.name.startswith(f"worker-{CLOUD}-")]) == most
    assert harness.states(job) == ["processing"] * most + ["queued"] * (6 - most)
    provider.gate.set()
    until(lambda: harness.ended(job))
    assert (provider.calls, provider.most_at_once) == (6, most)


def test_each_lane_keeps_its_order_and_its_places(make: Make, provider: Provider) -> None:
    harness, worker = make(provider, most=1)
    gate = harness.backend.on_tile = Gate()
    jobs = [submit(harness, worker, backend) for backend in ("local", CLOUD) * 3]
    assert [harness.store.queue_position(job.id) for job in jobs] == [1, 1, 2, 2, 3, 3]
    worker.start()
    until(lambda: provider.at_once == 1 and gate.reached.is_set() and len(worker.active_runs.at(Step.READY)) == 1)
    assert [harness.store.queue_position(job.id) for job in jobs] == [0, 0, 0, 1, 1, 2]
    provider.gate.set()
    gate.opened.set()
    until(lambda: all(harness.ended(job) for job in jobs))
    for lane in (jobs[0::2], jobs[1::2]):
        began = [harness.attempts(job)[0].started_at or 0.0 for job in lane]
        assert began == sorted(began)


def test_a_lost_bell_is_found_by_the_lane_it_belongs_to(make: Make, provider: Provider) -> None:
    harness, worker = make(provider)
    gate = harness.backend.on_tile = Gate()
    first = submit(harness, worker, "local", 4, notify=False)  # the oldest waiting row is never the cloud lane's
    cloud = submit(harness, worker, CLOUD, 3, notify=False)
    provider.gate.set()
    worker.start()
    until(lambda: harness.ended(cloud))
    gate.opened.set()
    until(lambda: harness.ended(first))
    assert harness.states(cloud) + harness.states(first) == ["completed"] * 7


def test_without_the_backend_its_attempts_fail_with_a_sentence(make: Make) -> None:
    """The key was taken out of the settings while photos waited."""
    harness, worker = make(None)
    job = submit(harness, worker, CLOUD)
    worker.start()
    until(lambda: harness.ended(job))
    assert harness.attempts(job)[0].error_code == "backend_unavailable"


@pytest.mark.parametrize("suspect", ["local", CLOUD])
def test_what_crashed_once_runs_alone_with_nothing_in_any_lane(make: Make, provider: Provider, suspect: str) -> None:
    harness, worker = make(provider)
    provider.gate.set()
    job = submit(harness, worker, suspect, notify=False)
    crashed = job.attempts[0].id
    harness.store.claim(crashed, "a", 1.0)
    harness.store.recover(2.0)
    beside: list[list[str]] = []
    others = [submit(harness, worker, "local", 3, notify=False)]

    def look(*_: object) -> None:
        """While the suspect runs, others come in both lanes; it ends once they wait, or were let in."""
        if not any(run.attempt_id == crashed for run in worker.active_runs.at(*Step)):
            return
        if not beside:
            others.extend(submit(harness, worker, backend, 3) for backend in ("local", CLOUD))
        waiting = worker.active_runs.waiting
        until(lambda: (waiting("local") and waiting(CLOUD)) or len(worker.active_runs.at(*Step)) > 1)
        beside.append([run.attempt_id for run in worker.active_runs.at(*Step)])

    harness.backend.on_tile = provider.before_sending = look
    for each in (others[0], job):
        for attempt in each.attempts:
            harness.queue.publish(attempt.id)
    worker.start()
    until(lambda: harness.ended(job) and all(harness.ended(other) for other in others))
    assert harness.states(job) == ["completed"]
    assert [harness.states(other) for other in others] == [["completed"] * 3] * 3
    assert beside
    assert all(runs == [crashed] for runs in beside)


def test_a_suspect_is_not_kept_waiting_by_a_busy_other_lane(make: Make, provider: Provider) -> None:
    """Nobody else comes in while one waits for an empty house, so a steady stream cannot starve it."""
    harness, worker = make(provider, rescan_seconds=60.0)
    worker.start()
    stream = submit(harness, worker, CLOUD, 6)
    until(lambda: provider.at_once == 2)
    job = submit(harness, worker, "local", notify=False)
    harness.store.claim(job.attempts[0].id, "a", 1.0)
    harness.store.crashed(job.attempts[0].id, "a", 2.0)
    harness.queue.publish(job.attempts[0].id)
    until(lambda: worker.active_runs.waiting("local") == 1)
    provider.gate.set()
    until(lambda: harness.ended(job))
    assert harness.states(job) == ["completed"]
    before = harness.attempts(job)[0].ended_at or 0.0
    until(lambda: harness.ended(stream))
    later = [attempt for attempt in harness.attempts(stream) if (attempt.started_at or 0.0) >= before]
    assert len(later) == 4  # the two that ran were let end, the other four came after it


@pytest.mark.parametrize(("sent", "state", "calls"), [(False, "completed", 1), (True, "failed", 1)])
def test_a_thread_that_dies_is_started_again_and_pays_for_nothing_twice(
    make: Make, provider: Provider, sent: bool, state: str, calls: int
) -> None:
    harness, worker = make(provider, most=1)
    provider.gate.set()
    restore, deaths = provider.restore, [1]

    def dying(picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        if sent or not deaths:
            restored = restore(picture, options, on_progress)
        if deaths:
            deaths.pop()
            raise SystemExit("the thread dies")
        return restored

    provider.restore = dying  # type: ignore[method-assign]
    worker.start()
    job = submit(harness, worker, CLOUD)
    neighbour = submit(harness, worker, CLOUD)
    until(lambda: harness.ended(job) and harness.ended(neighbour))
    assert (harness.states(job), provider.calls) == ([state], calls + 1)
    assert harness.states(neighbour) == ["completed"]
    if sent:
        assert harness.attempts(job)[0].error_code == "interrupted"
    assert worker.health().restarts == 1
    assert b'restore_thread_restarts_total{thread="worker-siliconflow-1"} 1.0' in harness.metrics.render()


def test_draining_lets_a_sent_photo_end_and_keeps_the_rest(make: Make, provider: Provider) -> None:
    harness, worker = make(provider)
    worker.start()
    job = submit(harness, worker, CLOUD, 4)
    until(lambda: provider.at_once == 2)
    threading.Timer(0.1, provider.gate.set).start()
    assert worker.drain(20.0)
    assert harness.states(job) == ["completed", "completed", "queued", "queued"]
    assert provider.calls == 2


def test_at_the_deadline_of_a_drain_a_sent_photo_is_failed_and_never_sent_again(make: Make, provider: Provider) -> None:
    harness, worker = make(provider)
    gate = harness.backend.on_tile = Gate()
    worker.start()
    local, cloud = submit(harness, worker, "local"), submit(harness, worker, CLOUD, 3)
    until(lambda: provider.at_once == 2 and gate.reached.is_set())
    threading.Timer(0.3, gate.opened.set).start()
    assert not worker.drain(0.05)
    assert harness.states(cloud) == ["failed", "failed", "queued"]
    assert {attempt.error_code for attempt in harness.attempts(cloud)} == {"interrupted", None}
    assert harness.store.recover(time.time()) == [local.attempts[0].id, cloud.attempts[2].id]
    assert provider.calls == 2


def test_a_cancelled_photo_leaves_its_place_to_the_next(make: Make, provider: Provider) -> None:
    harness, worker = make(provider, most=1)
    worker.start()
    cancelled, following = submit(harness, worker, CLOUD), submit(harness, worker, CLOUD)
    until(lambda: provider.at_once == 1)
    harness.store.cancel_or_remove(OWNER, cancelled.id, 5.0)
    until(lambda: provider.calls == 2)
    provider.gate.set()
    until(lambda: harness.ended(following))
    assert (harness.states(cancelled), harness.states(following)) == (["cancelled"], ["completed"])
    assert len(harness.result_files()) == 1  # the answer of the cancelled one was dropped


def test_waiting_for_a_provider_is_no_hang_and_silence_is_one(make: Make, provider: Provider) -> None:
    told: list[int] = []
    now = [0.0]
    harness, worker = make(provider, hang_timeout_seconds=0.5, on_hang=lambda: told.append(1), clock=lambda: now[0])
    worker.start()
    submit(harness, worker, CLOUD)
    until(lambda: provider.at_once == 1)
    for _ in range(10):  # six times the timeout, in steps that are shorter
        now[0] += 0.3
        until(lambda: worker.health().silence_seconds == 0.0)  # it waits, and says so
        assert not worker.watch(now[0])
    assert told == []
    silent = threading.Event()

    def say_nothing() -> None:
        silent.set()
        provider.gate.wait(20.0)

    provider.before_sending = say_nothing
    submit(harness, worker, CLOUD)
    until(silent.is_set)
    now[0] += 0.6
    until(lambda: told == [1])  # by the watchdog itself
    provider.gate.set()


def test_nothing_is_sent_when_the_row_cannot_say_so(
    make: Make, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness, worker = make(provider)

    def refuse(*_: Any) -> bool:
        raise Unavailable("storage_full", "There is no free disk space left for jobs; try again later.")

    monkeypatch.setattr(SqlStore, "mark_sent", refuse)
    worker.start()
    job = submit(harness, worker, CLOUD)
    until(lambda: harness.ended(job))
    assert harness.attempts(job)[0].error_code == "storage_full"
    assert provider.calls == 0


def test_a_run_that_lost_its_claim_before_sending_sends_nothing(make: Make, provider: Provider) -> None:
    harness, worker = make(provider)
    job = submit(harness, worker, CLOUD, notify=False)
    provider.before_sending = lambda: harness.store.cancel_or_remove(OWNER, job.id, 5.0)
    worker.start()
    until(lambda: harness.ended(job))
    until(lambda: worker.health().status == "idle")
    assert provider.calls == 0


def test_rows_that_cannot_be_read_are_told_once_and_taken_when_they_can_be_again(
    make: Make, provider: Provider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    harness, worker = make(provider)
    asked: list[str] = []
    names = "waiting", "queued_ids"  # what a wake-up reads, and a rescan
    readable = {name: getattr(harness.store, name) for name in names}

    def refuse(*_: object, only: str | None = None, **__: object) -> list[Any]:
        asked.append(only or "local")
        raise Unavailable("database_unavailable", "The job database cannot be reached.")

    for name in names:
        monkeypatch.setattr(harness.store, name, refuse)
    worker.start()
    job = submit(harness, worker, "local")
    until(lambda: asked.count("local") > 4 and asked.count(CLOUD) > 4)
    told = [record.message for record in caplog.records if "could not be read" in record.message]
    assert len(told) == 2  # of each lane one
    for name, read in readable.items():
        monkeypatch.setattr(harness.store, name, read)
    until(lambda: harness.ended(job))
    assert harness.states(job) == ["completed"]
