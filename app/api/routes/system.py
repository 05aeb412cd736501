"""The routes about the service itself: health, resources, options and models, and metrics.

Health is a word with reasons, worked out in `wellbeing`; nothing here touches a job.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from app.api import schemas
from app.api.dependencies import AppContext, get_caller, get_context, get_owner, require_admin
from app.api.health import get_health, get_resources
from app.errors import DeviceLost, Unavailable
from app.health_reasons import as_causes
from app.images import accepted_formats
from app.images.formats import size_limits
from app.metrics import CONTENT_TYPE
from app.options import FIELDS, PROMPT_LIMIT_CHARACTERS, BackendName, RestoreOptions
from app.presets import presets_of

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
    """Processor, memory and disk, the queue, seconds per megapixel, and the device with the reason for it.

    The counts are of all jobs for the role admin, else of the caller's own.
    """
    context = get_context(request)
    counted = None if get_caller(request).is_admin else get_owner(request)
    return JSONResponse(await context.run_system(_status, context, counted))


@router.get("/api/v1/config", tags=["system"], summary="Options, limits, backends and models", responses=_PROBLEMS)
async def config(request: Request) -> Response:
    """Everything a form needs: options with bounds and defaults, limits, formats, and what is installed."""
    context = get_context(request)
    return JSONResponse(await context.run_system(_config, context))


@router.post(
    "/api/v1/models/warmup",
    tags=["system"],
    summary="Load the default model and run it once",
    responses=schemas.problems(401, 403, 429, 503),
)
async def warm_up(request: Request) -> Response:
    """Answers with the model's name once it has run; null when none is installed. A warm-up that runs is joined.

    Needs the role admin, where there are roles.
    """
    require_admin(request)
    context = get_context(request)
    started = context.clock()
    try:
        model = await context.warm_ups.run("default", lambda: asyncio.to_thread(context.catalog.warm_up))
    except DeviceLost:
        threading.Thread(target=context.end_without_card, name="card-lost", daemon=True).start()
        detail = "The graphics card failed and the service starts again; try in a minute."
        raise Unavailable("device_lost", detail, retry_after_seconds=60) from None
    return JSONResponse({"model": model, "seconds": round(context.clock() - started, 3)})


@router.get(
    "/metrics",
    tags=["system"],
    summary="Prometheus metrics",
    response_class=Response,
    responses=schemas.problems(401, 403, 429),
)
async def metrics(request: Request) -> Response:
    """Counters and timings in the Prometheus text format. Needs the role admin, where there are roles."""
    require_admin(request)
    context = get_context(request)
    return Response(await context.run_system(context.metrics.render), headers={"Content-Type": CONTENT_TYPE})


def _status(context: AppContext, owner: str | None) -> dict[str, Any]:
    """The counts are of one owner, or with None of all."""
    described = context.catalog.description()
    counts = context.store.counts(owner)
    speed = context.store.seconds_per_megapixel()
    return {
        **get_health(context),
        "uptime_seconds": round(context.clock() - context.started_at, 1),
        "queue": {
            "queued": counts.queued,
            "waiting": counts.queued + counts.read_ahead,
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
        "models_revision": context.catalog.revision(),
    }


def _chosen(described: dict[str, Any], name: str) -> dict[str, Any]:
    return {"name": described.get(name), "reason": described.get(f"{name}_reason")}


def _config(context: AppContext) -> dict[str, Any]:
    described, limits = context.catalog.description(), context.limits
    return {
        "options": _options(),
        "presets": _presets(context, described),
        "limits": {
            "max_file_bytes": limits.max_file_bytes,
            "max_file_megabytes": limits.max_file_bytes / _MEGABYTE,
            "max_batch_size": limits.max_batch_size,
            "max_input_megapixels": limits.image.max_input_megapixels,
            "max_side_pixels": limits.image.max_side_pixels,
            "max_output_megapixels": limits.max_output_megapixels,
            "queue_limit": limits.queue_limit,
            "queue_limit_per_owner": limits.owner_limit,
            "photos_per_day": limits.daily_limit,
            "concurrent_uploads": limits.uploads_limit,
            "retention_seconds": limits.retention_seconds,
            "keep_bytes": limits.keep_limit_bytes,
            "stored_bytes": limits.storage_limit,
            "max_prompt_characters": PROMPT_LIMIT_CHARACTERS,
        },
        "formats": accepted_formats(),
        "result_formats": size_limits(),
        "backends": context.catalog.backends(),
        "models": described.get("models", []),
        "face_models": described.get("face_models", []),
        "faces": described.get("faces"),
        "repair": described.get("repair", {"available": False}),
        "default_model": described.get("default_model"),
        "default_quality": described.get("default_quality"),
        "qualities": described.get("qualities", []),
        "problems": described.get("problems", []),
        "notes": described.get("notes", []),
        "note_causes": as_causes(described.get("notes", ())),
        "models_revision": context.catalog.revision(),
        "embedded_model": described.get("embedded_model", False),
        "webhooks": context.webhook_addresses is not None,
        "key_required": context.authentication.required,
        "accepts_tokens": context.authentication.accepts_tokens,
    }


def _presets(context: AppContext, described: dict[str, Any]) -> list[dict[str, Any]]:
    """Every preset with the options that it sets now, and what is missing for them; none where no network restores."""
    usable = any(row["name"] == BackendName.LOCAL and row["available"] for row in context.catalog.backends())
    return [dataclasses.asdict(preset) for preset in presets_of(described)] if usable else []


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
