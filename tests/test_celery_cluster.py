"""An API server and two workers over PostgreSQL and Redis: photos end, whoever of them is killed in the middle.

All are real processes or applications; only the network is Pillow's Lanczos.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from tests import redis_server
from tests.databases import IMPLEMENTATIONS, needs_postgres
from tests.harness import until
from tests.http_service import BASE_URL, KEY, free_port, photo, settings_for
from tests.redis_server import RedisServer
from tests.worker_process import SHORT_LEASES

pytestmark = [
    needs_postgres,
    pytest.mark.skipif(redis_server.missing() is not None, reason=redis_server.missing() or ""),
]
ROOT = Path(__file__).resolve().parents[1]


class Cluster:
    """An API server with a client, and worker processes by number."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.folder, self.redis = folder, redis
        self.changes: dict[str, Any] = {
            "database_url": IMPLEMENTATIONS["postgres"](folder),
            "broker_url": redis.url,
            "shared_folders": True,
        }
        settings = settings_for(folder, key=KEY, **self.changes)
        app = create_app(settings, restores=False, lease_times=SHORT_LEASES)
        self.client = TestClient(app, base_url=BASE_URL, headers={"X-API-KEY": KEY})
        self.workers: list[subprocess.Popen[bytes]] = []

    def add_worker(self, seconds_per_strip: float = 0.01) -> subprocess.Popen[bytes]:
        """Start a worker; it need not be ready yet."""
        words = [str(self.folder), str(seconds_per_strip), json.dumps(self.changes)]
        with (self.folder / "workers.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.worker_process", *words]
            self.workers.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log))
        return self.workers[-1]

    def alive(self) -> int:
        """How many workers the API server knows of."""
        return len(self.client.get("/api/v1/status").json()["workers"])

    def submit(self) -> str:
        answer = self.client.post("/api/v1/enhance", files={"file": ("cat.png", photo(height=64))})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def status(self, job_id: str) -> str:
        return str(self.client.get(f"/status/{job_id}").json()["status"])

    def wait_for(self, job_id: str, status: str, seconds: float = 30) -> None:
        until(lambda: self.status(job_id) == status, seconds)

    def log(self) -> str:
        return (self.folder / "workers.log").read_text()

    def stop(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait(20)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server.running() as server:
        yield server


@pytest.fixture
def cluster(tmp_path: Path, redis: RedisServer) -> Iterator[Cluster]:
    found = Cluster(tmp_path, redis)
    with contextlib.ExitStack() as stack:
        stack.callback(found.stop)
        stack.enter_context(found.client)
        yield found


def seconds_of(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def test_a_message_starts_a_photo_at_once_and_sigterm_ends_a_worker_in_good_order(cluster: Cluster) -> None:
    port = cluster.changes["worker_metrics_port"] = free_port()
    worker = cluster.add_worker()
    until(lambda: cluster.alive() == 1 and cluster.client.get("/health/ready").status_code == 200, 40)
    cluster.wait_for(cluster.submit(), "completed")
    job_id = cluster.submit()
    assert seconds_of(lambda: cluster.wait_for(job_id, "completed")) < 4, (
        cluster.log()
    )  # less than its look at the rows
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:  # of the worker itself
        assert b'restore_attempts_ended_total{status="completed"} 2.0' in answer.read()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0, cluster.log()
    until(lambda: cluster.alive() == 0)
    assert "Traceback" not in cluster.log()


def test_a_killed_worker_and_a_killed_redis_lose_nothing(cluster: Cluster) -> None:
    slow = cluster.add_worker(0.5)
    until(lambda: cluster.alive() == 1 and cluster.client.get("/health/ready").status_code == 200, 40)
    job_id = cluster.submit()
    cluster.wait_for(job_id, "processing")
    cluster.add_worker()
    slow.kill()
    cluster.wait_for(job_id, "completed")
    cluster.redis.kill()
    try:
        without = cluster.submit()
        cluster.wait_for(without, "completed")
    finally:
        cluster.redis.start()
    cluster.wait_for(cluster.submit(), "completed")
