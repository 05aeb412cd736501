"""The downloads that a service makes for its operator: one after another, each with its state, until it is told to end.

The thread lives only while something is to be fetched. A download that is asked for twice is the same one.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import logging
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from app.errors import Cancelled, NotFound, RestoreError, Unavailable
from app.model_downloads.fetching import fetch_weights, partial_bytes
from app.restoration.models.weights import Verdict, WeightFile, find_rows, is_present, official, verify_installed

log = logging.getLogger(__name__)

TRIES = 5
PAUSE_SECONDS = 2.0
KEPT_FREE_BYTES = 64 * 1024 * 1024
_CLOSE_SECONDS = 15.0


class DownloadState(enum.StrEnum):
    """`checking`: all bytes are there, and their hash is compared."""

    WAITING = "waiting"
    RUNNING = "running"
    CHECKING = "checking"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def active(self) -> bool:
        """Whether it will still change by itself."""
        return self in (DownloadState.WAITING, DownloadState.RUNNING, DownloadState.CHECKING)


class InstallWay(enum.StrEnum):
    """How somebody gets a model that is missing. Each has a text on the page."""

    BUTTON = "button"  # the caller installs it on the page, or by the API
    COMMAND = "command"  # the caller runs the service, where a command installs it
    BY_HAND = "by_hand"  # the same, where nothing is downloaded at all
    ASK = "ask"  # whoever runs the service installs it


@dataclasses.dataclass(frozen=True)
class Download:
    """One file: its state, the bytes that are here of all, and for a failed one the error's code and sentence."""

    file: str
    state: DownloadState
    bytes: int
    of: int
    code: str | None = None
    message: str | None = None


class ModelDownloads:
    """Fetches weight files into one folder. Safe to use from several threads.

    Args:
        folder: the weights folder.
        base_url: mirror, or empty for the origin of each file.
        refusal: why nothing is downloaded here, one sentence; None: downloads are allowed.
        way: how the operator installs models.
        tries: how often a file is asked for before it has failed; a try that brought bytes does not count.
        pause_seconds: between two tries.
    """

    def __init__(
        self,
        folder: Path,
        base_url: str,
        refusal: str | None = None,
        way: InstallWay = InstallWay.BUTTON,
        *,
        tries: int = TRIES,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self.refusal, self.way = refusal, way
        self._folder, self._base_url, self._tries, self._pause_seconds = folder, base_url, tries, pause_seconds
        self._lock = threading.Lock()
        self._waiting: collections.deque[WeightFile] = collections.deque()
        self._downloads: dict[str, Download] = {}
        self._stop: dict[str, threading.Event] = {}
        self._ending = False
        self._thread: threading.Thread | None = None

    def start(self, rows: Sequence[WeightFile]) -> list[Download]:
        """Begin to download files, or join the downloads that run; the state of each, in the same order.

        Raises:
            Unavailable: `storage_full` when the folder has no room for them, `draining` when the service stops.
        """
        self._check_room(rows)
        with self._lock:
            if self._ending:
                raise Unavailable("draining", "The service is shutting down; start the download again after it.")
            for row in rows:
                known = self._downloads.get(row.file)
                if known is None or not (known.state.active or self._is_done(known)):
                    done = partial_bytes(self._folder, row)
                    self._downloads[row.file] = Download(row.file, DownloadState.WAITING, done, row.bytes)
                    self._stop[row.file] = threading.Event()
                    self._waiting.append(row)
            if self._waiting and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="model-downloads", daemon=True)
                self._thread.start()
            return [self._downloads[row.file] for row in rows]

    def cancel(self, rows: Sequence[WeightFile]) -> list[Download]:
        """End the active downloads among these files; what has arrived stays for the next time.

        Raises `NotFound` `download_not_running` when none of them is active.
        """
        with self._lock:
            active = [row for row in rows if row.file in self._downloads and self._downloads[row.file].state.active]
            if not active:
                raise NotFound("download_not_running", "No such download is running; it may have ended already.")
            for row in active:
                self._stop[row.file].set()
                if row in self._waiting:
                    self._waiting.remove(row)
                self._downloads[row.file] = dataclasses.replace(
                    self._downloads[row.file], state=DownloadState.CANCELLED
                )
            return [self._downloads[row.file] for row in active]

    def known(self) -> dict[str, Download]:
        """Downloads by file, those that ended included until their file has gone again."""
        with self._lock:
            found = dict(self._downloads)
        return {
            file: one for file, one in found.items() if one.state is not DownloadState.COMPLETED or self._is_done(one)
        }

    def find(self, name: str) -> list[WeightFile]:
        """What a name means: a file, a model, or a set; none: nobody knows it."""
        return find_rows(name)

    def partial_bytes(self, file: str) -> int:
        """How much of an official file lies here to go on with."""
        row = official(file)
        return 0 if row is None else partial_bytes(self._folder, row)

    def close(self) -> None:
        """End what runs; it goes on where it stopped when it is asked for again."""
        with self._lock:
            self._ending = True
            self._waiting.clear()
            for stop in self._stop.values():
                stop.set()
            thread = self._thread
        if thread is not None:
            thread.join(_CLOSE_SECONDS)

    def _is_done(self, download: Download) -> bool:
        """Whether it was completed and its file is still there, or its conversion."""
        return download.state is DownloadState.COMPLETED and is_present(self._folder / download.file)

    def _check_room(self, rows: Sequence[WeightFile]) -> None:
        fetched = [row for row in rows if not is_present(self._folder / row.file)]
        needed = sum(row.bytes - partial_bytes(self._folder, row) for row in fetched)
        if not fetched:
            return
        existing = next(path for path in (self._folder, *self._folder.absolute().parents) if path.exists())
        if shutil.disk_usage(existing).free < needed + KEPT_FREE_BYTES:
            megabytes = round(needed / 1024**2)
            raise Unavailable("storage_full", f"The disk has no room for {megabytes} MB more; make some room first.")

    def _run(self) -> None:
        """In its thread: one file after another until none waits."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                row = self._waiting.popleft()
                stop = self._stop[row.file]
            try:
                self._fetch(row, stop)
            except Cancelled:
                self._set(row, stop, DownloadState.CANCELLED)
            except RestoreError as error:
                log.warning("%s", error.detail)
                self._set(row, stop, DownloadState.FAILED, code=error.code, message=error.detail)
            except Exception:
                log.exception("%s could not be downloaded", row.file)
                text = f"{row.file} could not be downloaded; the log says why."
                self._set(row, stop, DownloadState.FAILED, code="download_failed", message=text)
            else:
                log.info("downloaded %s", row.file)
                self._set(row, stop, DownloadState.COMPLETED, bytes=row.bytes)

    def _fetch(self, row: WeightFile, stop: threading.Event) -> None:
        """Fetch one file, again after a cut; raises `Cancelled` once `stop` is set, else what the last try raised."""

        def on_bytes(done: int, total: int) -> None:
            if stop.is_set():
                raise Cancelled
            self._set(row, stop, DownloadState.CHECKING if done == total else DownloadState.RUNNING, bytes=done)

        if verify_installed(self._folder / row.file) in (Verdict.VERIFIED, Verdict.CONVERTED):
            return
        tries = 0
        while True:
            had = partial_bytes(self._folder, row)
            self._set(row, stop, DownloadState.RUNNING, bytes=had)
            try:
                fetch_weights(row, self._folder, self._base_url, on_bytes)
                return
            except Unavailable as error:
                if error.code != "download_failed":  # a damaged file would be fetched whole again
                    raise
                tries = 1 if partial_bytes(self._folder, row) > had else tries + 1
                if tries >= self._tries:
                    raise
            if stop.wait(self._pause_seconds):
                raise Cancelled

    def _set(self, row: WeightFile, stop: threading.Event, state: DownloadState, **changes: object) -> None:
        """Change the state, unless the download was cancelled and asked for anew meanwhile."""
        with self._lock:
            known = self._downloads[row.file]
            if self._stop[row.file] is stop and known.state.active:
                self._downloads[row.file] = dataclasses.replace(known, state=state, **changes)  # type: ignore[arg-type]
