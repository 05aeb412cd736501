"""A real service whose photos are enlarged by Lanczos instead of networks, in a process of its own, for campaigns.

Everything but the backend is what users run: the application, its server, the store, the decoder's child, the worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.http_service import KEY, free_port, photo

_START_SECONDS = 120.0
_PHOTO_SECONDS = 60.0


@dataclass(frozen=True)
class StandInService:
    """A running service: where it answers, its folder and its log, its process, and a client that sends the key."""

    url: str
    folder: Path
    log_file: Path
    process: subprocess.Popen[bytes]
    client: httpx2.Client

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self.process.pid

    def restores_a_photo(self) -> bool:
        """Whether a good photo, sent now, is completed."""
        answer = self.client.post("/enhance", files=[("files", ("good.png", photo()))])
        if answer.status_code != 202:
            return False
        place = f"/api/v1/jobs/{answer.json()['job_id']}"
        return bool(self.ended(place)["status"] == "completed")

    def ended(self, place: str, seconds: float = _PHOTO_SECONDS, *, pause_seconds: float = 0.05) -> dict[str, Any]:
        """The state of a job after its end, or what it is once the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            found: dict[str, Any] = self.client.get(place).json()
            if found["status"] in ("completed", "failed", "cancelled") or time.monotonic() > deadline:
                return found
            time.sleep(pause_seconds)

    def log(self) -> str:
        """What the service wrote."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def stand_in_service(
    *,
    seconds_per_strip: float = 0.0,
    environment: Mapping[str, str] | None = None,
    parent: Path | None = None,
    **settings: Any,
) -> Iterator[StandInService]:
    """Start one, wait until it is ready, stop it with SIGTERM. `settings` are names and values of its settings.

    It lives in a folder of its own in `parent`; None: where the system has temporary ones.
    """
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="stand-in-", dir=parent))
        log = stack.enter_context(tempfile.NamedTemporaryFile(prefix="stand-in-"))  # not where a disk may be full
        port = free_port()
        words = [name, str(port), str(free_port()), str(seconds_per_strip), "2", KEY, json.dumps(settings)]
        command = [sys.executable, "-m", "tests.lanczos_server", *words]
        surroundings = {**os.environ, **(environment or {})}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=surroundings, cwd=Path.cwd())
        stack.callback(process.wait)
        stack.callback(process.terminate)
        url = f"http://127.0.0.1:{port}"
        client = stack.enter_context(httpx2.Client(base_url=url, headers={"X-API-KEY": KEY}, timeout=60))
        service = StandInService(url, Path(name), Path(log.name), process, client)
        _wait_until_ready(service)
        yield service


def _wait_until_ready(service: StandInService) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if service.process.poll() is not None:
            raise RuntimeError(f"the service ended with {service.process.returncode}: {service.log()[-2000:]}")
        with contextlib.suppress(httpx2.TransportError):
            if service.client.get("/health/ready").status_code == 200:
                return
        time.sleep(0.05)
    raise RuntimeError("the service did not become ready")
