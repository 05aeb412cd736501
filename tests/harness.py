"""A whole workshop in one folder: store, storage, decoder, runner and worker, with a small real backend.

`LanczosBackend` enlarges by tiles with Pillow's Lanczos filter and reports progress per tile, as the networks do; it
stands where a network would, so that the jobs' tests need no weights. Nothing else here is a double.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.errors import Cancelled
from app.events import LocalEvents
from app.images import Decoder, ImageLimits, Picture
from app.jobs.runner import Runner
from app.metrics import Metrics
from app.notices import Notice
from app.options import RestoreOptions
from app.queue import LocalQueue
from app.queue.local import LocalConsumer
from app.queue.protocol import serves_all
from app.results import RestorationResult
from app.stages import OnProgress, Stage
from app.storage import Beside, DiskStorage, Storage, new_id
from app.store import LEASE_SECONDS, Attempt, Job, NewPhoto, SqlStore

OWNER = "owner"


class LanczosBackend:
    """Enlarges by horizontal tiles; `on_tile` is called before each, so that a test can act in the middle of a run."""

    name = "local"

    def __init__(self, tile: int = 8, on_tile: Callable[[int], object] | None = None) -> None:
        self.tile, self.on_tile = tile, on_tile
        self.runs = 0

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        self.runs += 1
        began = time.monotonic()
        source = Image.fromarray(picture.rgb.astype(np.uint8))
        factor = int(options.scale)
        rows = []
        for number, top in enumerate(range(0, picture.height, self.tile)):
            if self.on_tile is not None:
                self.on_tile(number)
            if not on_progress(top / picture.height, Stage.UPSCALING):
                raise Cancelled
            height = min(self.tile, picture.height - top)
            box = (0, top, picture.width, top + height)
            size = (picture.width * factor, height * factor)
            rows.append(np.asarray(source.resize(size, Image.Resampling.LANCZOS, box=box)))
        result = Picture(np.concatenate(rows), source_format=picture.source_format)
        seconds = time.monotonic() - began
        warning = Notice("lanczos", "Enlarged with Lanczos, as the tests do.")
        return RestorationResult(result, "lanczos", seconds, {"tile": self.tile}, warnings=(warning,))


def photo_bytes(width: int = 24, height: int = 16, seed: int = 0, kind: str = "JPEG") -> bytes:
    """A small real photo file."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(noise).save(target, kind)
    return target.getvalue()


class _Replaceable:
    """Decodes with whatever decoder the harness has just now."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    def decode(self, path: Path, *, page: int | None, keep_partial: bool, rotate: int) -> Picture:
        found: Picture = self._harness.decoder.decode(path, page=page, keep_partial=keep_partial, rotate=rotate)
        return found


class HeardConsumer(LocalConsumer):
    """A consumer that tells when every wake-up was taken and dealt with, for tests of what is not taken."""

    def __init__(self) -> None:
        super().__init__()
        self._left, self._listening, self._lock = 0, False, threading.Lock()

    def put(self, attempt_id: str | None) -> None:
        with self._lock:
            self._left += attempt_id is not None
        super().put(attempt_id)

    def receive(self, timeout_seconds: float) -> str | None:
        with self._lock:
            self._listening = True
        found = super().receive(timeout_seconds)
        with self._lock:
            self._listening, self._left = False, self._left - (found is not None)
        return found

    def all_heard(self) -> bool:
        with self._lock:
            return self._listening and self._left == 0


class HeardQueue(LocalQueue):
    """The queue of one process, of which tests can ask whether its lanes have dealt with everything."""

    def __init__(self) -> None:
        super().__init__()
        self._heard: list[HeardConsumer] = []

    def open_consumer(self, serves: Callable[[str], bool] = serves_all) -> LocalConsumer:
        self._heard.append(HeardConsumer())
        self._consumers = (*self._consumers, (self._heard[-1], serves))
        return self._heard[-1]

    def all_heard(self) -> bool:
        return all(consumer.all_heard() for consumer in self._heard)


class Harness:
    """All parts on one folder. `open()` it, `close()` it; parts are plain attributes."""

    def __init__(
        self,
        folder: Path,
        backend: Any = None,
        decoder: Any = None,
        storage: Storage | None = None,
        *,
        database_url: str = "",
        lease_seconds: float = LEASE_SECONDS,
        **runner_options: Any,
    ) -> None:
        self.folder = folder
        self.database = folder / "data" / "jobs.sqlite3"
        self.events, self.queue = LocalEvents(), HeardQueue()
        self.store = SqlStore(database_url or f"sqlite:///{self.database}", self.events, lease_seconds=lease_seconds)
        self.storage: Storage = storage or DiskStorage(folder / "uploads", folder / "results")
        self.decoder: Any = decoder or Decoder(ImageLimits())
        self.backend: Any = backend or LanczosBackend()
        self.metrics = Metrics()
        self.backends: dict[str, Any] = {"local": self.backend}  # the runner's own: a test may change it
        self.runner = Runner(
            self.store, self.storage, _Replaceable(self), self.backends, self.metrics, **runner_options
        )

    def open(self) -> list[str]:
        """Open the store and recover, as the service does at its first start; returns the waiting attempts."""
        self.store.open()
        return self.store.recover(time.time(), burn_try=False)

    def close(self) -> None:
        self.decoder.close()
        self.store.close()

    def submit(
        self, *files: bytes, queue_limit: int = 1000, now: float | None = None, options: str = '{"scale": 2}'
    ) -> Job:
        """What the API does with an accepted request: files first, rows afterwards."""
        photos = [self.upload(content) for content in files or (photo_bytes(),)]
        moment = time.time() if now is None else now
        return self.store.add_job(OWNER, photos, options, "local", queue_limit, moment)

    def upload(self, content: bytes, width: int = 24, height: int = 16) -> NewPhoto:
        with self.storage.open_upload(new_id()) as writer:
            writer.write(content)
            stored = writer.commit()
        return NewPhoto(stored.id, stored.sha256, "photo.jpg", "image/jpeg", width, height, stored.bytes)

    def attempts(self, job: Job) -> tuple[Attempt, ...]:
        return self.store.job(OWNER, job.id).attempts

    def states(self, job: Job) -> list[str]:
        return [attempt.status.value for attempt in self.attempts(job)]

    def ended(self, job: Job) -> bool:
        return all(attempt.status.ended for attempt in self.attempts(job))

    def scratch_files(self) -> list[str]:
        return [file.name for file in self.storage.iter_parts()]

    def result_files(self) -> list[str]:
        return [file.name for file in self.storage.iter_results()]


def upload_file(storage: Storage, photo_id: str) -> Path:
    """The file of an upload, which `DiskStorage` lends itself, for a test that changes it behind the service's back."""
    with storage.upload(photo_id) as path:
        return path


def result_file(storage: Storage, result_name: str) -> Path:
    """The same for a result."""
    with storage.result(result_name) as path:
        return path


def layers_file(storage: Storage, result_name: str) -> Path:
    """The same for the layers of a result's faces."""
    with storage.beside(result_name, Beside.FACES) as path:
        return path


def scratch_name(storage: Storage, attempt_id: str) -> Path:
    """A scratch name that outlives its block, as a crash would leave it."""
    with storage.scratch(attempt_id) as path:
        return path


class Gate:
    """Holds a run of the backend at a tile until it is opened (`LanczosBackend.on_tile`)."""

    def __init__(self, tile: int = 0) -> None:
        self._tile = tile
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, number: int) -> None:
        if number == self._tile:
            self.reached.set()
            assert self.opened.wait(20.0)


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something that another thread does; fails loudly instead of hanging."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("what was waited for did not happen")
        time.sleep(0.005)
