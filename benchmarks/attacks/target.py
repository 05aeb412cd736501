"""The service under attack: started from a checkout of any age, on free loopback ports, in a folder of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import requests

KEYS = ("attacker-" + "a" * 32, "neighbour-" + "b" * 32)
TIMEOUT_SECONDS = 60.0
_READY_SECONDS = 180.0
_PHOTO_SECONDS = 120.0
_ENDS = ("completed", "failed", "cancelled")
# A shell lowers the limit for what it becomes, so that nothing has run in the service before.
_WITH_DESCRIPTORS = ("/bin/sh", "-c", 'ulimit -n "$0"; exec "$@"')


class Seen(NamedTuple):
    """What an attack saw, in words, and whether it broke the service."""

    text: str
    broken: bool


@dataclasses.dataclass(frozen=True)
class Target:
    """A running service: its address, its folder (weights in `weights`), and the headers of its two keys."""

    url: str
    folder: Path

    @property
    def attacker(self) -> dict[str, str]:
        """Headers of the key that does its worst."""
        return {"x-api-key": KEYS[0]}

    @property
    def neighbour(self) -> dict[str, str]:
        """Headers of somebody else's key."""
        return {"x-api-key": KEYS[1]}

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return "127.0.0.1", int(self.url.rpartition(":")[2])

    def get(self, path: str, headers: dict[str, str] | None = None, **options: Any) -> requests.Response:
        """Ask for a path, by the attacker unless other headers are given."""
        return requests.get(f"{self.url}{path}", headers=headers or self.attacker, timeout=TIMEOUT_SECONDS, **options)

    def submit(
        self, data: bytes, headers: dict[str, str] | None = None, *, name: str = "photo", **options: str
    ) -> requests.Response:
        """Send one photo with options of the restoration, by the attacker unless other headers are given."""
        return requests.post(
            f"{self.url}/enhance",
            files={"files": (name, data)},
            data=options,
            headers=headers or self.attacker,
            timeout=TIMEOUT_SECONDS,
        )

    def status_of_submit(self, data: bytes, headers: dict[str, str] | None = None) -> int:
        """The status of a submit, 0 without an answer."""
        try:
            return self.submit(data, headers).status_code
        except requests.RequestException:
            return 0

    def ended(self, job_id: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """The state of a job after its end, or what it is once the time is over."""
        deadline = time.monotonic() + _PHOTO_SECONDS
        while True:
            found: dict[str, Any] = self.get(f"/status/{job_id}", headers).json()
            if found["status"] in _ENDS or time.monotonic() > deadline:
                return found
            time.sleep(0.1)

    def log_lines(self) -> int:
        """How many lines the service has written."""
        return (self.folder / "log").read_bytes().count(b"\n")


@contextlib.contextmanager
def started(
    checkout: Path, weights: dict[str, bytes] | None = None, *, descriptors: int | None = None, **settings: str
) -> Iterator[Target]:
    """Start a service from the checkout, wait until it answers, and kill it at the end.

    Args:
        checkout: the folder of a working tree.
        weights: further files for its weights folder.
        descriptors: how many the service may have; None: as many as we.
        settings: environment variables; an empty one is left out.

    Raises:
        RuntimeError: it ended before it answered.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder, port = Path(name), _free_port()
        (folder / "weights").mkdir()
        for file, data in (weights or {}).items():
            (folder / "weights" / file).write_bytes(data)
        environment = _environment(folder, port) | settings
        command = [sys.executable, "-m", "app.commands", "serve", "--child-of", str(os.getpid())]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*_WITH_DESCRIPTORS, str(descriptors), *command] if descriptors else command,
                cwd=checkout,
                env={key: value for key, value in environment.items() if value},
                stdout=log,
                stderr=log,
                process_group=0,
            )
        try:
            target = Target(f"http://127.0.0.1:{port}", folder)
            _await_ready(target, process)
            yield target
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment(folder: Path, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": "",
        "PORT": str(port),
        "DASHBOARD_PORT": str(_free_port()),
        "UPLOAD_FOLDER": str(folder / "uploads"),
        "PROCESSED_FOLDER": str(folder / "results"),
        "DATABASE_URL": f"sqlite:///{folder / 'jobs.sqlite3'}",
        "WEIGHTS_FOLDER": str(folder / "weights"),
        "RATE_LIMIT": "0",
        "API_KEY": ",".join(KEYS),
    }


def _await_ready(target: Target, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode}")
        with contextlib.suppress(requests.RequestException):
            health = requests.get(f"{target.url}/api/v1/health", headers=target.neighbour, timeout=5).json()
            if health.get("status") not in (None, "starting"):
                return
        time.sleep(0.2)
    raise RuntimeError("it did not become ready")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
