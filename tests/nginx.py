"""Nginx with the project's own configuration, run on loopback before servers of a test: only addresses are changed."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.harness import until
from tests.parent_death import ends_with_us

CONFIGURATION = Path(__file__).resolve().parents[1] / "deploy" / "nginx.conf"


def render(folder: Path, listen: int, api: Sequence[int], dashboard: Sequence[int]) -> Path:
    """The configuration with ports of this machine, writing below the folder."""
    text = CONFIGURATION.read_text(encoding="utf-8")
    for number, (api_port, pages_port) in enumerate(zip(api, dashboard, strict=True), start=1):
        text = text.replace(f"api-{number}:8001", f"127.0.0.1:{api_port}")
        text = text.replace(f"api-{number}:8091", f"127.0.0.1:{pages_port}")
    text = text.replace("listen 8080", f"listen 127.0.0.1:{listen}").replace("/tmp/", f"{folder}/")
    text = text.replace("/dev/stdout", str(folder / "access.log")).replace(
        "worker_processes auto", "worker_processes 1"
    )
    assert "api-" not in text
    target = folder / "nginx.conf"
    target.write_text(text, encoding="utf-8")
    return target


def program() -> str:
    """The path of Nginx; skips where it is missing."""
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        pytest.skip("Nginx is not installed (apt-get install nginx-light)")
    return found


def check(configuration: Path) -> str:
    """What `nginx -t` says; fails when it does not accept the file."""
    command = [program(), "-t", "-e", "stderr", "-c", str(configuration)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert told.returncode == 0, told.stderr
    return told.stderr


@contextlib.contextmanager
def running(configuration: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Nginx in the foreground until the end of the block."""
    command = [program(), "-e", "stderr", "-c", str(configuration), "-g", "daemon off;"]
    with (configuration.parent / "error.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, preexec_fn=ends_with_us())
        try:
            until(lambda: _listens(port))
            yield process
        finally:
            process.terminate()
            process.wait(20)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False
