"""The API as one ASGI application: routes, layers around them, and a lifespan that starts and stops the service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.api import openapi, problems
from app.api.auth.origins import Origins
from app.api.dependencies import AppContext
from app.api.middleware.access_control import (
    FORM_OVERHEAD_BYTES,
    OPEN_PATHS,
    SESSION_PATH,
    AccessControlMiddleware,
    AccessRules,
)
from app.api.middleware.request_context import RequestContextMiddleware
from app.api.routes import (
    account,
    damage,
    downloads,
    estimates,
    events,
    faces,
    job_changes,
    jobs,
    models,
    photos,
    previews,
    system,
    tiles,
    websocket,
)
from app.backends.protocol import Backend
from app.jobs.lease_keeper import LeaseTimes
from app.main.restoring import Describe
from app.main.roles import refuse_open
from app.main.service import Service
from app.main.tracing import telemetry_of
from app.settings import Settings

# What pages of other origins may send, and read of an answer.
ALLOWED_HEADERS = ("X-API-KEY", "Authorization", "Content-Type", "Prefer", "Idempotency-Key", "Range", "X-Request-ID")
EXPOSED_HEADERS = (
    *(damage.SHARE_HEADER, "Location", "Retry-After", "X-Request-ID", "Content-Disposition", "Preference-Applied"),
    *("Link", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"),
)


# Longer than the rest for its arguments and its list of layers, whose order should be read in one place.
def create_app(
    settings: Settings,
    *,
    backends: Mapping[str, Backend] | None = None,
    describe: Describe | None = None,
    warm_up: Callable[[], str | None] | None = None,
    on_hang: Callable[[], None] | None = None,
    after_death: bool = False,
    lease_times: LeaseTimes | None = None,
    restores: bool = True,
) -> FastAPI:
    """The API as an ASGI application; its parts hang on `app.state`, and start and stop with its lifespan.

    Args:
        settings: everything the environment says.
        backends: what restores, by name; None opens the local backend while the service starts.
        describe: what the given backends are (see `app.api.catalog`).
        warm_up: loads and runs the given backends once; returns a model's name.
        on_hang: called when a restoration hangs; the process should end.
        after_death: the process before this one was seen to die alone, so the runs it left burned a try.
        lease_times: how long claims last and how often they are renewed; None: the usual times.
        restores: whether this process restores; one that does not knows the models that workers report.

    Raises:
        Conflict: `settings_conflict`: others could reach it without a key.
    """
    refuse_open(settings)
    service = Service(
        settings, backends, describe, warm_up, on_hang, lease_times, after_death=after_death, restores=restores
    )
    context = service.context

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="Neural Image Restore",
        description="Turns small, noisy, old photos into clean, large ones.",
        docs_url=None,  # the page would load its scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        telemetry=telemetry_of(context.tracer),
    )
    app.state.context, app.state.service = context, service
    problems.install(app)
    openapi.install(app, {*OPEN_PATHS, SESSION_PATH})
    for room in (
        jobs,
        job_changes,
        downloads,
        tiles,
        faces,
        photos,
        websocket,
        events,
        system,
        models,
        estimates,
        account,
        previews,
        damage,
    ):
        app.include_router(room.router)
    app.add_middleware(AccessControlMiddleware, rules=_rules(settings, context), admission=context.admission)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )
    app.add_middleware(RequestContextMiddleware, metrics=context.metrics, tracer=context.tracer)
    return app


def _rules(settings: Settings, context: AppContext) -> AccessRules:
    """What access is decided by. With a key and no list of hosts any host will do: the key is the protection."""
    one = settings.max_file_size_bytes + FORM_OVERHEAD_BYTES
    many = settings.max_file_size_bytes * settings.max_batch_size + FORM_OVERHEAD_BYTES
    hosts = (*settings.allowed_hosts, settings.host)
    any_host = context.authentication.required and not settings.allowed_hosts
    return AccessRules(
        authentication=context.authentication,
        origins=Origins(hosts, settings.cors_origins, any_host),
        rate_limits=context.rate_limits,
        submit_limits={
            jobs.SUBMIT: one,
            jobs.SUBMIT_BATCH: many,
            jobs.SIMPLE_SUBMIT: many,
            photos.UPLOAD: one,
            previews.PREVIEW: one,
            damage.DAMAGE: one,
            damage.LOOK: one,
        },
    )
