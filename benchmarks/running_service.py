"""A real service in a process of its own, on free loopback ports and in a folder of its own, for the benchmarks.

It starts what `run.py serve` supervises; it knows nothing of what is measured.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.commands.serve import ALLOCATOR_ENVIRONMENT

_READY_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class RunningService:
    """Where it answers, how long it took until ready, and its process id."""

    url: str
    seconds_to_ready: float
    pid: int


@contextlib.contextmanager
def running_service(
    weights: Path,
    *,
    root: Path | None = None,
    headers: Mapping[str, str] | None = None,
    inside: Callable[[list[str]], list[str]] = list,
    **settings: str,
) -> Iterator[RunningService]:
    """Start, wait until ready, and stop with SIGTERM at the end.

    Args:
        weights: folder of the weight files.
        root: another checkout to start; None: this one.
        headers: what a request needs where keys are set.
        inside: makes of the command one that starts it elsewhere, as in a control group.
        settings: further environment variables.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, port, pages = Path(name), _free_port(), _free_port()
        environment = {
            **os.environ,
            **ALLOCATOR_ENVIRONMENT,
            "PORT": str(port),
            "DASHBOARD_PORT": str(pages),
            "UPLOAD_FOLDER": str(folder / "uploads"),
            "PROCESSED_FOLDER": str(folder / "results"),
            "DATABASE_URL": f"sqlite:///{folder / 'jobs.sqlite3'}",
            "WEIGHTS_FOLDER": str(weights),
            "ALLOW_UNVERIFIED_WEIGHTS": "true",
            "RATE_LIMIT": "0",
            **settings,
        }
        started = time.monotonic()
        command = inside([sys.executable, "-m", "app.commands", "serve", "--child-of", str(os.getpid())])
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=root)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, process, headers or {})
            yield RunningService(url, time.monotonic() - started, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], headers: Mapping[str, str]) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with {process.returncode} before it was ready")
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            asked = urllib.request.Request(f"{url}/health/ready", headers=dict(headers))
            urllib.request.urlopen(asked, timeout=5.0).close()  # raises for 503
            return
        time.sleep(0.05)
    raise RuntimeError("the service did not become ready")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
