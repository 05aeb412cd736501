"""A real Redis server for tests: Debian's, on a free port of loopback, with its data in a temporary folder."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.harness import until
from tests.parent_death import ends_with_us


def missing() -> str | None:
    """What is not there to run one, as the notice of a skipped test; None when all is there."""
    if shutil.which("redis-server") is None:
        return "there is no Redis server on this machine (Debian: redis-server), so nothing is tested on it"
    return None


class RedisServer:
    """One server; `start`, `kill`, `freeze` and `thaw` may follow each other, the port stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        place = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        kept = ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["redis-server", *place, *kept], stdout=log, stderr=log, preexec_fn=ends_with_us()
            )
        until(self.answers)

    def kill(self) -> None:
        """As after a power cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def freeze(self) -> None:
        """Let it neither answer nor close."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def thaw_if_running(self) -> None:
        """The same, whether it was frozen, running or killed."""
        if self._process is not None:
            self.thaw()

    def answers(self) -> bool:
        """Whether it answers a ping now."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


@contextlib.contextmanager
def running() -> Iterator[RedisServer]:
    """A server that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
