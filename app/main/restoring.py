"""The parts of a process that restores: backends, decoder, runner and worker, and the thread that loads them.

With HTTP beside it it is the service of one machine; alone it is a worker of several.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.api.catalog import LOCAL_BACKEND, Catalog
from app.backends.protocol import Backend, Pausing
from app.backends.siliconflow import NAME as CLOUD
from app.backends.siliconflow import describe_siliconflow
from app.errors import RestoreError
from app.exit_codes import EXIT_CARD_LOST, EXIT_HUNG
from app.images import Decoder, DecoderPool
from app.jobs.runner import Runner
from app.jobs.tile_cutting import HandOver, TileCutter
from app.main.cloud import open_cloud
from app.main.infrastructure import Infrastructure
from app.main.limits import open_result_cache
from app.main.local_backend import open_backend, release_when_idle
from app.main.weights_watch import WeightsWatch, make_watch_thread
from app.memory_limit import budget_bytes
from app.queue import Queue
from app.restoration.models.folder_watch import FolderWatch
from app.threads import PeriodicThread, SupervisedThread
from app.worker import Worker

log = logging.getLogger(__name__)

LOADER_JOIN_SECONDS = 15.0
OPEN_AGAIN_SECONDS = 30.0

Describe = Callable[[], Mapping[str, Any]]


class Restoring:
    """The parts together. `load_error` is set when the local backend could not be opened.

    Args:
        infrastructure: what they stand on.
        queue: what wakes the lanes.
        backends: what restores, by name; None opens what the settings name.
        describe, warm_up: of the given backends (see `Catalog`).
        on_hang: called when a restoration hangs; the process should end.
        here, cloud: whether this machine's own networks restore, and whether it asks the provider.
        warm: whatever else should be warmed beside the decoder.
        decoder: decodes the photos; None: one of its own. It is started and closed here either way.
        hand_over_tiles: takes the tiles of large results; None where this process serves no viewers.
    """

    def __init__(
        self,
        infrastructure: Infrastructure,
        queue: Queue,
        *,
        backends: Mapping[str, Backend] | None = None,
        describe: Describe | None = None,
        warm_up: Callable[[], str | None] | None = None,
        on_hang: Callable[[], None] | None = None,
        here: bool = True,
        cloud: bool = True,
        warm: Callable[[], None] = lambda: None,
        decoder: DecoderPool | None = None,
        hand_over_tiles: HandOver | None = None,
    ) -> None:
        settings = infrastructure.settings
        self._infrastructure, self._settings, self._queue, self._warm = infrastructure, settings, queue, warm
        self.load_error: RestoreError | None = None
        self.loaded = threading.Event()
        self._given, self._here, self._hand_over_tiles = backends is not None, here, hand_over_tiles
        self.backends: dict[str, Backend] = dict(backends or {})
        self._describe: Describe = describe or dict
        self._warm_up: Callable[[], str | None] = warm_up or (lambda: None)
        self._loader = threading.Thread(target=self._load, name="loader", daemon=True)
        self._ending, self._starting = threading.Event(), threading.Lock()
        self._idle_watch: SupervisedThread | None = None
        self._weights_watch: PeriodicThread | None = None
        self._waiting: Sequence[str] = ()
        self.decoder = decoder or Decoder(infrastructure.limits.image)
        memory_bytes = budget_bytes()
        self.runner = self._make_runner(memory_bytes)
        self.worker = self._make_worker(on_hang, cloud=cloud)
        if (
            cloud
            and not self._given
            and (opened := open_cloud(settings, self.decoder, infrastructure.storage)) is not None
        ):
            self.backends[CLOUD] = opened
        available = CLOUD in self.backends
        rows = [dict(LOCAL_BACKEND), describe_siliconflow(available=available, api_url=settings.siliconflow_api_url)]
        self.catalog = Catalog(
            lambda: self._describe(),
            lambda: self._warm_up(),
            backends=rows,
            provider_pause_seconds=self._provider_pause_seconds,
            memory_bytes=memory_bytes,
        )
        infrastructure.metrics.follow_provider(lambda: self._provider_pause_seconds() is not None)

    @property
    def exit_code(self) -> int:
        """How a process ends that cannot go on: because its card is lost, or because a run hangs."""
        return EXIT_CARD_LOST if self.worker.card_lost else EXIT_HUNG

    def start(self, waiting: Sequence[str]) -> None:
        """Begin to load; then the worker takes photos, `waiting` first."""
        self._waiting = waiting
        self._loader.start()

    def drain(self, deadline_seconds: float) -> None:
        """Take no new photos, let the running one end, give back the rest. Harmless when called twice."""
        with self._starting:  # the loader has started the worker, or never will
            self._ending.set()
        self.worker.drain(deadline_seconds)

    def force_stop(self) -> None:
        """Cut a drain short."""
        threading.Thread(target=self.worker.stop, name="hurry", daemon=True).start()

    def close(self) -> None:
        """After the drain: end what else was started."""
        self._loader.join(LOADER_JOIN_SECONDS)
        if self._idle_watch is not None:
            self._idle_watch.stop()
        if self._weights_watch is not None:
            self._weights_watch.stop()
        self.decoder.close()

    def _make_runner(self, memory_bytes: int) -> Runner:
        base = self._infrastructure
        return Runner(
            base.store,
            base.storage,
            self.decoder,
            self.backends,
            base.metrics,
            tracer=base.tracer,
            cache=open_result_cache(self._settings, base.store, base.storage, self.backends),
            memory_bytes=memory_bytes,
            tile_cutter=self._make_tile_cutter(memory_bytes),
        )

    def _make_tile_cutter(self, memory_bytes: int) -> TileCutter | None:
        folder, disk_ok = self._settings.processed_folder, self._infrastructure.storage.free_disk_ok
        hand_over = self._hand_over_tiles
        return None if hand_over is None else TileCutter(folder, hand_over, disk_ok, memory_bytes)

    def _make_worker(self, on_hang: Callable[[], None] | None, *, cloud: bool) -> Worker:
        return Worker(
            self.runner,
            self._infrastructure.store,
            self._infrastructure.metrics,
            self._queue,
            waiting={CLOUD: self._settings.siliconflow_concurrency} if cloud else {},
            restores_here=self._here,
            is_shared=not cloud,
            hang_timeout_seconds=self._settings.hang_timeout_seconds,
            on_hang=on_hang,
        )

    def _provider_pause_seconds(self) -> float | None:
        cloud = self.backends.get(CLOUD)
        return cloud.pause_seconds() if isinstance(cloud, Pausing) else None

    def _load(self) -> None:
        """In its own thread: warm the decoder, open and load the backend, then let the worker begin.

        What fails for a reason that may pass is tried again until it works.
        """
        warming = threading.Thread(target=self._warm_decoders, name="decoder-warm-up", daemon=True)
        warming.start()  # the children load while we load
        failure = self._try_to_open()
        warming.join()
        self._begin(failure)
        self.loaded.set()
        while failure is not None and self.load_error is None and not self._ending.wait(OPEN_AGAIN_SECONDS):
            failure = self._try_to_open()
            self._begin(failure)

    def _try_to_open(self) -> str | None:
        """Open the local backend where none was given; one sentence when that failed."""
        try:
            if self._here and not self._given:
                self._open_local()
        except RestoreError as error:
            self.load_error = error
            return error.detail
        except Exception:
            log.exception("the local backend could not be opened")
            return "The restoration backend could not be opened; the log says why, and it is tried again."
        return None

    def _begin(self, failure: str | None) -> None:
        """Let the worker take photos, unless the backend could not be opened or the service stops."""
        with self._starting:
            if failure is None and not self._ending.is_set():
                self.worker.start()
                for attempt_id in self._waiting:
                    self._queue.publish(attempt_id)
        self.catalog.loaded(failure)

    def _open_local(self) -> None:
        """In this thread: loading torch takes seconds, and `/health/live` shall answer before."""
        folder = FolderWatch(self._settings.weights_folder)
        backend = open_backend(self._settings)
        self.backends[backend.name] = backend
        self._describe, self._warm_up = backend.describe, backend.warm_up
        default_model = None
        try:
            default_model = backend.load()
        except RestoreError as error:  # a damaged weight file, say: other models may do, and each job says its own
            log.warning("the default model could not be loaded: %s", error.detail)
        watch = WeightsWatch(folder, self.catalog.look_again, backend.load, default_model)
        self._weights_watch = make_watch_thread(watch, self._infrastructure.metrics.thread_restarted)
        self._weights_watch.start()
        if backend.may_release_when_idle:
            self._idle_watch = SupervisedThread("idle-release", functools.partial(release_when_idle, backend))
            self._idle_watch.start()

    def _warm_decoders(self) -> None:
        self._warm()
        try:
            self.decoder.start()
        except RestoreError as error:  # the first photo tries again
            log.warning("the decoder could not be started: %s", error.detail)
