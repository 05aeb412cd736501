"""What a process runs besides when others share its database: it looks for their changes and tells of itself.

Nothing of it is built, imported or started where the database belongs to one process.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from app.api.auth.rate_windows import MemoryWindows, RedisWindows, Windows
from app.errors import DeviceLost, RestoreError
from app.events import Events, LocalEvents
from app.jobs.worker_reports import WorkerReport, WorkerReporter
from app.metrics import Metrics
from app.process_names import own_process_name
from app.store import Revision, Store
from app.store.database import is_shared

if TYPE_CHECKING:
    from app.api.catalog import Catalog
    from app.api.dependencies import AppContext
    from app.events.redis_hints import RedisHints
    from app.jobs.change_watch import ChangeWatch
    from app.worker import Worker


class ClusterLinks:
    """The threads that join a process to others: hints, the look for changes, and the report of its worker."""

    def __init__(
        self, watch: ChangeWatch | None = None, reporter: WorkerReporter | None = None, hints: RedisHints | None = None
    ) -> None:
        self._parts = [part for part in (hints, watch, reporter) if part is not None]

    def start(self) -> None:
        """Start them, once the store is open."""
        for part in self._parts:
            part.start()

    def stop(self) -> None:
        """End them, while the store is still open: the worker is taken off the list of those that live."""
        for part in reversed(self._parts):
            part.stop()


def open_events(
    database_url: str, broker_url: str, look: Callable[[Collection[str]], Mapping[str, Revision]], *, serves: bool
) -> tuple[Events, RedisHints | None]:
    """Events for a database of one process or of several, and the hints that go with them.

    `look` asks the store. Only a process that `serves` HTTP has somebody who wants to hear what others change.
    """
    if not is_shared(database_url):
        return LocalEvents(), None
    from app.events.polling import PollingEvents

    if not broker_url:
        return PollingEvents(look), None
    from app.events.redis_hints import RedisHints

    hints = RedisHints(broker_url, (lambda job_ids: events.hear(job_ids)) if serves else None)
    events = PollingEvents(look, hints)
    return events, hints


def open_windows(broker_url: str) -> Windows:
    """Where the requests of clients are counted."""
    return RedisWindows(broker_url) if broker_url else MemoryWindows()


def link(context: AppContext, hints: RedisHints | None, worker: Worker | None) -> ClusterLinks:
    """The links of a process that serves HTTP; `worker` takes photos beside it, or is None."""
    if isinstance(context.events, LocalEvents):
        return ClusterLinks()
    from app.events.polling import PollingEvents
    from app.jobs.change_watch import ChangeWatch

    assert isinstance(context.events, PollingEvents)
    context.metrics.follow_workers(functools.partial(_count_live, context.store))
    watch = ChangeWatch(
        context.store,
        context.metrics,
        look=context.events.tick,
        forget_sessions=context.authentication.sessions.forget if context.authentication.required else None,
    )
    reporter = None if worker is None else make_reporter(context.store, context.metrics, worker, context.catalog)
    return ClusterLinks(watch, reporter, hints)


def make_reporter(store: Store, metrics: Metrics, worker: Worker, catalog: Catalog) -> WorkerReporter:
    """The reports of this process's worker, and the warm-ups that it is asked for."""

    def warm_up() -> str | None:
        try:
            return catalog.warm_up()
        except DeviceLost:  # the process ends with its card, beside this thread
            threading.Thread(target=worker.end_without_card, name="card-lost", daemon=True).start()
            raise

    return WorkerReporter(
        store,
        metrics,
        name=str(own_process_name()),
        host=own_process_name().host,
        look=lambda: report_of(worker, catalog),
        warm_up=warm_up,
    )


def report_of(worker: Worker, catalog: Catalog) -> WorkerReport:
    """What a process says of itself at this moment."""
    health, rows = worker.health(), catalog.backends()
    lanes = {
        name: most
        for name, most in worker.lanes.items()
        if any(row["name"] == name and row["available"] for row in rows)
    }
    status, reasons = health.status, health.reasons
    if catalog.loading:
        status, reasons = "starting", ()
    elif catalog.failure is not None:
        status, reasons = "failing", (catalog.failure,)
    return WorkerReport(
        backends=tuple(lanes),
        status=status,
        reasons=reasons,
        in_work=len(worker.active_runs.tokens()),
        lanes=lanes,
        memory_limit_bytes=catalog.memory_bytes(),
        provider_pause_seconds=catalog.provider_pause_seconds(),
        description=catalog.description(),
        backend_rows=tuple(rows),
    )


def _count_live(store: Store) -> float:
    try:
        return float(len(store.workers.live()))
    except RestoreError:
        return float("nan")
