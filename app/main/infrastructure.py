"""What every process has that serves HTTP or restores: the rows, the files, the events and the counts.

Nothing of it knows a network or a request, so that servers without torch and workers without HTTP stand on the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from app.api.dependencies import Limits
from app.events import Events
from app.jobs.deletion import Forget, forget_nothing
from app.jobs.janitor import Janitor
from app.jobs.lease_keeper import LeaseKeeper, LeaseTimes
from app.main import cluster
from app.main.limits import limits_of
from app.main.storage import open_storage
from app.main.tracing import open_tracer
from app.metrics import Metrics
from app.process_names import own_process_name
from app.queue import Queue
from app.settings import Settings
from app.storage import Storage
from app.store import SqlStore, Store
from app.tracing import Tracer
from app.tracing.calls import traced

if TYPE_CHECKING:
    from app.events.redis_hints import RedisHints


@dataclasses.dataclass(frozen=True)
class Infrastructure:
    """The parts that others are built on. `hints` stands in `events` where there are any."""

    settings: Settings
    limits: Limits
    store: Store
    storage: Storage
    events: Events
    hints: RedisHints | None
    metrics: Metrics
    tracer: Tracer
    lease_times: LeaseTimes

    def make_lease_keeper(
        self, queue: Queue, held: Callable[[], Collection[str]] = tuple, settle: Callable[[], object] = lambda: None
    ) -> LeaseKeeper:
        """It renews what this process holds (nothing, when it restores nothing) and finds what others lost."""
        return LeaseKeeper(self.store, queue, self.metrics, self.lease_times, held=held, settle=settle)

    def make_janitor(self, forget: Forget = forget_nothing) -> Janitor:
        """It removes what is too old, and files without rows; `forget` as of `Deletion`."""
        return Janitor(
            self.store,
            self.storage,
            self.metrics,
            retention_seconds=self.settings.retention_minutes * 60,
            interval_seconds=self.settings.janitor_interval_minutes * 60,
            forget=forget,
        )


def open_infrastructure(
    settings: Settings, lease_times: LeaseTimes | None = None, *, serves: bool = True
) -> Infrastructure:
    """Build the parts, of a process that `serves` HTTP or does not; nothing is connected or started yet."""
    times, tracer = lease_times or LeaseTimes(), open_tracer(settings)
    urls = settings.database_url, settings.broker_url
    events, hints = cluster.open_events(*urls, lambda ids: rows.revisions(ids), serves=serves)
    rows = SqlStore(settings.database_url, events, worker=str(own_process_name()), lease_seconds=times.lease_seconds)
    return Infrastructure(
        settings,
        limits_of(settings),
        traced(rows, "store", tracer),
        traced(open_storage(settings), "storage", tracer),
        events,
        hints,
        Metrics(),
        tracer,
        times,
    )
