"""A process that serves HTTP: built from settings, started in order, stopped in the reverse order.

With `restores` it also restores, which is the whole service of one machine; without, workers elsewhere do, and it
knows of them what they report.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from app.api.admission import Admission
from app.api.archives import archive_places
from app.api.auth.rate_limits import RateLimits
from app.api.catalog import Catalog
from app.api.connection_limits import descriptor_limit
from app.api.connections import Connections
from app.api.dependencies import AppContext
from app.api.forecast import Forecast
from app.api.job_events import JobEvents
from app.api.pyramids import Pyramids
from app.api.shared_calls import KEPT_SECONDS, KeptAnswers, SharedCalls
from app.api.shared_pool import Pools
from app.api.workers_catalog import WorkersCatalog
from app.backends.protocol import Backend
from app.errors import RestoreError
from app.images import LARGE_PIXELS, Decoder, DecoderPool
from app.images.decoder_pool import IDLE_SECONDS
from app.jobs.deletion import Deletion
from app.jobs.lease_keeper import LeaseKeeper, LeaseTimes
from app.jobs.own_masks import MaskSubmission
from app.jobs.previewing import Previewer
from app.jobs.queue_depth import follow_rows
from app.jobs.reblending import Reblender
from app.jobs.submission import Submission
from app.main import cluster
from app.main.infrastructure import Infrastructure, open_infrastructure
from app.main.limits import limits_of, open_model_downloads, open_scanner, result_limits_of, tile_limits_of
from app.main.queue import open_queue
from app.main.restoring import Describe, Restoring
from app.main.users import Users, upload_places
from app.main.webhooks import open_webhook_delivery, webhook_addresses_of
from app.metrics import Metrics
from app.process_names import own_process_name
from app.queue import LocalQueue, Queue
from app.settings import Settings
from app.threads import PeriodicThread
from app.worker import WorkerHealth

if TYPE_CHECKING:
    from app.queue.celery_queue import CeleryQueue

log = logging.getLogger(__name__)


class Service:
    """The parts together with their start and stop. `restoring` is None in a server whose photos workers restore."""

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
        self._after_death, self._settings, self._drained = after_death, settings, False
        self._scanner = open_scanner(settings)
        self._rate_limits = RateLimits(settings.rate_limit, cluster.open_windows(settings.broker_url))
        self._inspectors = DecoderPool(limits_of(settings).image)
        base = self._base = open_infrastructure(settings, lease_times)
        self._idle_decoders = _make_idle_watch(self._inspectors, base.metrics)
        self._users = Users(settings, self._rate_limits, base.metrics)
        self._webhooks = open_webhook_delivery(settings, base.store, base.metrics)
        self._model_downloads = open_model_downloads(settings) if restores else None
        self._pyramids = Pyramids(
            Decoder(tile_limits_of(base.limits), settings.processed_folder), idle_seconds=base.limits.retention_seconds
        )
        self._previews = KeptAnswers(kept_seconds=min(KEPT_SECONDS, base.limits.retention_seconds))
        self._loop: asyncio.AbstractEventLoop | None = None
        self.restoring: Restoring | None = None
        self.loaded = threading.Event()
        self._sender: CeleryQueue | None = None
        if restores:
            queue: Queue = LocalQueue()
            self.restoring = Restoring(
                base,
                queue,
                backends=backends,
                describe=describe,
                warm_up=warm_up,
                on_hang=on_hang,
                warm=self._warm_scanner,
                decoder=self._inspectors,
                hand_over_tiles=self._pyramids.hand_over,
            )
            self.loaded = self.restoring.loaded
            self.context = self._serve_with(base, queue, self.restoring)
        else:
            self._sender = open_queue(settings.broker_url, base.store, base.metrics)
            self.context = self._serve_for_workers(base, self._sender or LocalQueue())
        worker = None if self.restoring is None else self.restoring.worker
        self._links = cluster.link(self.context, base.hints, worker)

    @property
    def load_error(self) -> RestoreError | None:
        """Why the local backend could not be opened."""
        return None if self.restoring is None else self.restoring.load_error

    async def start(self) -> None:
        """Open the store, take back what a crash left, and begin to load; requests are answered meanwhile."""
        context, self._loop = self.context, asyncio.get_running_loop()
        await asyncio.to_thread(context.store.open)
        self._users.start(context.store)
        context.job_events.start(context.events)
        context.pyramids.start()
        self._idle_decoders.start()
        waiting = self._take_back() if self.restoring is not None else []
        context.janitor.start()
        context.lease_keeper.start()
        self._links.start()
        if self._webhooks is not None:
            self._webhooks.start()
        if self.restoring is not None:
            self.restoring.start(waiting)
        else:
            threading.Thread(target=self._warm_inspectors, name="decoder-warm-up", daemon=True).start()
            self.loaded.set()  # there is nothing to load

    def _take_back(self) -> list[str]:
        """What the process before this one left; returns the waiting attempts."""
        return self.context.store.recover(
            self.context.wall(), burn_try=self._after_death, predecessors=own_process_name().of_its_supervisor
        )

    async def drain(self) -> None:
        """Take no new photos, let the running one end, give back the rest. Harmless when called twice."""
        self._drained = self.context.admission.draining = True
        if self.restoring is not None:
            await asyncio.to_thread(self.restoring.drain, self.context.limits.drain_seconds)
        self.context.job_events.stop()

    def force_stop(self) -> None:
        """Cut a drain short."""
        if self.restoring is not None:
            self.restoring.force_stop()

    async def stop(self) -> None:
        """Stop everything that `start` started."""
        context = self.context
        if not self._drained:
            await self.drain()
        self._users.stop()
        if self._model_downloads is not None:
            await asyncio.to_thread(self._model_downloads.close)
        if self._webhooks is not None:
            await asyncio.to_thread(self._webhooks.stop)
        await asyncio.to_thread(context.janitor.stop)
        await asyncio.to_thread(context.lease_keeper.stop)
        if self.restoring is not None:
            await asyncio.to_thread(self.restoring.close)
        await asyncio.to_thread(context.reblender.close)
        await asyncio.to_thread(self._idle_decoders.stop)
        await asyncio.to_thread(context.inspectors.close)
        await context.pyramids.close()
        await asyncio.to_thread(context.pools.shutdown)
        if self._sender is not None:
            await asyncio.to_thread(self._sender.close)
        await asyncio.to_thread(self._links.stop)
        await context.rate_limits.windows.close()
        context.store.close()
        await asyncio.to_thread(context.tracer.close)

    def _forget(self, ids: Collection[str]) -> None:
        """Have previews and tiles of removed files go with them; from any thread."""
        if self._loop is None:
            return
        for kept in (self._previews, self._pyramids):
            with contextlib.suppress(RuntimeError):  # the loop has just closed
                self._loop.call_soon_threadsafe(kept.forget, ids)

    def _serve_with(self, base: Infrastructure, queue: Queue, restoring: Restoring) -> AppContext:
        worker = restoring.worker
        keeper = base.make_lease_keeper(queue, worker.held_tokens, restoring.runner.settle)
        return self._build(base, queue, restoring.catalog, worker.health, keeper)

    def _serve_for_workers(self, base: Infrastructure, queue: Queue) -> AppContext:
        catalog = WorkersCatalog(base.store.workers)
        follow_rows(base.store, base.metrics)
        return self._build(base, queue, catalog, catalog.health, base.make_lease_keeper(queue))

    # Longer than the rest for the one list of all parts, whose order should be read in one place.
    def _build(
        self,
        base: Infrastructure,
        queue: Queue,
        catalog: Catalog,
        worker_health: Callable[[], WorkerHealth],
        keeper: LeaseKeeper,
    ) -> AppContext:
        settings, store, storage, limits, metrics = self._settings, base.store, base.storage, base.limits, base.metrics
        pools = Pools()

        async def count_queued() -> int:
            counts = await pools.system.run("", store.counts)
            return counts.queued

        return AppContext(
            limits=limits,
            store=store,
            events=base.events,
            queue=queue,
            storage=storage,
            inspectors=self._inspectors,
            metrics=metrics,
            tracer=base.tracer,
            worker_health=worker_health,
            end_without_card=_nothing if self.restoring is None else self.restoring.worker.end_without_card,
            lease_keeper=keeper,
            janitor=base.make_janitor(self._forget),
            catalog=catalog,
            forecast=Forecast(
                store,
                catalog,
                time.monotonic,
                settings.siliconflow_concurrency,
                tiled_from_pixels=None if self.restoring is None else LARGE_PIXELS,
            ),
            authentication=self._users.authentication,
            rate_limits=self._rate_limits,
            job_events=JobEvents(),
            reblender=Reblender(store, storage, Decoder(result_limits_of(limits)), metrics),
            submission=self._make_submission(base, queue, catalog),
            masks=MaskSubmission(storage, self._inspectors),
            deletion=Deletion(store, storage, self._forget),
            admission=Admission(storage, limits.queue_limit, count_queued, time.monotonic),
            connections=Connections(),
            uploads=upload_places(limits),
            archiving=archive_places(descriptor_limit()),
            pools=pools,
            previews=self._previews,
            pyramids=self._pyramids,
            warm_ups=SharedCalls(),
            webhook_addresses=webhook_addresses_of(settings),
            clock=time.monotonic,
            wall=time.time,
            started_at=time.monotonic(),
            model_downloads=self._model_downloads,
            scanner=self._scanner,
            previewer=self._make_previewer(catalog),
        )

    def _make_previewer(self, catalog: Catalog) -> Previewer | None:
        if self.restoring is None:
            return None

        def qualities() -> list[Mapping[str, Any]]:
            return list(catalog.description().get("qualities", ()))

        return Previewer(self._inspectors, self.restoring.backends, qualities)

    def _make_submission(self, base: Infrastructure, queue: Queue, catalog: Catalog) -> Submission:
        return Submission(
            base.store,
            base.storage,
            queue,
            check_options=catalog.check,
            read_header=self._inspectors.read_header,
            limits=base.limits.submission,
            memory_bytes=catalog.memory_bytes,
            scan=None if self._scanner is None else self._scanner.scan,
        )

    def _warm_scanner(self) -> None:
        if self._scanner is not None:
            self._scanner.away()  # the first look also finds out its limit

    def _warm_inspectors(self) -> None:
        self._warm_scanner()
        try:
            self._inspectors.start()
        except RestoreError as error:  # the first photo tries again
            log.warning("the decoder could not be started: %s", error.detail)


def _make_idle_watch(inspectors: DecoderPool, metrics: Metrics) -> PeriodicThread:
    trouble, told = "decoders that are not needed stay", metrics.thread_restarted
    return PeriodicThread("idle-decoders", inspectors.end_idle, IDLE_SECONDS / 2, trouble=trouble, on_restart=told)


def _nothing() -> None:
    """A server that restores nothing has no card to lose."""
