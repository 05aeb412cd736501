"""What callers may ask for and what is left of it: of the day's photos, places in the queue, uploads and requests."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request

from app.api.auth.caller import OPEN_CALLER
from app.api.auth.rate_limits import RateWindow
from app.api.dependencies import AppContext, get_owner
from app.api.middleware.request_context import show_limit
from app.store import Job, next_day

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def charged(request: Request, context: AppContext) -> AsyncIterator[None]:
    """Around an acceptance: its answer, and a refusal too, tells what is left of the day's photos."""
    try:
        yield
    finally:
        limit = context.limits.daily_limit
        if limit is not None:
            now = context.wall()
            used = await context.run(context.store.accounts.usage, get_owner(request), now)
            left = max(0, limit - used.photos_today)
            show_limit(request.scope, limit, left, math.ceil(next_day(now) - now))


def note_accepted(context: AppContext, job: Job) -> None:
    """Say in the log and in the metrics who sent a job, where callers are told apart."""
    caller = context.caller
    if caller is not OPEN_CALLER:
        context.metrics.count_caller_photos(caller.label, len(job.attempts))
        log.info("job %s of %s: %d photos accepted", job.id, caller.name, len(job.attempts))


def usage_view(request: Request, context: AppContext) -> dict[str, Any]:
    """Limits of the caller with what is used and left of each; null where there is no limit. Reads rows."""
    owner, now, limits = get_owner(request), context.wall(), context.limits
    used = context.store.accounts.usage(owner, now)
    photos = _share(limits.daily_limit, used.photos_today)
    return {
        "photos_today": {**photos, "resets_at": next_day(now)} if photos else None,
        "waiting": _share(limits.owner_limit, used.waiting),
        "stored_bytes": _stored(context, owner),
        "uploads": _share(limits.uploads_limit, context.uploads.held_by(owner)),
        "requests": _window_view(request.scope["state"].get("rate_window"), now),
    }


def _stored(context: AppContext, owner: str) -> dict[str, Any] | None:
    """Added up only where there is a limit: it takes a look at all rows of the owner."""
    limit = context.limits.storage_limit
    return None if limit is None else _share(limit, context.store.accounts.stored_bytes(owner))


def _share(limit: int | None, used: int) -> dict[str, Any] | None:
    return None if limit is None else {"limit": limit, "used": used, "left": max(0, limit - used)}


def _window_view(window: RateWindow | None, now: float) -> dict[str, Any] | None:
    if window is None:
        return None
    shared = _share(window.limit, window.limit - window.left)
    return {**(shared or {}), "resets_at": now + window.resets_in_seconds, "window_seconds": window.window_seconds}
