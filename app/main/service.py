"""The parts of a running service: built from settings, started in order, stopped in the reverse order."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from app.api.admission import Admission
from app.api.auth.api_keys import ApiKeys
from app.api.auth.rate_limits import RateLimits
from app.api.catalog import LOCAL_BACKEND, Catalog
from app.api.connections import Connections
from app.api.dependencies import AppContext
from app.api.forecast import Forecast
from app.api.job_events import JobEvents
from app.api.shared_calls import KeptAnswers, SharedCalls
from app.api.shared_pool import Pools
from app.api.workers_catalog import WorkersCatalog
from app.backends.protocol import Backend, Pausing
from app.backends.siliconflow import NAME as CLOUD
from app.backends.siliconflow import describe_siliconflow
from app.errors import RestoreError
from app.events import Events
from app.images import Decoder, DecoderPool
from app.jobs.deletion import Deletion
from app.jobs.janitor import Janitor
from app.jobs.lease_keeper import LeaseKeeper, LeaseTimes
from app.jobs.reblending import Reblender
from app.jobs.runner import Runner
from app.jobs.submission import Submission
from app.main import cluster
from app.main.limits import limits_of, open_scanner, result_limits_of
from app.main.storage import open_storage
from app.metrics import Metrics
from app.process_names import own_process_name
from app.queue import LocalQueue, Queue
from app.settings import Settings
from app.storage import Storage, new_id
from app.store import SqlStore, Store
from app.threads import SupervisedThread
from app.worker import Worker, WorkerHealth

if TYPE_CHECKING:
    from app.backends.local import LocalBackend

log = logging.getLogger(__name__)

LOADER_JOIN_SECONDS = 15.0
OPEN_AGAIN_SECONDS = 30.0
IDLE_CHECK_SECONDS = 30.0

Describe = Callable[[], Mapping[str, Any]]


class Service:
    """The parts together with their start and stop. `load_error` is set when the local backend could not be opened.

    With `restores` False it only serves and loads no network: other processes restore, and report what they can.
    """

    def __init__(
        self,
        settings: Settings,
        backends: Mapping[str, Backend] | None,
        describe: Describe | None,
        warm_up: Callable[[], str | None] | None,
        on_hang: Callable[[], None] | None,
        lease_times: LeaseTimes | None = None,
        *,
        after_death: bool = False,
        restores: bool = True,
    ) -> None:
        self._after_death, self._restores = after_death, restores
        self.load_error: RestoreError | None = None
        self._settings, self._lease_times = settings, lease_times or LeaseTimes()
        self._given = backends is not None or not restores
        self._backends: dict[str, Backend] = dict(backends or {})
        self._describe: Describe = describe or dict
        self._warm_up: Callable[[], str | None] = warm_up or (lambda: None)
        self._loader = threading.Thread(target=self._load, name="loader", daemon=True)
        self._ending = threading.Event()
        self._idle_watch: SupervisedThread | None = None
        self._starting = threading.Lock()
        self._waiting: list[str] = []
        self.loaded = threading.Event()
        self._scanner = open_scanner(settings)
        self.context = self._build(on_hang)
        self._links = cluster.link(self.context, self._hints, restores=restores)

    async def start(self) -> None:
        """Open the store, take back what a crash left, and begin to load; requests are answered meanwhile."""
        context = self.context
        await asyncio.to_thread(context.store.open)
        self._waiting = context.store.recover(
            context.wall(), burn_try=self._after_death, predecessors=own_process_name().of_its_supervisor
        )
        context.keys.forget_sessions(context.store.ended_sessions(context.wall()))
        context.job_events.start(context.events)
        context.janitor.start()
        context.lease_keeper.start()
        self._links.start()
        self._loader.start()

    async def drain(self) -> None:
        """Take no new photos, let the running one end, give back the rest. Harmless when called twice."""
        self.context.admission.draining = True
        with self._starting:  # the loader has started the worker, or never will
            self._ending.set()
        await asyncio.to_thread(self.context.worker.drain, self.context.limits.drain_seconds)
        self.context.job_events.stop()

    def force_stop(self) -> None:
        """Cut a drain short."""
        threading.Thread(target=self.context.worker.stop, name="hurry", daemon=True).start()

    async def stop(self) -> None:
        """Stop everything that `start` started."""
        context = self.context
        if not context.job_events.closing:
            await self.drain()
        await asyncio.to_thread(context.janitor.stop)
        await asyncio.to_thread(context.lease_keeper.stop)
        await asyncio.to_thread(self._loader.join, LOADER_JOIN_SECONDS)
        if self._idle_watch is not None:
            self._idle_watch.stop()
        await asyncio.to_thread(context.reblender.close)
        await asyncio.to_thread(context.decoder.close)
        await asyncio.to_thread(context.inspectors.close)
        await asyncio.to_thread(context.pools.shutdown)
        await asyncio.to_thread(self._links.stop)
        await context.rate_limits.windows.close()
        context.store.close()

    # Longer than the rest for the one list of all parts, whose order should be read in one place.
    def _build(self, on_hang: Callable[[], None] | None) -> AppContext:
        settings, metrics = self._settings, Metrics()
        limits = limits_of(settings)
        queue = LocalQueue()
        store, events = self._make_store()
        storage = open_storage(settings)
        decoder, inspectors = Decoder(limits.image), DecoderPool(limits.image)
        pools = Pools()
        runner = Runner(store, storage, decoder, self._backends, metrics)
        # Wake-ups go to the worker of this process; one that never starts must not collect them.
        worker = self._make_worker(runner, store, metrics, queue if self._restores else LocalQueue(), on_hang)
        self._open_cloud(decoder, storage)

        async def count_queued() -> int:
            counts = await pools.system.run("", store.counts)
            return counts.queued

        catalog, worker_health = self._make_catalog(store, worker, metrics)
        return AppContext(
            limits=limits,
            store=store,
            events=events,
            queue=queue,
            storage=storage,
            decoder=decoder,
            inspectors=inspectors,
            metrics=metrics,
            worker=worker,
            worker_health=worker_health,
            lease_keeper=LeaseKeeper(
                store, queue, metrics, self._lease_times, held=worker.held_tokens, settle=runner.settle
            ),
            janitor=self._make_janitor(store, storage, metrics),
            catalog=catalog,
            forecast=Forecast(store, catalog, time.monotonic, settings.siliconflow_concurrency),
            keys=ApiKeys([key.get_secret_value() for key in settings.api_keys]),
            rate_limits=RateLimits(settings.rate_limit, cluster.open_windows(settings.broker_url)),
            job_events=JobEvents(),
            reblender=Reblender(store, storage, Decoder(result_limits_of(limits)), metrics),
            submission=self._make_submission(store, storage, queue, catalog, inspectors),
            deletion=Deletion(store, storage),
            admission=Admission(storage, limits.queue_limit, count_queued, time.monotonic),
            connections=Connections(),
            pools=pools,
            previews=KeptAnswers(),
            warm_ups=SharedCalls(),
            clock=time.monotonic,
            wall=time.time,
            started_at=time.monotonic(),
            scanner=self._scanner,
        )

    def _make_store(self) -> tuple[Store, Events]:
        """The rows, and who hears of their changes."""
        url, seconds = self._settings.database_url, self._lease_times.lease_seconds
        events, self._hints = cluster.open_events(url, self._settings.broker_url, lambda ids: store.revisions(ids))
        store = SqlStore(url, events, worker=str(own_process_name()), lease_seconds=seconds)
        return store, events

    def _make_catalog(
        self, store: Store, worker: Worker, metrics: Metrics
    ) -> tuple[Catalog, Callable[[], WorkerHealth]]:
        """What is known of models and of those that restore: from this process, or from what workers report."""
        metrics.follow_provider(lambda: self._provider_pause_seconds() is not None)
        if not self._restores:
            reported = WorkersCatalog(store.workers)
            return reported, reported.health
        own = Catalog(
            lambda: self._describe(),
            lambda: self._warm_up(),
            backends=self._backend_rows(),
            provider_pause_seconds=self._provider_pause_seconds,
        )
        return own, worker.health

    def _make_submission(
        self, store: Store, storage: Storage, queue: Queue, catalog: Catalog, inspectors: DecoderPool
    ) -> Submission:
        return Submission(
            store,
            storage,
            queue,
            check_options=catalog.check,
            read_header=inspectors.read_header,
            limits=limits_of(self._settings).submission,
            scan=None if self._scanner is None else self._scanner.scan,
        )

    def _make_worker(
        self, runner: Runner, store: Store, metrics: Metrics, queue: Queue, on_hang: Callable[[], None] | None
    ) -> Worker:
        return Worker(
            runner,
            store,
            metrics,
            queue,
            waiting={CLOUD: self._settings.siliconflow_concurrency},
            hang_timeout_seconds=self._settings.hang_timeout_seconds,
            on_hang=on_hang,
        )

    def _make_janitor(self, store: Store, storage: Storage, metrics: Metrics) -> Janitor:
        kept, pause = self._settings.retention_minutes * 60, self._settings.janitor_interval_minutes * 60
        return Janitor(store, storage, metrics, retention_seconds=kept, interval_seconds=pause)

    def _open_cloud(self, decoder: Decoder, storage: Storage) -> None:
        """Open the cloud backend when there is a key; it connects to nothing until a photo asks for it."""
        settings = self._settings
        key = settings.siliconflow_api_key.get_secret_value()
        if self._given or not key:
            return
        from app.backends.siliconflow.backend import open_siliconflow_backend  # with it comes an HTTP client
        from app.backends.siliconflow.breaker import ProviderBreaker

        self._backends[CLOUD] = open_siliconflow_backend(
            api_key=key,
            api_url=settings.siliconflow_api_url,
            model=settings.siliconflow_model,
            timeout_seconds=settings.siliconflow_timeout,
            result_hosts=settings.siliconflow_result_hosts,
            decode=decoder.decode,
            scratch=lambda: storage.scratch(new_id()),
            share=storage.share,
            breaker=ProviderBreaker(),
        )

    def _provider_pause_seconds(self) -> float | None:
        cloud = self._backends.get(CLOUD)
        return cloud.pause_seconds() if isinstance(cloud, Pausing) else None

    def _backend_rows(self) -> list[dict[str, Any]]:
        """What may be chosen, and what it means to choose it."""
        cloud = describe_siliconflow(available=CLOUD in self._backends, api_url=self._settings.siliconflow_api_url)
        return [dict(LOCAL_BACKEND), cloud]

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
            if not self._given:
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
            if failure is None and self._restores and not self._ending.is_set():
                self.context.worker.start()
                for attempt_id in self._waiting:
                    self.context.queue.publish(attempt_id)
        self.context.catalog.loaded(failure)

    def _open_local(self) -> None:
        """In this thread: loading torch takes seconds, and `/health/live` shall answer before."""
        backend = open_backend(self._settings)
        self._backends[backend.name] = backend
        self._describe, self._warm_up = backend.describe, backend.warm_up
        try:
            backend.load()
        except RestoreError as error:  # a damaged weight file, say: other models may do, and each job says its own
            log.warning("the default model could not be loaded: %s", error.detail)
        if backend.may_release_when_idle:
            self._idle_watch = SupervisedThread("idle-release", functools.partial(_release_when_idle, backend))
            self._idle_watch.start()

    def _warm_decoders(self) -> None:
        if self._scanner is not None:
            self._scanner.away()  # the first look also finds out its limit
        try:
            self.context.inspectors.start()
            self.context.decoder.start()
        except RestoreError as error:  # the first photo tries again
            log.warning("the decoder could not be started: %s", error.detail)


def _release_when_idle(backend: LocalBackend, stop: threading.Event) -> None:
    """Have a card's memory given back when it had no work for a while, until `stop`."""
    while not stop.wait(IDLE_CHECK_SECONDS):
        backend.release_if_idle(time.monotonic())


def open_backend(settings: Settings) -> LocalBackend:
    """The local backend that the settings describe: device and precision are chosen, nothing is loaded yet.

    Imported here, since torch takes seconds. Raises `RestoreError` when the device is not there.
    """
    from app.backends.local import open_local_backend

    return open_local_backend(
        settings.weights_folder,
        device=settings.device,
        precision=settings.precision,
        tile_size=settings.tile_size,
        engine=settings.engine,
        default_quality=settings.default_quality,
        allow_unverified=settings.allow_unverified_weights,
        face_detector=settings.face_detector,
        idle_release_seconds=settings.idle_release_minutes * 60,
    )
