"""`run.py api` and `run.py worker` as they are started: supervised, with real networks, on PostgreSQL, Redis and S3.

The two share no folder; what a killed worker had in hand is restored by the one its supervisor starts.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from PIL import Image

from tests import redis_server
from tests.databases import IMPLEMENTATIONS, needs_postgres
from tests.harness import until
from tests.http_service import free_port, photo
from tests.s3_servers import BUCKET, S3Server

pytestmark = [
    needs_postgres,
    pytest.mark.skipif(redis_server.missing() is not None, reason=redis_server.missing() or ""),
]
ROOT = Path(__file__).resolve().parents[1]
KEY = "a-key-of-the-split-service"
PREFIX = "split"
START_SECONDS = 300.0  # two imports of torch on a busy machine


class SplitService:
    """An API server and a worker, each under its supervisor and in a folder of its own."""

    def __init__(self, folder: Path, shared: dict[str, str]) -> None:
        self.folder, self._shared = folder, shared
        port = free_port()
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-KEY": KEY}, timeout=30)
        self.api = self._start("api", PORT=str(port), DASHBOARD_PORT=str(free_port()))
        self.worker = self._start("worker")

    def _start(self, role: str, **more: str) -> subprocess.Popen[bytes]:
        own = self.folder / role
        own.mkdir()
        folders = {"UPLOAD_FOLDER": str(own / "uploads"), "PROCESSED_FOLDER": str(own / "results")}
        environment = {**os.environ, **self._shared, **folders, **more}
        with (own / "log").open("wb") as log:
            command = [sys.executable, "-m", "app.commands", role]
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def log(self) -> str:
        return "".join((self.folder / role / "log").read_text() for role in ("api", "worker"))

    def workers(self) -> list[dict[str, Any]]:
        """What the API server knows of workers; none while it does not answer."""
        with contextlib.suppress(httpx2.TransportError):
            found: list[dict[str, Any]] = self.client.get("/api/v1/status").json()["workers"]
            return found
        return []

    def submit(self, **options: str) -> str:
        files = {"file": ("cat.png", photo(96, 64))}
        answer = self.client.post("/api/v1/enhance", files=files, data=options)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def attempt(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/api/v1/jobs/{job_id}").json()["attempts"][0]
        return found

    def wait_for(self, job_id: str, status: str) -> dict[str, Any]:
        until(lambda: self.attempt(job_id)["status"] == status, START_SECONDS)
        return self.attempt(job_id)

    def files(self) -> list[str]:
        """What stands in the folders of both."""
        return [path.name for path in self.folder.rglob("*") if path.is_file() and path.name != "log"]

    def stop(self) -> None:
        for process in (self.worker, self.api):
            family = [psutil.Process(process.pid)] if process.poll() is None else []
            for one in [*family, *(child for parent in family for child in parent.children(recursive=True))]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait(20)
        self.client.close()


@pytest.fixture
def service(tmp_path: Path, seaweedfs: S3Server, real_weights: Path) -> Iterator[SplitService]:
    with redis_server.running() as redis:
        shared = {
            "DATABASE_URL": IMPLEMENTATIONS["postgres"](tmp_path),
            "BROKER_URL": redis.url,
            "STORAGE_URL": f"s3://{BUCKET}/{PREFIX}",
            "S3_ENDPOINT_URL": seaweedfs.url,
            "S3_ADDRESSING_STYLE": "path",
            "API_KEY": KEY,
            "WEIGHTS_FOLDER": str(real_weights),
            "ALLOW_UNVERIFIED_WEIGHTS": "true",
            "OFFLINE": "true",
            "RATE_LIMIT": "0",
            "DEVICE": "cpu",
        }
        found = SplitService(tmp_path, shared)
        try:
            yield found
        finally:
            found.stop()


def test_the_commands_restore_over_a_bucket_and_a_killed_worker_is_started_again(
    service: SplitService, seaweedfs: S3Server
) -> None:
    until(lambda: service.workers() and service.client.get("/health/ready").status_code == 200, START_SECONDS)
    job_id = service.submit()
    service.wait_for(job_id, "completed")
    answer = service.client.get(f"/api/v1/jobs/{job_id}/result", follow_redirects=True)
    with Image.open(io.BytesIO(answer.raise_for_status().content)) as result:
        assert result.size == (384, 256)
    kept = seaweedfs.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{PREFIX}/")["Contents"]
    assert len(kept) >= 2  # the photo and its result
    until(lambda: not service.files(), 10)  # nothing of it stays on either host

    slow = service.submit(model="RealESRGAN_x4plus")
    service.wait_for(slow, "processing")
    (child,) = psutil.Process(service.worker.pid).children()
    child.kill()
    ended = service.wait_for(slow, "completed")
    assert ended["result"]["width"] == 384
    assert service.worker.poll() is None
    assert psutil.Process(service.worker.pid).children()[0].pid != child.pid

    for process in (service.worker, service.api):
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, service.log()
    assert "Traceback" not in service.log()
