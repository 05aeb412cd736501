"""A real clamd for tests: on loopback, in a folder of its own, with one signature of ours and no other."""

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

MARKER = b"neural-image-restore scan test marker"
SIGNATURE = "Restore.TestMarker"
_PROGRAM = shutil.which("clamd") or shutil.which("clamd", path="/usr/sbin")


def missing() -> str | None:
    """What is not there, as the notice of a skipped test; None when all is."""
    return None if _PROGRAM else "there is no clamd on this machine (Debian: clamav-daemon), so no scan is tested"


class ClamdServer:
    """One clamd with few threads; it takes `stream_max` bytes. `freeze` and `thaw` stop and continue it."""

    def __init__(self, folder: Path, *, stream_max: int) -> None:
        assert _PROGRAM is not None
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.socket = folder / "clamd.ctl"
        database = folder / "signatures"
        database.mkdir()
        (database / "own.ndb").write_text(f"{SIGNATURE}:0:*:{MARKER.hex()}\n")
        self._configuration = folder / "clamd.conf"
        self._configuration.write_text(
            f"TCPSocket {self.port}\nTCPAddr 127.0.0.1\nLocalSocket {self.socket}\nForeground yes\n"
            f"DatabaseDirectory {database}\nTemporaryDirectory {folder}\nStreamMaxLength {stream_max}\n"
            f"MaxThreads 4\nLogFile {folder / 'log'}\nConcurrentDatabaseReload no\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address for CLAMD_URL."""
        return f"tcp://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it listens."""
        assert _PROGRAM is not None
        command = [_PROGRAM, "--config-file", str(self._configuration)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=ends_with_us()
        )
        until(self._listens)

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def freeze(self) -> None:
        """It takes connections (the kernel does) and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


@contextlib.contextmanager
def clamd(*, stream_max: int = 20_000_000) -> Iterator[ClamdServer]:
    """A running clamd."""
    folder = Path(tempfile.mkdtemp(prefix="clamd-", dir="/tmp"))  # the path of a socket must be short
    folder.chmod(0o755)  # started as root, clamd may give that up
    server = ClamdServer(folder, stream_max=stream_max)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
