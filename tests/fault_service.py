"""The service that the kill -9 campaign kills: store, storage, decoder, runner and worker, under a steady load.

It runs in a forked child and reports every accepted job on a pipe, as a 202 would. At a named point it can kill itself;
the points are patched in here, production code knows none of them.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from app import atomic_files, images
from app.backends.protocol import Backend
from app.errors import RestoreError
from app.images import Decoder
from app.jobs.lease_keeper import LeaseKeeper, LeaseTimes
from app.jobs.result_writing import Finished
from app.jobs.runner import Runner
from app.storage import DiskStorage, disk_upload
from app.storage.disk_upload import DiskUploadWriter
from app.store import SqlStore, leases, queue_order, submissions, transitions
from app.worker import Worker
from tests.harness import OWNER, Harness, LanczosBackend, photo_bytes

QUEUE_LIMIT = 12
SUBMITTERS = 2
LEASE_TIMES = LeaseTimes(lease_seconds=1.0, renew_seconds=0.2, sweep_seconds=0.2, calm_seconds=0.1)
TILE_SECONDS = 0.002  # so that a kill at a random moment often falls into the middle of a run

Point = tuple[Any, str, str]

# name -> (owner, attribute, whether the kill comes before or after the real call)
POINTS: dict[str, Point] = {
    "upload opened": (disk_upload, "create_locked", "after"),
    "upload half written": (disk_upload, "_write_all", "after"),
    "upload written": (DiskUploadWriter, "commit", "before"),
    "file synced, not renamed": (Path, "replace", "before"),
    "file renamed, folder not synced": (atomic_files, "sync_folder", "before"),
    "upload safe, no row": (DiskUploadWriter, "commit", "after"),
    "rows written, not committed": (submissions, "insert_job", "after"),
    "rows committed, not answered": (SqlStore, "submit", "after"),
    "recovery not committed": (leases, "recover", "after"),
    "lease sweep not committed": (leases, "end_lapsed", "after"),
    "claim not committed": (leases.Claims, "take_free", "after"),
    "claimed, its turn not written": (queue_order, "took_turn", "before"),
    "claimed": (SqlStore, "claim_next", "after"),
    "decoding": (Decoder, "decode", "before"),
    "decoded": (Decoder, "decode", "after"),
    "restoring": (Runner, "restore", "before"),
    "in a tile": (LanczosBackend, "restore", "before"),
    "restored": (Runner, "restore", "after"),
    "encoding": (images, "encode", "before"),
    "encoded": (images, "encode", "after"),
    "publishing": (DiskStorage, "publish", "before"),
    "published, no row": (DiskStorage, "publish", "after"),
    "result row not committed": (transitions, "complete", "after"),
    "completed": (SqlStore, "complete", "after"),
}


def points_of(database_url: str) -> list[str]:
    """The points that a service on this database comes to: elsewhere a start leaves all runs to the sweep."""
    return [point for point in POINTS if database_url.startswith("sqlite") or point != "recovery not committed"]


class WrongOrder(Runner):
    """The negative control: the row says completed before the file has its name."""

    def finish(
        self,
        finished: Finished,
        *,
        heartbeat: Callable[[], None] = lambda: None,
        wait_to_retry: Callable[[], bool] = lambda: False,
    ) -> None:
        with self._storage.scratch(finished.attempt.id) as temporary:
            result = self._writer.encode(finished, temporary)
            self._complete(finished.attempt.id, finished.token, result)
            self._storage.publish(temporary, result.name)


def serve(
    folder: Path,
    database_url: str,
    answers: int,
    *,
    point: str | None,
    wrong_order: bool,
    submitting: bool,
    seed: int,
) -> NoReturn:
    """The child's life: recover, work, and take jobs; without `submitting` it ends once nothing is active."""
    if point is not None:
        arm(point, countdown=1 + seed % 3)
    backend: Backend = LanczosBackend(tile=4, on_tile=lambda _: time.sleep(TILE_SECONDS))
    harness = Harness(folder, backend, database_url=database_url, lease_seconds=LEASE_TIMES.lease_seconds)
    if wrong_order:
        harness.runner.__class__ = WrongOrder
    waiting = harness.open()
    worker = Worker(harness.runner, harness.store, harness.metrics, harness.queue, rescan_seconds=0.5)
    worker.start()
    keeping: dict[str, Any] = {"held": worker.held_tokens, "settle": harness.runner.settle}
    LeaseKeeper(harness.store, harness.queue, harness.metrics, LEASE_TIMES, **keeping).start()
    for attempt_id in waiting:
        harness.queue.publish(attempt_id)
    if submitting:
        for number in range(SUBMITTERS):
            load = (harness, worker, answers, random.Random(seed + number))
            threading.Thread(target=_submit_for_ever, args=load, daemon=True).start()
        threading.Event().wait()  # until somebody kills us
    while harness.store.named_files.active_ids():
        time.sleep(0.02)
    worker.drain(5.0)
    harness.close()
    os._exit(0)


def _submit_for_ever(harness: Harness, worker: Worker, answers: int, chance: random.Random) -> None:
    while True:
        kinds = chance.choices(["JPEG", "PNG"], k=chance.randint(1, 3))
        files = [photo_bytes(24, chance.randint(4, 24), chance.randint(0, 9), kind) for kind in kinds]
        try:
            job = harness.submit(*files, queue_limit=QUEUE_LIMIT)
        except RestoreError:  # the queue is full
            time.sleep(0.01)
            continue
        os.write(answers, f"{job.id}\n".encode())
        for attempt in job.attempts:
            harness.queue.publish(attempt.id)
        if chance.random() < 0.1:
            harness.store.cancel_or_remove(OWNER, job.id, time.time())


def arm(point: str, countdown: int, points: Mapping[str, Point] = POINTS) -> None:
    """Patch one function of this process so that its call number `countdown` kills this process."""
    owner, name, when = points[point]
    real = getattr(owner, name)
    left = [1 if point == "recovery not committed" else countdown]

    def count_down() -> None:
        left[0] -= 1
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def deadly(*arguments: Any, **named: Any) -> Any:
        if when == "before":
            count_down()
        answer = real(*arguments, **named)
        if when == "after":
            count_down()
        return answer

    setattr(owner, name, deadly)
