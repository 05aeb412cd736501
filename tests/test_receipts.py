"""What was paid for survives the death of its run: the answer's receipt is in the row, and the next run only fetches.

The provider is the stand-in on loopback; store, storage, decoder, runner and worker are the real ones.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import images
from app.backends.siliconflow.paid_result import Paid
from app.backends.siliconflow.request import GeneratedImage
from app.errors import Unavailable
from app.images import Decoder
from app.jobs.lease_keeper import LeaseKeeper
from app.storage import DiskStorage, Storage, new_id
from app.store import Attempt, AttemptStatus, NewPhoto, Result, SqlStore, Store
from app.worker import Worker
from tests.databases import IMPLEMENTATIONS, Clock
from tests.fault_service import LEASE_TIMES
from tests.harness import OWNER, Harness, photo_bytes, until
from tests.provider_stand_in import HOST, TRACE, BentNetwork, StandIn, Wire
from tests.s3_servers import options_of

ROOT = Path(__file__).resolve().parents[1]
RECEIPT = {"url": "https://s3.siliconflow.cn/x.png?Signature=s"}
LEASE_SECONDS = 60.0


# --- the row ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Store]:
    opened = SqlStore(IMPLEMENTATIONS[request.param](tmp_path), lease_seconds=LEASE_SECONDS, clock=clock)
    opened.open()
    yield opened
    opened.close()


def answered(store: Store) -> str:
    """An attempt whose provider has answered."""
    photo = NewPhoto(new_id(), "0" * 64, "cat.jpg", "image/jpeg", 40, 30, 1000)
    attempt_id = store.add_job(OWNER, [photo], "{}", "siliconflow", 1000, 1.0).attempts[0].id
    assert store.claim(attempt_id, "run", 2.0)
    assert store.mark_sent(attempt_id, "run")
    assert store.receipts.keep(attempt_id, "run", [RECEIPT])
    return attempt_id


def row(store: Store, attempt_id: str) -> Attempt:
    found = store.attempt(attempt_id)
    assert found is not None
    return found


DEATHS: dict[str, Callable[[Store, str], object]] = {
    "its process died": lambda store, _: store.sweep_leases(9.0),
    "the thread died": lambda store, attempt_id: store.crashed(attempt_id, "run", 9.0),
    "the run was stopped in good order": lambda store, attempt_id: store.give_back(attempt_id, "run", 9.0),
}


@pytest.mark.parametrize("how", DEATHS)
def test_an_answered_attempt_waits_again_with_its_receipt(store: Store, clock: Clock, how: str) -> None:
    attempt_id = answered(store)
    clock.now += LEASE_SECONDS + 1
    DEATHS[how](store, attempt_id)
    claimed = store.claim(attempt_id, "next", 10.0)
    assert claimed is not None
    assert (claimed.receipts, claimed.sent) == ((RECEIPT,), False)


def test_a_second_call_without_an_answer_is_never_made_again(store: Store) -> None:
    """A TIFF of several pages makes a call for each."""
    attempt_id = answered(store)
    assert store.mark_sent(attempt_id, "run")
    store.crashed(attempt_id, "run", 9.0)
    assert (row(store, attempt_id).status, row(store, attempt_id).error_code) == (AttemptStatus.FAILED, "interrupted")


ENDS: dict[str, Callable[[Store, str], object]] = {
    "completed": lambda store, a: store.complete(a, "run", Result(f"{a}.jpg", "image/jpeg", 8, 8, 9, "m", 1.0), 5.0),
    "failed": lambda store, a: store.fail(a, "run", "provider_result_missing", "It is gone.", 5.0),
    "cancelled": lambda store, a: store.cancel_or_remove(OWNER, row(store, a).job_id, 5.0),
    "crashed": lambda store, a: store.crashed(a, "run", 5.0, max_tries=1),
}


@pytest.mark.parametrize("how", ENDS)
def test_no_receipt_outlives_its_attempt(store: Store, how: str) -> None:
    attempt_id = answered(store)
    ENDS[how](store, attempt_id)
    assert row(store, attempt_id).status.ended
    assert row(store, attempt_id).receipts == ()


def test_a_run_that_lost_its_claim_keeps_nothing(store: Store) -> None:
    attempt_id = answered(store)
    assert not store.receipts.keep(attempt_id, "another run", [])
    assert row(store, attempt_id).receipts == (RECEIPT,)


# --- kill -9 ----------------------------------------------------------------------------------------------------------

KILLED = """
import sys, threading
from pathlib import Path
from app import images
from tests.provider_stand_in import BentNetwork
from tests.harness import OWNER, photo_bytes
from tests.test_receipts import working

folder, api_port, store_port, database_url, bucket, moment = sys.argv[1:]
harness, worker, keeper = working(Path(folder), BentNetwork(int(api_port), int(store_port)), database_url, bucket)
if moment == "storing":
    def stand_still(*_, **__):
        Path(folder, "stands still").touch()
        threading.Event().wait()
    images.encode = stand_still
photo = harness.upload(photo_bytes())
harness.store.add_job(OWNER, [photo], '{"scale": 1}', "siliconflow", 9, 1.0)
threading.Event().wait(60)
"""


def working(
    folder: Path, network: BentNetwork, database_url: str, bucket: str, decoder: Decoder | None = None
) -> tuple[Harness, Worker, LeaseKeeper]:
    """A worker process, or what takes its place: it recovers, and has a cloud lane that has started."""
    harness = Harness(folder, None, decoder, opened(bucket, folder), database_url=database_url, lease_seconds=1.0)
    waiting = harness.open()
    harness.backends["siliconflow"] = network.backend(harness.decoder.decode)
    lanes: dict[str, Any] = {"waiting": {"siliconflow": 1}, "rescan_seconds": 0.05}
    worker = Worker(harness.runner, harness.store, harness.metrics, harness.queue, **lanes)
    keeping: dict[str, Any] = {"held": worker.held_tokens, "settle": harness.runner.settle}
    keeper = LeaseKeeper(harness.store, harness.queue, harness.metrics, LEASE_TIMES, **keeping)
    keeper.start()
    worker.start()
    for attempt_id in waiting:
        harness.queue.publish(attempt_id)
    return harness, worker, keeper


def opened(bucket: str, folder: Path) -> Storage:
    """The bucket, by its options as JSON; two folders without."""
    folders = folder / "uploads", folder / "results"
    if not bucket:
        return DiskStorage(*folders)
    from app.storage.s3 import S3Options, open_s3_storage

    return open_s3_storage(S3Options(**json.loads(bucket)), *folders, 0, reachable_by_all=False)


@pytest.fixture(params=["folders-sqlite", "bucket-postgres"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """An empty database's address, and the bucket's options as JSON."""
    kept, database = request.param.split("-")
    url = IMPLEMENTATIONS[database](tmp_path)
    if kept == "folders":
        return url, ""
    return url, json.dumps(dataclasses.asdict(options_of(request.getfixturevalue("seaweedfs"))))


@pytest.mark.parametrize("moment", ["downloading", "storing"])
def test_a_process_killed_between_paid_and_stored_fetches_again_and_pays_once(
    moment: str, places: tuple[str, str], tmp_path: Path, provider: StandIn
) -> None:
    url, bucket = places
    if moment == "downloading":
        provider.store = Wire.hang
    words = [str(tmp_path), str(provider.api_port), str(provider.store_port), url, bucket, moment]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *words], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        until(lambda: provider.asked("store"), 30.0)
        until(lambda: moment == "downloading" or (tmp_path / "stands still").exists())
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10.0)
    provider.store = provider.give
    harness, worker, keeper = working(tmp_path, provider, url, bucket)
    try:
        (job,) = harness.store.jobs(OWNER, 9)
        until(lambda: harness.ended(job))
        (attempt,) = harness.attempts(job)
        assert (attempt.status, attempt.error_code) == (AttemptStatus.COMPLETED, None)
        assert harness.storage.has_result(attempt.result_name or "")
        assert attempt.params["trace_id"] == TRACE
        assert (len(provider.asked("api")), len(provider.asked("store"))) == (1, 2)
    finally:
        worker.stop()
        keeper.stop()
        harness.close()


def test_a_result_that_is_gone_by_then_fails_and_is_not_paid_again(
    tmp_path: Path, provider: StandIn, decoder: Decoder
) -> None:
    harness = Harness(tmp_path, decoder=decoder)
    harness.open()
    harness.backends["siliconflow"] = provider.backend(decoder.decode)
    photo = harness.upload(photo_bytes())
    attempt_id = harness.store.add_job(OWNER, [photo], "{}", "siliconflow", 9, 1.0).attempts[0].id
    harness.store.claim(attempt_id, "run", 2.0)
    lost = Paid(GeneratedImage(f"https://{HOST}/expired.png", 1.0, 7), 2.0, TRACE)
    harness.store.receipts.keep(attempt_id, "run", [lost.as_receipt()])
    harness.store.crashed(attempt_id, "run", 3.0)
    harness.runner.run_attempt(attempt_id)
    attempt = row(harness.store, attempt_id)
    harness.store.close()
    assert (attempt.status, attempt.error_code) == (AttemptStatus.FAILED, "provider_result_missing")
    assert attempt.receipts == ()
    assert provider.asked("api") == []


@pytest.mark.parametrize("stop", ["while it downloads", "while it cannot be stored"])
def test_a_stop_in_good_order_leaves_a_paid_result_to_the_next_start(
    stop: str, tmp_path: Path, provider: StandIn, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise Unavailable("storage_full", "The disk is full.")

    if stop == "while it downloads":
        provider.store = Wire.hang
    else:
        monkeypatch.setattr(images, "encode", full)
    harness, worker, keeper = working(tmp_path, provider, "", "", decoder)
    try:
        photo = harness.upload(photo_bytes())
        job = harness.store.add_job(OWNER, [photo], '{"scale": 1}', "siliconflow", 9, 1.0)
        until(lambda: provider.asked("store"))
        until(lambda: harness.attempts(job)[0].receipts)
        worker.drain(0.3)
        assert harness.states(job) == ["queued"]
        monkeypatch.undo()
        provider.store = provider.give
        harness.runner.run_attempt(job.attempts[0].id)
        assert harness.states(job) == ["completed"]
        assert len(provider.asked("api")) == 1
    finally:
        worker.stop()
        keeper.stop()
        harness.store.close()
