"""What a route depends on: the parts of the running service, who is asking, and the job or attempt that is asked for.

The parts hang on the application in one typed `AppContext`; nothing here is global.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from starlette.requests import HTTPConnection, Request

from app.api.admission import Admission
from app.api.auth.authentication import Authentication
from app.api.auth.caller import OPEN_CALLER, Caller
from app.api.auth.rate_limits import RateLimits
from app.api.catalog import Catalog
from app.api.connections import Connections
from app.api.forecast import Forecast
from app.api.job_events import JobEvents
from app.api.pyramids import Pyramids
from app.api.shared_calls import KeptAnswers, SharedCalls
from app.api.shared_pool import Pools
from app.errors import Conflict, Forbidden, NotFound
from app.events import Events
from app.images import DecoderPool, ImageLimits
from app.jobs.deletion import Deletion
from app.jobs.janitor import Janitor
from app.jobs.lease_keeper import LeaseKeeper
from app.jobs.own_masks import MaskSubmission
from app.jobs.previewing import Previewer
from app.jobs.reblending import Reblender
from app.jobs.submission import Submission, SubmissionLimits
from app.metrics import Metrics
from app.model_downloads import ModelDownloads
from app.queue import Queue
from app.storage import ID_PATTERN, Storage
from app.store import Attempt, AttemptStatus, Job, Store
from app.tracing import Tracer
from app.webhooks.addresses import WebhookAddresses
from app.worker import WorkerHealth

if TYPE_CHECKING:
    from app.clamd import ClamdScanner

NOT_FINISHED_RETRY_SECONDS = 2
MOST_PREVIEWS = 4  # at once

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
    owner_limit: int | None
    daily_limit: int | None
    uploads_limit: int | None
    retention_seconds: float
    keep_limit_bytes: int
    storage_limit: int | None
    drain_seconds: float

    @property
    def submission(self) -> SubmissionLimits:
        """The part that the use case of submission works by."""
        return SubmissionLimits(
            self.image,
            self.max_output_megapixels,
            self.queue_limit,
            owner_limit=self.owner_limit,
            daily_limit=self.daily_limit,
            storage_limit=self.storage_limit,
        )


@dataclasses.dataclass
class AppContext:
    """Everything a request may need. `clock` is monotonic seconds, `wall` epoch seconds.

    Attributes:
        owner, caller: whose request this context was lent to; calls run in that owner's share of the pools.
        inspectors: decoders for what requests ask of files.
        webhook_addresses: which may be told when a job ends; None: no webhooks are sent.
        model_downloads: what installs models for an operator; None where this server holds none.
        scanner: what looks for malware in uploads; None: nothing does.
        previewer: what makes previews; None where others restore. `previewing` counts those under way.
        end_without_card: ends this process, whose card computes no more; nothing where others restore.
        worker_health: how the worker of this process is, or those that report to it.
    """

    limits: Limits
    store: Store
    events: Events
    queue: Queue
    storage: Storage
    inspectors: DecoderPool
    metrics: Metrics
    tracer: Tracer
    worker_health: Callable[[], WorkerHealth]
    end_without_card: Callable[[], object]
    janitor: Janitor
    lease_keeper: LeaseKeeper
    catalog: Catalog
    forecast: Forecast
    authentication: Authentication
    rate_limits: RateLimits
    job_events: JobEvents
    admission: Admission
    reblender: Reblender
    submission: Submission
    masks: MaskSubmission
    deletion: Deletion
    connections: Connections
    uploads: Connections
    archiving: Connections
    pools: Pools
    previews: KeptAnswers
    pyramids: Pyramids
    warm_ups: SharedCalls[str | None]
    webhook_addresses: WebhookAddresses | None
    clock: Callable[[], float]
    wall: Callable[[], float]
    started_at: float
    model_downloads: ModelDownloads | None = None
    scanner: ClamdScanner | None = None
    previewer: Previewer | None = None
    previewing: Connections = dataclasses.field(default_factory=lambda: Connections(MOST_PREVIEWS, 1))
    owner: str = ""
    caller: Caller = OPEN_CALLER

    async def run(
        self, function: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Answer:
        """Run a function that waits for the database or a small file, off the event loop."""
        return await self.pools.quick.run(self.owner, function, *args, **kwargs)

    async def run_heavy(
        self, function: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Answer:
        """Run what takes long for its pictures or for its many rows, where nothing quick waits behind it."""
        return await self.pools.heavy.run(self.owner, function, *args, **kwargs)

    async def run_preview(
        self, function: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Answer:
        """Run what may wait for the device, where no other request waits behind it."""
        return await self.pools.previews.run(self.owner, function, *args, **kwargs)

    async def run_system(
        self, function: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Answer:
        """Run what tells about the service, where no owner's work is in the way."""
        return await self.pools.system.run("", function, *args, **kwargs)


def get_context(connection: HTTPConnection) -> AppContext:
    """The parts behind a request or WebSocket, lent to its owner."""
    caller = connection.scope["state"].get("caller")
    context = cast(AppContext, connection.app.state.context)
    return context if caller is None else dataclasses.replace(context, owner=caller.owner, caller=caller)


def get_owner(connection: HTTPConnection) -> str:
    """Who is asking, as `AccessControlMiddleware` found out."""
    return cast(str, connection.scope["state"]["owner"])


def get_caller(connection: HTTPConnection) -> Caller:
    """The same with name and role."""
    return cast(Caller, connection.scope["state"]["caller"])


def require_admin(connection: HTTPConnection) -> None:
    """Raises `Forbidden` `admin_required` for a caller with the role user."""
    if not get_caller(connection).is_admin:
        raise Forbidden(
            "admin_required", "This needs a key or token with the role admin; ask whoever runs the service."
        )


async def get_job(request: Request, job_id: str) -> tuple[Job, int]:
    """The job and its place in the queue. Raises `NotFound` `job_not_found`."""
    context = get_context(request)
    return await context.run(get_job_and_position, context, get_owner(request), check_id(job_id))


def get_job_and_position(context: AppContext, owner: str, job_id: str) -> tuple[Job, int]:
    """The same from a thread that may wait for the store."""
    job = context.store.job(owner, job_id)
    return job, get_position(context, job)


def get_position(context: AppContext, job: Job) -> int:
    """The job's place in the queue; 0, without a look at the rows, when nothing of it waits."""
    waits = any(attempt.status is AttemptStatus.QUEUED for attempt in job.attempts)
    return context.store.queue_position(job.id) if waits else 0


async def get_finished_attempt(request: Request, job_id: str, attempt_id: str | None) -> Attempt:
    """A completed attempt. Raises `Conflict` `not_finished`, `no_result` or `several_results`, or `NotFound`."""
    job, _ = await get_job(request, job_id)
    chosen = choose_attempt(job, attempt_id)
    if chosen.status is AttemptStatus.COMPLETED:
        return chosen
    if not chosen.status.ended:
        raise not_finished()
    raise Conflict("no_result", f"This photo has no result: {chosen.error_message or 'it was cancelled.'}")


def choose_attempt(job: Job, attempt_id: str | None) -> Attempt:
    """The one attempt of a single photo, or the named one. Raises `several_results` or `attempt_not_found`."""
    if attempt_id is None and len(job.attempts) > 1:
        raise Conflict(
            "several_results",
            "This job has several photos; add ?attempt= with the id of one, or fetch all from its batch results.",
        )
    return job.attempts[0] if attempt_id is None else job.attempt(attempt_id)


def not_finished() -> Conflict:
    """The error for a result that is not there yet."""
    return Conflict(
        "not_finished",
        "The restoration has not ended yet; ask for the job's state and come back.",
        retry_after_seconds=NOT_FINISHED_RETRY_SECONDS,
    )


def check_id(job_id: str) -> str:
    """The id, once it looks like one of ours."""
    if not ID_PATTERN.fullmatch(job_id):
        raise NotFound("job_not_found", "There is no such job; it may have expired or been removed.")
    return job_id
