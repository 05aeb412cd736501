"""The routes about the service itself: health, resources, options and models, metrics, and signing in.

Health is a word with reasons, worked out in `wellbeing`; nothing here touches a job.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from app.api import schemas
from app.api.auth.api_keys import COOKIE_NAME, SESSION_SECONDS
from app.api.dependencies import AppContext, get_context
from app.api.health import get_health, get_resources
from app.api.middleware.access_control import SESSION_PATH, check_key, client_address
from app.errors import BadRequest, DeviceLost, Unavailable
from app.images import accepted_formats
from app.metrics import CONTENT_TYPE
from app.options import FIELDS, PROMPT_LIMIT_CHARACTERS, RestoreOptions

router = APIRouter()

READY_WORDS = frozenset(("ready", "busy", "degraded"))
_MEGABYTE = 1024 * 1024
_PROBLEMS = schemas.problems(401, 429)


@router.get("/health/live", tags=["health"], summary="Is the process alive?")
async def live() -> Response:
    """Always cheap, always open."""
    return JSONResponse({"status": "alive"})


@router.get(
    "/health/ready",
    tags=["health"],
    summary="Can it restore now?",
    responses={200: {"model": schemas.HealthShape}, 503: {"model": schemas.HealthShape}, **_PROBLEMS},
)
async def ready(request: Request) -> Response:
    """200 once the network is loaded and all parts work, else 503 with the reasons."""
    context = get_context(request)
    health = await context.run_system(get_health, context)
    return JSONResponse(health, 200 if health["status"] in READY_WORDS else 503)


@router.get(
    "/api/v1/health",
    tags=["health"],
    summary="Health as a word",
    responses={200: {"model": schemas.HealthShape}, **_PROBLEMS},
)
async def health(request: Request) -> Response:
    """starting, ready, busy, degraded, failing or draining, with plain reasons."""
    context = get_context(request)
    return JSONResponse(await context.run_system(get_health, context))


@router.get("/api/v1/status", tags=["system"], summary="Resources, queue and speed", responses=_PROBLEMS)
async def status(request: Request) -> Response:
    """Processor, memory and disk, the queue, seconds per megapixel, and the device with the reason for it."""
    context = get_context(request)
    return JSONResponse(await context.run_system(_status, context))


@router.get("/api/v1/config", tags=["system"], summary="Options, limits, backends and models", responses=_PROBLEMS)
async def config(request: Request) -> Response:
    """Everything a form needs: options with bounds and defaults, limits, formats, and what is installed."""
    context = get_context(request)
    return JSONResponse(await context.run_system(_config, context))


@router.post(
    "/api/v1/models/warmup",
    tags=["system"],
    summary="Load the default model and run it once",
    responses=schemas.problems(401, 429, 503),
)
async def warm_up(request: Request) -> Response:
    """Answers with the model's name once it has run; null when none is installed. A warm-up that runs is joined."""
    context = get_context(request)
    started = context.clock()
    try:
        model = await context.warm_ups.run("default", lambda: asyncio.to_thread(context.catalog.warm_up))
    except DeviceLost:
        threading.Thread(target=context.worker.end_without_card, name="card-lost", daemon=True).start()
        detail = "The graphics card failed and the service starts again; try in a minute."
        raise Unavailable("device_lost", detail, retry_after_seconds=60) from None
    return JSONResponse({"model": model, "seconds": round(context.clock() - started, 3)})


@router.get("/metrics", tags=["system"], summary="Prometheus metrics", response_class=Response, responses=_PROBLEMS)
async def metrics(request: Request) -> Response:
    """Counters and timings in the Prometheus text format."""
    context = get_context(request)
    return Response(await context.run_system(context.metrics.render), headers={"Content-Type": CONTENT_TYPE})


@router.post(SESSION_PATH, tags=["system"], summary="Sign in", responses=schemas.problems(400, 401, 403, 429))
async def sign_in(request: Request) -> Response:
    """Exchange the key (the X-API-KEY header, or JSON `{"key": "..."}`) for a session cookie."""
    context = get_context(request)
    if not context.keys.required:
        return JSONResponse({"signed_in": True, "key_required": False})
    owner = request.scope["state"]["owner"] or await _owner_of_body(request, context)
    answer = JSONResponse({"signed_in": True, "key_required": True})
    answer.set_cookie(
        COOKIE_NAME,
        context.keys.sign_session(owner),
        max_age=SESSION_SECONDS,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


@router.delete(SESSION_PATH, tags=["system"], summary="Sign out", status_code=204, response_class=Response)
async def sign_out(request: Request) -> Response:
    """End the session, wherever its cookie was copied to, and take the cookie out of the browser."""
    context = get_context(request)
    session = context.keys.session_of_cookie(request.cookies.get(COOKIE_NAME, ""))
    if session is not None:
        context.keys.forget_sessions([session.id])
        context.job_events.wake_all()  # who waits in this session ends now
        await context.run(context.store.end_session, session.id, context.wall() + SESSION_SECONDS)
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE_NAME, path="/", httponly=True, samesite="strict")
    return answer


async def _owner_of_body(request: Request, context: AppContext) -> str:
    """The owner behind the key in the JSON body; a wrong one counts against the address, as in a header."""
    try:
        key = json.loads(await request.body())["key"]
    except (ValueError, KeyError, TypeError, RecursionError):
        key = None
    if not isinstance(key, str):
        raise BadRequest("bad_request", 'Send the key as JSON: {"key": "..."}.')
    return await check_key(
        context.keys, context.rate_limits, key.encode(errors="surrogatepass"), client_address(request.scope)
    )


def _status(context: AppContext) -> dict[str, Any]:
    described = context.catalog.description()
    counts = context.store.counts()
    speed = context.store.seconds_per_megapixel()
    return {
        **get_health(context),
        "uptime_seconds": round(context.clock() - context.started_at, 1),
        "queue": {
            "queued": counts.queued,
            "processing": counts.processing,
            "completed": counts.completed,
            "failed": counts.failed,
            "cancelled": counts.cancelled,
            "limit": context.limits.queue_limit,
        },
        "seconds_per_megapixel": None if speed is None else round(speed, 4),
        "speeds": context.forecast.now()[0].speeds(),
        "device": _chosen(described, "device"),
        "precision": _chosen(described, "precision"),
        "engine": described.get("engine"),
        "workers": context.catalog.workers(),
        "resources": get_resources(context),
        "connections": context.connections.total,
    }


def _chosen(described: dict[str, Any], name: str) -> dict[str, Any]:
    return {"name": described.get(name), "reason": described.get(f"{name}_reason")}


def _config(context: AppContext) -> dict[str, Any]:
    described, limits = context.catalog.description(), context.limits
    return {
        "options": _options(),
        "limits": {
            "max_file_bytes": limits.max_file_bytes,
            "max_file_megabytes": limits.max_file_bytes / _MEGABYTE,
            "max_batch_size": limits.max_batch_size,
            "max_input_megapixels": limits.image.max_input_megapixels,
            "max_side_pixels": limits.image.max_side_pixels,
            "max_output_megapixels": limits.max_output_megapixels,
            "queue_limit": limits.queue_limit,
            "queue_limit_per_owner": limits.owner_limit,
            "retention_seconds": limits.retention_seconds,
            "max_prompt_characters": PROMPT_LIMIT_CHARACTERS,
        },
        "formats": accepted_formats(),
        "backends": context.catalog.backends(),
        "models": described.get("models", []),
        "face_models": described.get("face_models", []),
        "faces": described.get("faces"),
        "default_model": described.get("default_model"),
        "default_quality": described.get("default_quality"),
        "qualities": described.get("qualities", []),
        "problems": described.get("problems", []),
        "notes": described.get("notes", []),
        "embedded_model": described.get("embedded_model", False),
        "key_required": context.keys.required,
    }


def _options() -> dict[str, Any]:
    """Every option with its type, bounds, choices, default and help line, as `app.options` has them."""
    defaults = dataclasses.asdict(RestoreOptions())
    return {
        name: {
            "type": field.kind.__name__,
            "help": field.help,
            "minimum": field.low,
            "maximum": field.high,
            "choices": list(field.choices) if field.choices else None,
            "default": defaults[name],
        }
        for name, field in FIELDS.items()
    }
