"""A process that restores what API servers accept: the infrastructure, what restores, and the broker's receiving end.

It serves no HTTP. The lanes wake by messages, and read the rows where none comes, so a broker that is away costs only
seconds.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping
from types import FrameType
from typing import Any

from app import logs
from app.backends.protocol import Backend
from app.errors import Conflict
from app.jobs.lease_keeper import LeaseTimes
from app.main import cluster
from app.main.infrastructure import open_infrastructure
from app.main.queue import open_queue
from app.main.restoring import Describe, Restoring
from app.main.roles import ProcessRole, check_role, queues_of
from app.metrics import Metrics
from app.process_names import own_process_name
from app.queue.names import QueueName
from app.settings import Settings
from app.worker import MessageHolder

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
LET_GO_SECONDS = 5.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class WorkerService:
    """The parts together with their start and stop.

    Args:
        settings: everything the environment says; it names a broker.
        queues: what it serves.
        backends, describe, on_hang: as of `Restoring`.
        lease_times: how long claims last and how often they are renewed; None: the usual times.
        after_death: the process before this one was seen to die alone, so the runs it left burned a try.
    """

    def __init__(
        self,
        settings: Settings,
        queues: Collection[QueueName],
        *,
        backends: Mapping[str, Backend] | None = None,
        describe: Describe | None = None,
        on_hang: Callable[[], None] | None = None,
        lease_times: LeaseTimes | None = None,
        after_death: bool = False,
    ) -> None:
        from app.queue.celery_receiver import CeleryReceiver  # a process without a broker does without Celery

        base = self._base = open_infrastructure(settings, lease_times, serves=False)
        queue = open_queue(settings.broker_url, base.store, base.metrics)
        assert queue is not None, "the role was checked"
        self._queue, self._after_death = queue, after_death
        self._stop_metrics: Callable[[], None] = _nothing
        self.restoring = Restoring(
            base,
            queue.arrivals,
            backends=backends,
            describe=describe,
            on_hang=on_hang,
            here=QueueName.GPU in queues,
            cloud=QueueName.CLOUD in queues,
        )
        worker, runner = self.restoring.worker, self.restoring.runner
        self._keeper = base.make_lease_keeper(queue, worker.held_tokens, runner.settle)
        self._janitor = base.make_janitor()
        self._links = cluster.ClusterLinks(
            reporter=cluster.make_reporter(base.store, base.metrics, worker, self.restoring.catalog), hints=base.hints
        )
        self._holder = MessageHolder(base.store, worker.active_runs, queue.deliver)
        name = own_process_name()
        self._receiver = CeleryReceiver(
            queue.celery, f"{name.pid}@{name.host}", queues, sum(worker.lanes.values()), self._holder.hold
        )

    def start(self) -> None:
        """Open the store, take back what a crash left, load, and take messages. Raises `RestoreError`."""
        store, name = self._base.store, own_process_name()
        store.open()
        waiting = store.recover(time.time(), burn_try=self._after_death, predecessors=name.of_its_supervisor)
        self._stop_metrics = serve_metrics(self._base.settings, self._base.metrics)
        self._janitor.start()
        self._keeper.start()
        self._links.start()
        self.restoring.start(waiting)
        self._receiver.start()

    def stop(self) -> None:
        """Take nothing new, let the running photos end until the deadline, give back the rest, and end."""
        self._receiver.begin_stop()
        self.restoring.drain(self._base.limits.drain_seconds)
        self._holder.release()
        self._receiver.join(LET_GO_SECONDS)
        self._janitor.stop()
        self._keeper.stop()
        self.restoring.close()
        self._queue.close()
        self._links.stop()
        self._stop_metrics()
        self._base.store.close()
        self._base.tracer.close()


def serve_metrics(settings: Settings, metrics: Metrics) -> Callable[[], None]:
    """Where `WORKER_METRICS_PORT` says so; returns what ends it. Raises `Conflict` `settings_conflict`."""
    host, port = settings.host, settings.worker_metrics_port
    if port == 0:
        return _nothing
    try:
        return metrics.serve(host, port)
    except OSError as error:
        raise Conflict(
            "settings_conflict",
            f"{host} port {port} cannot be listened on ({error.strerror or 'unknown reason'}); "
            "stop what uses it, or choose another WORKER_METRICS_PORT: each worker of a machine needs its own.",
        ) from error


def _nothing() -> None:
    """Ends nothing: no metrics are served."""


def work(
    settings: Settings,
    queues: Collection[QueueName] = (),
    *,
    banner: Callable[[Mapping[str, Any]], None] | None = None,
    after_death: bool = False,
    backends: Mapping[str, Backend] | None = None,
    describe: Describe | None = None,
) -> None:
    """Restore until SIGTERM or SIGINT; a second signal cuts the drain short.

    `banner` is called once with what the local backend says of itself. Raises `RestoreError` when the start is not
    possible: settings that do not go together, no database, a device that is not there.
    """
    logs.set_up(settings.log_format, settings.secrets)
    check_role(settings, ProcessRole.WORKER)
    service = WorkerService(
        settings,
        queues_of(settings, queues),
        backends=backends,
        describe=describe,
        on_hang=lambda: os._exit(service.restoring.exit_code),
        after_death=after_death,
    )
    stopping = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            service.restoring.force_stop()
        stopping.set()

    for number in _SIGNALS:
        signal.signal(number, on_signal)
    service.start()
    _wait(service.restoring, stopping, banner)
    service.stop()
    if service.restoring.load_error is not None:
        raise service.restoring.load_error


def _wait(restoring: Restoring, stopping: threading.Event, banner: Callable[[Mapping[str, Any]], None] | None) -> None:
    """Until a signal, or until the backend turns out not to be possible here."""
    told = banner is None
    while not stopping.wait(LOOK_SECONDS) and restoring.load_error is None:
        if not told and restoring.loaded.is_set() and restoring.catalog.failure is None and banner is not None:
            told = True
            banner(restoring.catalog.description())
