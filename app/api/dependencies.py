"""The parts of a running service, in one typed bundle that hangs on the application; nothing here is global.

It knows what there is and how a request gets at it; it does nothing itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar, cast

from starlette.requests import HTTPConnection

from app.api.admission import Admission
from app.api.auth.api_keys import Keys
from app.api.auth.rate_limits import Rates
from app.api.catalog import Catalog
from app.api.connections import Connections
from app.api.job_events import Hub
from app.images import Decoder, ImageLimits
from app.jobs.janitor import Janitor
from app.jobs.reblending import Reblender
from app.metrics import Metrics
from app.storage import Storage
from app.store import Store
from app.worker import Worker

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


@dataclasses.dataclass(frozen=True)
class Limits:
    """The plain values that the API works by (see the settings of the same names)."""

    image: ImageLimits
    max_file_bytes: int
    max_batch_size: int
    max_output_megapixels: float
    queue_limit: int
    retention_seconds: float
    drain_seconds: float


@dataclasses.dataclass
class Parts:
    """Everything a request may need. `clock` is monotonic seconds, `wall` epoch seconds."""

    limits: Limits
    store: Store
    storage: Storage
    decoder: Decoder
    metrics: Metrics
    worker: Worker
    janitor: Janitor
    catalog: Catalog
    keys: Keys
    rates: Rates
    hub: Hub
    admission: Admission
    reblender: Reblender
    connections: Connections
    pool: ThreadPoolExecutor
    clock: Callable[[], float]
    wall: Callable[[], float]
    started_at: float

    async def run(
        self, function: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Answer:
        """Run a function that waits for disk or database in the pool, off the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.pool, lambda: function(*args, **kwargs))


def parts_of(connection: HTTPConnection) -> Parts:
    """The parts behind a request or WebSocket."""
    return cast(Parts, connection.app.state.parts)


def owner_of(connection: HTTPConnection) -> str:
    """Who is asking, as the guard found out."""
    return cast(str, connection.scope["state"]["owner"])
