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

import requests

KEYS = ("attacker-" + "a" * 32, "neighbour-" + "b" * 32)
_READY_SECONDS = 180.0


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


@contextlib.contextmanager
def started(checkout: Path, weights: dict[str, bytes] | None = None, **settings: str) -> Iterator[Target]:
    """Start a service from the checkout, wait until it answers, and kill it at the end.

    Args:
        checkout: the folder of a working tree.
        weights: further files for its weights folder.
        settings: environment variables; an empty one is left out.

    Raises:
        RuntimeError: it ended before it answered.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), _free_port()
        (folder / "weights").mkdir()
        for file, data in (weights or {}).items():
            (folder / "weights" / file).write_bytes(data)
        environment = _environment(folder, port) | settings
        command = [sys.executable, "-m", "app.commands", "serve", "--child-of", str(os.getpid())]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command,
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
