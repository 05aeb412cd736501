"""The worker: overlap, order, deaths, hangs, and an end in good order."""

from __future__ import annotations

import errno
import itertools
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import images
from app.errors import DeviceLost, Unavailable
from app.images import Decoder, ImageLimits, Picture
from app.store import Attempt, Job, SqlStore
from app.worker import Worker, lane
from app.worker.active_runs import ActiveRuns, Step
from app.worker.lane import LONGEST_PAUSE_SECONDS, NICENESS, ExhaustionPause
from tests.harness import OWNER, Gate, Harness, photo_bytes, until

Make = Callable[..., tuple[Harness, Worker]]


@pytest.fixture
def make(tmp_path: Path, decoder: Decoder) -> Iterator[Make]:
    made: list[tuple[Harness, Worker]] = []

    def build(backend: Any = None, decode: Any = None, **options: Any) -> tuple[Harness, Worker]:
        harness = Harness(tmp_path, backend, decode or decoder)
        harness.open()
        options = {"rescan_seconds": 0.05, "stop_grace_seconds": 5.0, **options}
        worker = Worker(harness.runner, harness.store, harness.metrics, harness.queue, **options)
        made.append((harness, worker))
        return harness, worker

    yield build
    for harness, worker in made:
        worker.stop()
        harness.store.close()


def submit(harness: Harness, worker: Worker, photos: int = 1) -> Job:
    job = harness.submit(*[photo_bytes(seed=n) for n in range(photos)])
    for attempt in job.attempts:
        harness.queue.publish(attempt.id)
    return job


def working_threads() -> list[str]:
    """The worker's threads that have not ended."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("worker-")]


def test_a_batch_is_restored_in_order_and_the_worker_is_idle_again(make: Make) -> None:
    harness, worker = make()
    assert worker.health().status == "stopped"
    worker.start()
    job = submit(harness, worker, photos=5)
    until(lambda: harness.ended(job))
    done = harness.attempts(job)
    assert [attempt.status.value for attempt in done] == ["completed"] * 5
    started = [attempt.started_at or 0.0 for attempt in done]
    assert started == sorted(started)
    assert sorted(harness.result_files()) == sorted(attempt.result_name or "" for attempt in done)
    until(lambda: worker.health().status == "idle")
    assert worker.health().reasons == ()
    assert b"restore_queued_attempts 0.0" in harness.metrics.render()


def test_the_ends_of_runs_are_written_before_the_worker_ends(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database comes back while the worker waits for its next try."""
    harness, worker = make(rescan_seconds=60.0)
    complete, away = harness.store.complete, [True]

    def refuse(*words: Any) -> bool:
        if away[0]:
            raise Unavailable("database_unavailable", "Away.")
        return complete(*words)

    def come_back(_seconds: float) -> bool:
        away[0] = False
        return False

    monkeypatch.setattr(harness.store, "complete", refuse)
    monkeypatch.setattr(worker.hurried, "wait", come_back)
    worker.start()
    job = submit(harness, worker)
    until(harness.runner.unsettled_tokens)
    assert worker.drain(20.0)
    assert harness.states(job) == ["completed"]


def test_a_drain_waits_for_the_database_until_its_deadline_or_a_second_signal(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    harness, worker = make(clock=lambda: now[0])
    tries: list[float] = []

    def settle() -> int:
        tries.append(now[0])
        return 1

    def wait(seconds: float) -> bool:
        now[0] += 4.0
        return False

    monkeypatch.setattr(harness.runner, "settle", settle)
    with monkeypatch.context() as patch:
        patch.setattr(worker.hurried, "wait", wait)
        worker.drain(10.0)
    assert tries == [0.0, 4.0, 8.0, 12.0]
    worker.stop()
    worker.drain(10.0)
    assert tries[4:] == [12.0]


def test_a_lane_without_descriptors_waits_longer_each_time_and_no_more_after_a_success(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    calls = itertools.count(1)

    class Recorded(ExhaustionPause):
        def next_seconds(self) -> float:
            waits.append(super().next_seconds())
            return 0.0

    class WithoutDescriptors(Decoder):
        def decode(self, path: Path, **asked: Any) -> Picture:
            if next(calls) != 4:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().decode(path, **asked)

    monkeypatch.setattr(lane, "ExhaustionPause", Recorded)
    harness, worker = make(decode=WithoutDescriptors(ImageLimits()))
    worker.start()
    job = submit(harness, worker)
    until(lambda: harness.ended(job))
    assert harness.states(job) == ["completed"]
    assert [seconds for seconds in waits if seconds] == [1.0, 2.0, 4.0]
    waits.clear()
    submit(harness, worker)
    until(lambda: len([seconds for seconds in waits if seconds]) >= 2)
    assert [seconds for seconds in waits if seconds][:2] == [1.0, 2.0]


def test_the_wait_for_descriptors_has_a_limit() -> None:
    runs = itertools.count(1)
    pause = ExhaustionPause(lambda: next(runs))
    assert max(pause.next_seconds() for _ in range(20)) == LONGEST_PAUSE_SECONDS


def test_the_next_photo_is_decoded_while_one_is_restored_and_only_one(make: Make) -> None:
    harness, worker = make()
    gate = harness.backend.on_tile = Gate(tile=1)
    job = submit(harness, worker, photos=4)
    worker.start()
    until(gate.reached.is_set)
    until(lambda: len(worker.active_runs.at(Step.READY)) == 1 and harness.queue.all_heard())
    assert harness.states(job) == ["processing", "processing", "queued", "queued"]
    health = worker.health()
    assert (health.status, health.current_attempt) == ("busy", job.attempts[0].id)
    assert b"restore_processing_attempts 2.0" in harness.metrics.render()
    gate.opened.set()
    until(lambda: harness.ended(job))


def test_the_next_photo_is_restored_while_the_last_is_encoded_and_no_further(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness, worker = make()
    encode, hold = images.encode, threading.Event()

    def slow(*arguments: Any) -> images.Encoded:
        assert hold.wait(20.0)
        return encode(*arguments)

    monkeypatch.setattr(images, "encode", slow)
    job = submit(harness, worker, photos=5)
    worker.start()
    until(lambda: harness.backend.runs == 2)
    until(lambda: len(worker.active_runs.at(Step.RESTORED)) == 1)
    until(lambda: len(worker.active_runs.at(Step.READY)) == 1 and harness.queue.all_heard())
    assert harness.backend.runs == 2  # one is being encoded, one waits for that, one is decoded
    until(lambda: harness.states(job) == ["processing"] * 3 + ["queued"] * 2)
    hold.set()
    until(lambda: harness.ended(job))
    assert harness.states(job) == ["completed"] * 5


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows a priority a thread")
def test_working_threads_let_requests_go_first(make: Make) -> None:
    harness, worker = make()
    seen: list[int] = []
    harness.backend.on_tile = lambda _: seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    worker.start()
    job = submit(harness, worker)
    until(lambda: harness.ended(job))
    ours = os.getpriority(os.PRIO_PROCESS, os.getpid())
    assert set(seen) == {min(19, ours + NICENESS)}
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == ours


def test_a_bell_that_was_lost_is_found_and_one_too_many_does_no_harm(make: Make) -> None:
    harness, worker = make()
    job = harness.submit(photo_bytes(), photo_bytes())
    worker.start()
    for _ in range(3):
        harness.queue.publish(job.attempts[0].id)
        harness.queue.publish("0" * 32)
    until(lambda: harness.ended(job))
    assert harness.states(job) == ["completed"] * 2
    assert harness.backend.runs == 2


def test_a_photo_cancelled_in_the_queue_is_never_decoded(make: Make) -> None:
    harness, worker = make()
    cancelled, job = submit(harness, worker), submit(harness, worker)
    harness.store.cancel_or_remove(OWNER, cancelled.id, 1.0)
    worker.start()
    until(lambda: harness.ended(job))
    assert harness.backend.runs == 1


def test_a_store_that_refuses_claims_for_a_while_loses_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.worker.lane.REFUSED_PAUSE_SECONDS", 0.01)
    harness, worker = make()
    claim_next, refusals = SqlStore.claim_next, [1, 2, 3]

    def refuse(store: SqlStore, token: str, now: float, **which: Any) -> Attempt | None:
        if refusals:
            refusals.pop()
            raise Unavailable("storage_full", "Full.")
        return claim_next(store, token, now, **which)

    monkeypatch.setattr(SqlStore, "claim_next", refuse)
    worker.start()
    job = submit(harness, worker)
    until(lambda: harness.ended(job))
    assert harness.states(job) == ["completed"]
    assert "could not be claimed" in caplog.text


def test_an_end_the_store_refused_is_settled_as_soon_as_it_can(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    harness, worker = make()

    def refuse(*_: Any) -> bool:
        raise Unavailable("storage_full", "Full.")

    worker.start()
    with monkeypatch.context() as patch:
        patch.setattr(SqlStore, "complete", refuse)
        job = submit(harness, worker)
        until(lambda: harness.result_files())
        until(lambda: worker.health().status == "idle")
        assert harness.states(job) == ["processing"]
    until(lambda: harness.states(job) == ["completed"])


def poison(harness: Harness, deadly: bytes) -> None:
    """Let the decoder's thread-mates die of one photo: the restoring thread raises what no run may catch."""
    size, decoder = 99, harness.decoder

    class Poisoned:
        def decode(self, path: Path, *, page: int | None, keep_partial: bool, rotate: int) -> Picture:
            picture: Picture = decoder.decode(path, page=page, keep_partial=keep_partial, rotate=rotate)
            marked = path.read_bytes() == deadly
            return Picture(picture.rgb, dpi=(size, size)) if marked else picture

    restore = harness.backend.restore

    def dying(picture: Picture, *rest: Any) -> Any:
        if picture.dpi == (size, size):
            raise SystemExit("the thread dies")
        return restore(picture, *rest)

    harness.decoder = Poisoned()
    harness.backend.restore = dying


def test_a_photo_that_kills_its_thread_is_tried_three_times_and_its_neighbours_are_restored(make: Make) -> None:
    harness, worker = make()
    deadly = photo_bytes(seed=77)
    poison(harness, deadly)
    job = harness.submit(photo_bytes(), deadly, photo_bytes(), photo_bytes())
    for attempt in job.attempts:
        harness.queue.publish(attempt.id)
    worker.start()
    until(lambda: harness.ended(job))
    assert harness.states(job) == ["completed", "failed", "completed", "completed"]
    dead = harness.attempts(job)[1]
    assert (dead.error_code, dead.tries) == ("worker_crashed", 3)
    assert worker.health().restarts == 3
    told = harness.metrics.render()
    deaths = re.findall(rb'restore_thread_restarts_total{thread="worker-restore(?:-beside)?"} (\d)', told)
    assert sum(map(int, deaths)) == 3
    assert b'restore_attempts_ended_total{status="crashed"} 3.0' in told


def test_a_lost_card_gives_its_photo_back_with_a_try_burned_and_ends_the_process(make: Make) -> None:
    """Its neighbours burn none: one is encoded meanwhile and ends, one waits decoded, one in the queue."""
    ended, lost, encoding = threading.Event(), threading.Event(), threading.Event()
    harness, worker = make(on_hang=ended.set)
    restore, finish = harness.backend.restore, harness.runner.finish

    def restore_until_lost(picture: Picture, *rest: Any) -> Any:
        if harness.backend.runs:
            until(lambda: len(worker.active_runs.at(Step.READY)) == 1)
            assert encoding.wait(10)
            lost.set()
            raise DeviceLost("cuda:0 is lost: CUDA error: an illegal memory access was encountered")
        return restore(picture, *rest)

    def finish_after_loss(*arguments: Any, **named: Any) -> None:
        encoding.set()
        assert lost.wait(10)
        finish(*arguments, **named)

    harness.backend.restore, harness.runner.finish = restore_until_lost, finish_after_loss  # type: ignore[method-assign]
    job = submit(harness, worker, photos=4)
    worker.start()
    until(ended.is_set)
    assert harness.states(job) == ["completed", "queued", "queued", "queued"]
    assert [attempt.tries for attempt in harness.attempts(job)] == [1, 1, 0, 0]
    assert worker.active_runs.is_empty()
    assert worker.card_lost
    assert b'restore_attempts_ended_total{status="crashed"} 1.0' in harness.metrics.render()


@pytest.mark.parametrize("step", ["decode", "finish"])
def test_a_death_while_decoding_or_encoding_is_settled_too(
    make: Make, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    harness, worker = make()
    real = getattr(harness.runner, step)
    deaths = [1]

    def dying(*arguments: Any, **named: Any) -> Any:
        done = real(*arguments, **named) if step == "decode" else None
        if deaths:
            deaths.pop()
            raise KeyboardInterrupt
        return done or real(*arguments, **named)

    monkeypatch.setattr(harness.runner, step, dying)
    worker.start()
    job = submit(harness, worker, photos=2)
    until(lambda: harness.ended(job))
    assert harness.states(job) == ["completed"] * 2
    assert [attempt.tries for attempt in harness.attempts(job)] == [2, 1]
    assert worker.health().restarts == 1


def test_what_crashed_once_runs_alone(make: Make) -> None:
    harness, worker = make()
    job = harness.submit(*[photo_bytes(seed=n) for n in range(4)])
    suspect = job.attempts[1].id
    harness.store.claim(suspect, "a", 1.0)
    harness.store.recover(2.0)
    together: list[int] = []

    def look(_: int) -> None:
        if worker.health().current_attempt == suspect:
            until(lambda: worker.active_runs.waiting("local") or harness.store.counts().processing > 1)
            together.append(harness.store.counts().processing)

    harness.backend.on_tile = look
    for attempt in job.attempts:
        harness.queue.publish(attempt.id)
    worker.start()
    until(lambda: harness.ended(job))
    assert harness.states(job) == ["completed"] * 4
    assert set(together) == {1}


def test_a_worker_whose_threads_keep_dying_is_failing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.threads.LONGEST_PAUSE_SECONDS", 0.01)
    harness, worker = make()

    def die(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(SqlStore, "queued_ids", die)
        worker.start()
        until(lambda: worker.health().status == "failing")
    assert "keeps dying" in worker.health().reasons[0]
    job = submit(harness, worker)
    until(lambda: harness.ended(job))  # it works again, and says that it is not well
    assert worker.health().status == "failing"


def test_silence_beyond_the_limit_is_a_hang_and_told_once(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[int] = []
    harness, worker = make(hang_timeout_seconds=300.0, on_hang=lambda: told.append(1))
    now = time.monotonic()
    assert not worker.watch(now + 1e6)  # nothing in work: no silence is too long
    gate = harness.backend.on_tile = Gate(tile=1)
    worker.start()
    submit(harness, worker)
    until(gate.reached.is_set)
    now = time.monotonic()
    assert not worker.watch(now + 299.0)
    assert worker.health(now + 299.0).silence_seconds == pytest.approx(299.0, abs=1.0)
    assert worker.watch(now + 301.0)
    assert worker.watch(now + 302.0)
    assert told == [1]
    assert worker.health().status == "failing"
    assert "hangs" in worker.health().reasons[0]
    assert "most recent call first" in capfd.readouterr().err
    gate.opened.set()


def test_the_watchdog_thread_finds_a_hang_by_itself(make: Make) -> None:
    told = threading.Event()
    harness, worker = make(hang_timeout_seconds=0.2, on_hang=told.set)
    gate = harness.backend.on_tile = Gate(tile=1)
    worker.start()
    submit(harness, worker)
    assert told.wait(10.0)
    gate.opened.set()


def test_every_tile_is_a_sign_of_life() -> None:
    clock = [0.0]
    active_runs = ActiveRuns(lambda: clock[0])
    token = active_runs.admit("a", "local", lambda runs: not runs, alone=False)
    assert token is not None
    assert active_runs.silence(1e6) == (0.0, None)  # decoding has its own limit
    active_runs.move(token, Step.RESTORING)
    clock[0] = 10.0
    assert active_runs.silence(10.0) == (10.0, "a")
    active_runs.heartbeat(token)
    assert active_runs.silence(11.0) == (1.0, "a")
    active_runs.move(token, Step.READY)  # waiting for its turn is no hang
    assert active_runs.silence(1e6) == (0.0, None)
    active_runs.leave(token)
    active_runs.heartbeat(token)
    assert active_runs.is_empty()


def test_draining_ends_what_runs_and_leaves_the_rest_waiting(make: Make) -> None:
    harness, worker = make()
    gate = harness.backend.on_tile = Gate(tile=1)
    worker.start()
    job = submit(harness, worker, photos=4)
    until(gate.reached.is_set)
    until(lambda: len(worker.active_runs.at(Step.READY)) == 1)
    threading.Timer(0.1, gate.opened.set).start()
    assert worker.drain(20.0)
    assert harness.states(job) == ["completed", "queued", "queued", "queued"]
    assert [attempt.tries for attempt in harness.attempts(job)] == [1, 0, 0, 0]
    assert worker.health().status == "draining"
    assert worker.drain(1.0)


def test_at_the_deadline_of_a_drain_the_run_is_given_back(make: Make) -> None:
    harness, worker = make()
    harness.backend.tile = 1
    began = threading.Event()

    def slow(_: int) -> None:
        began.set()
        time.sleep(0.2)

    harness.backend.on_tile = slow
    worker.start()
    job = submit(harness, worker, photos=2)
    until(began.is_set)
    assert not worker.drain(0.05)
    assert harness.states(job) == ["queued", "queued"]
    assert [attempt.tries for attempt in harness.attempts(job)] == [0, 0]
    assert harness.store.recover(5.0) == [attempt.id for attempt in job.attempts]


def test_a_run_that_does_not_listen_is_given_back_and_its_late_result_dropped(make: Make) -> None:
    harness, worker = make(stop_grace_seconds=0.1)
    gate = harness.backend.on_tile = Gate(tile=1)
    worker.start()
    job = submit(harness, worker)
    until(gate.reached.is_set)
    assert not worker.drain(0.05)
    assert (harness.states(job), harness.attempts(job)[0].tries) == (["queued"], 0)
    gate.opened.set()
    until(lambda: not working_threads())
    assert harness.states(job) == ["queued"]
    assert harness.result_files() == []


def test_a_second_stop_is_immediate(make: Make) -> None:
    harness, worker = make()
    gate = harness.backend.on_tile = Gate(tile=1)
    worker.start()
    job = submit(harness, worker)
    until(gate.reached.is_set)
    drained: list[bool] = []
    draining = threading.Thread(target=lambda: drained.append(worker.drain(600.0)))
    draining.start()
    until(lambda: worker.health().status == "draining")
    began = time.monotonic()
    worker.stop()
    draining.join(5.0)
    assert time.monotonic() - began < 2.0
    assert drained == [False]
    assert harness.states(job) == ["queued"]
    gate.opened.set()
