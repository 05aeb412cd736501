"""Has uploads looked at by ClamAV's clamd before they are kept, over its INSTREAM command; closed when it is away.

Our own client, since the packaged ones are under the GPL or not kept up. One connection a scan: clamd closes it anyway.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from app.errors import Unavailable, Unprocessable
from app.health_reasons import HealthReason
from app.notices import say

log = logging.getLogger(__name__)

SCANS_AT_ONCE = 4  # clamd works with 10 threads by default, and has other clients
PING_SECONDS = 2.0
KEPT_SECONDS = 5.0  # how long a found state holds: for health, and for refusing without another try
RETRY_SECONDS = 10
_CHUNK_BYTES = 256 * 1024
_LONGEST_REPLY_BYTES = 4096
_LONGEST_NAME_CHARACTERS = 100
_AWAY = say(HealthReason.SCANNER_AWAY, "The malware scanner (CLAMD_URL) does not answer, so uploads are refused.")
_LIMIT_WORDS = "size limit exceeded"


class ClamdScanner:
    """One clamd. Usable from any thread; every call waits for it, so not from the event loop.

    Args:
        url: `tcp://host:port`, or the path of a Unix socket with or without `unix://`.
        timeout_seconds: for one file, from the wait for a free place to the reply.
        max_file_bytes: the largest file that will be scanned.
        clock: monotonic seconds.
    """

    def __init__(
        self, url: str, timeout_seconds: float, max_file_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url, self._timeout, self._max_file_bytes, self._clock = url, timeout_seconds, max_file_bytes, clock
        self._places = threading.BoundedSemaphore(SCANS_AT_ONCE)
        self._asking = threading.Lock()
        self._state: tuple[float, str | None] = (float("-inf"), None)
        self._limit_problem: str | None = None
        self._is_probed = False
        self._silent_at = float("-inf")

    def scan(self, path: Path) -> None:
        """Let a local file pass, or not.

        Raises:
            Unprocessable: `malware_found`; the signature's name is logged.
            Unavailable: `scan_unavailable`: away, silent, busy, or a file that it does not take.
        """
        if self._clock() - self._silent_at < KEPT_SECONDS:  # nobody waits for what was silent a moment ago
            raise _unavailable()
        deadline = self._clock() + self._timeout
        with self._place(), path.open("rb") as file:
            reply = self._ask_in_time(file, deadline)
        if reply.endswith(" FOUND"):
            name = "".join(c if " " < c <= "~" else "?" for c in reply.removesuffix(" FOUND").split(": ")[-1])
            log.warning("an upload was refused: clamd found %s", name[:_LONGEST_NAME_CHARACTERS])
            raise Unprocessable("malware_found", "The file holds malware and was not kept; do not send it again.")
        if not reply.endswith(": OK"):
            log.error("clamd could not scan a file: %r", reply[:_LONGEST_NAME_CHARACTERS])
            raise _unavailable()

    def away(self) -> str | None:
        """What keeps every upload out, in a sentence; None while clamd answers. Asks at most every `KEPT_SECONDS`.

        The first time that it answers it is also asked whether it takes files as large as uploads may be (`problem`).
        """
        if self._clock() - self._state[0] > KEPT_SECONDS and self._asking.acquire(blocking=False):
            try:
                self._state = (self._clock(), None if self._answers() else _AWAY)
                if self._state[1] is None and not self._is_probed:
                    self._probe()
            finally:
                self._asking.release()
        return self._state[1]

    def problem(self) -> str | None:
        """What works, but not for every photo."""
        return self._limit_problem

    def _answers(self) -> bool:
        try:
            with _connected(self._url, PING_SECONDS) as connection:
                connection.sendall(b"zPING\0")
                return _read_reply(connection, self._time_left(self._clock() + PING_SECONDS)) == "PONG"
        except OSError:
            return False

    def _probe(self) -> None:
        """Send as many zeros as an upload may have bytes."""
        try:
            with _connected(self._url, PING_SECONDS) as connection:
                left = self._time_left(self._clock() + self._timeout)
                reply = _stream(connection, _zeros(self._max_file_bytes), left)
        except OSError as error:
            log.warning("clamd could not be probed: %s", type(error).__name__)
            return
        self._is_probed = True
        if _LIMIT_WORDS in reply:
            words = "StreamMaxLength of clamd is below MAX_FILE_SIZE_MB, so large photos are refused."
            self._limit_problem = say(HealthReason.SCANNER_LIMIT, words)
            log.error(self._limit_problem)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(timeout=self._timeout):
            log.error("clamd was busy with other files for %.0f s", self._timeout)
            raise _unavailable()
        try:
            yield
        finally:
            self._places.release()

    def _ask_in_time(self, file: BinaryIO, deadline: float) -> str:
        chunks = iter(lambda: file.read(_CHUNK_BYTES), b"")
        try:
            with _connected(self._url, PING_SECONDS) as connection:
                return _stream(connection, chunks, self._time_left(deadline))
        except OSError as error:
            if isinstance(error, TimeoutError):
                self._silent_at = self._clock()
            log.error("clamd did not answer: %s", type(error).__name__)
            raise _unavailable() from None

    def _time_left(self, deadline: float) -> Callable[[], float]:
        def left() -> float:
            seconds = deadline - self._clock()
            if seconds <= 0:
                raise TimeoutError
            return seconds

        return left


def _stream(connection: socket.socket, chunks: Iterator[bytes], time_left: Callable[[], float]) -> str:
    """Send one file as INSTREAM; the reply. Over its limit clamd replies and closes while we still send."""
    try:
        connection.settimeout(time_left())
        connection.sendall(b"zINSTREAM\0")
        for chunk in chunks:
            connection.settimeout(time_left())
            connection.sendall(len(chunk).to_bytes(4, "big") + chunk)
        connection.sendall(bytes(4))
    except (BrokenPipeError, ConnectionResetError):
        pass  # the reply says why, if it came before the reset
    return _read_reply(connection, time_left)


def _read_reply(connection: socket.socket, time_left: Callable[[], float]) -> str:
    """One reply up to its NUL. Raises `ConnectionError` where it ends before."""
    reply = b""
    while not reply.endswith(b"\0"):
        connection.settimeout(time_left())
        piece = connection.recv(_LONGEST_REPLY_BYTES)
        if not piece or len(reply) > _LONGEST_REPLY_BYTES:
            raise ConnectionError("no whole reply")
        reply += piece
    return reply[:-1].decode("utf-8", "replace").strip()


@contextlib.contextmanager
def _connected(url: str, timeout_seconds: float) -> Iterator[socket.socket]:
    """A connection of its own, closed at the end. Raises `OSError`."""
    address = urlsplit(url)
    if address.scheme == "tcp":
        connection = socket.create_connection((address.hostname or "", address.port or 0), timeout_seconds)
    else:
        connection = socket.socket(socket.AF_UNIX)
    with contextlib.closing(connection):
        if address.scheme != "tcp":
            connection.settimeout(timeout_seconds)
            connection.connect(address.path)
        yield connection


def _zeros(count: int) -> Iterator[bytes]:
    for start in range(0, count, _CHUNK_BYTES):
        yield bytes(min(_CHUNK_BYTES, count - start))


def _unavailable() -> Unavailable:
    return Unavailable(
        "scan_unavailable",
        "Uploads are scanned for malware, and the scanner does not answer just now; try again in a moment.",
        retry_after_seconds=RETRY_SECONDS,
    )
