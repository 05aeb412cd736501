"""The route of previews: one patch of a photo in each quality, ahead of the queue, and nothing of it kept."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response, StreamingResponse

from app.api import request_schemas, schemas, uploads
from app.api.dependencies import AppContext, get_context, get_owner
from app.api.hang_ups import disconnected
from app.api.json_bodies import options_of
from app.api.multipart_form import MultipartForm
from app.api.problems import get_request_id, problem_body
from app.errors import Cancelled, DeviceLost, RestoreError, TooManyRequests, Unavailable, Unprocessable
from app.jobs.previewing import PreparedPreview, PreviewedPatch, Previewer, previews_elsewhere
from app.options import Quality, RestoreOptions
from app.stages import IsWanted

router = APIRouter()
Answer = TypeVar("Answer")
Arguments = ParamSpec("Arguments")

PREVIEW = "/api/v1/preview"
LINES = "application/x-ndjson"
AT_ONCE_RETRY_SECONDS = 5
_LONGEST_SIDE_PIXELS = 1 << 20
_ERRORS = schemas.problems(400, 401, 408, 409, 413, 415, 422, 429, 503)
_FIELDS = {
    "x": {"type": "integer", "minimum": 0, "description": "middle of the patch in the upright, turned photo"},
    "y": {"type": "integer", "minimum": 0, "description": "both or neither: else a face or the most detail is chosen"},
    "qualities": {"type": "string", "description": "fast, balanced, best, with commas; empty: all that are installed"},
}


class PatchShape(schemas.Shape):
    """One restored patch: a JPEG as base64. `quality` is null for a model that was asked for by name."""

    quality: Literal["fast", "balanced", "best"] | None
    model: str
    width: int
    height: int
    seconds: float
    image: str
    warnings: list[schemas.NoticeShape]


class PreviewShape(schemas.Shape):
    """Where the patch lies in the upright, turned photo, how it looks there (a JPEG as base64), and how restored."""

    x: int
    y: int
    width: int
    height: int
    photo_width: int
    photo_height: int
    chosen_by: Literal["asked", "face", "detail"]
    qualities: list[Literal["fast", "balanced", "best"] | None]
    original: str
    patches: list[PatchShape]


@router.post(
    PREVIEW,
    tags=["jobs"],
    summary="A patch of a photo in each quality",
    responses={200: {"model": PreviewShape, "content": {LINES: {}}}, **_ERRORS},
    openapi_extra=request_schemas.upload_form("file", 1, more=_FIELDS),
)
async def preview(request: Request) -> Response:
    """A patch of 256 pixels before and after, as the whole result would show it, ahead of the queue. Nothing is kept.

    With `Accept: application/x-ndjson` the answer comes in lines: first the place without `patches`, then each patch
    as soon as it is done, and should one fail, the problem as the last line.
    """
    context = get_context(request)
    opened = contextlib.AsyncExitStack()
    try:
        previewer = await admit_preview(request, context)
        form = await receive_preview(request, context, opened)
        prepared = await while_wanted(request, _prepare, context, previewer, form)
        form.abort()
        lines = _lines(request, previewer, prepared, opened.pop_all())
        first = await anext(lines)  # begun, so that its end gives back what was opened, whatever becomes of the answer
        if LINES in request.headers.get("accept", ""):
            return StreamingResponse(_told(request, first, lines), media_type=LINES)
        return JSONResponse({**first, "patches": [line async for line in lines]})
    finally:
        await opened.aclose()


async def admit_preview(request: Request, context: AppContext) -> Previewer:
    """Who makes previews, once the owner may have one as far as is known before the photo is received.

    Raises:
        Conflict: `preview_unavailable`.
        Unavailable: `starting`, `backend_failed` or `previews_full`.
        TooManyRequests: `rate_limited` or `too_many_previews`.
    """
    previewer = context.previewer
    if previewer is None:
        raise previews_elsewhere()
    context.catalog.require_loaded()
    (await context.rate_limits.hit_preview(get_owner(request))).check()
    if not context.previewing.has_place(context.owner):  # so that nobody sends a photo in vain
        raise _no_place(context)
    return previewer


async def receive_preview(request: Request, context: AppContext, opened: contextlib.AsyncExitStack) -> MultipartForm:
    """The form with the photo, and then a place to make its preview; both are given back when `opened` closes.

    In this order: a photo that comes slowly takes nobody's place. Raises what `uploads.receive` does, or
    `TooManyRequests` `too_many_previews` or `Unavailable` `previews_full` when the places went meanwhile.
    """
    form = await uploads.receive(request, 1)
    opened.callback(form.abort)
    if not opened.enter_context(context.previewing.acquire(context.owner)):
        raise _no_place(context)
    return form


def _no_place(context: AppContext) -> RestoreError:
    if context.previewing.held_by(context.owner):
        detail = "Another preview of yours is being made; ask again when it has ended."
        return TooManyRequests("too_many_previews", detail, retry_after_seconds=AT_ONCE_RETRY_SECONDS)
    detail = "The service makes as many previews for others as it can just now; ask again in a few seconds."
    return Unavailable("previews_full", detail, retry_after_seconds=AT_ONCE_RETRY_SECONDS)


async def while_wanted(
    request: Request,
    function: Callable[Concatenate[IsWanted, Arguments], Answer],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> Answer:
    """Run it in a thread as long as the client stays: it is told as soon as that has left, or this task is cancelled.

    Raises `ClientDisconnect` when that stopped it.
    """
    context = get_context(request)
    gone = asyncio.create_task(disconnected(request))

    def work() -> Answer | None:
        try:
            return function(lambda: not gone.done(), *args, **kwargs)
        except Cancelled:  # it ends here, since this task may have ended before
            return None

    try:
        with told_when_lost(context):
            answer = await context.run_preview(work)
    finally:
        gone.cancel()
    if answer is None:
        raise ClientDisconnect
    return answer


def _prepare(is_wanted: IsWanted, context: AppContext, previewer: Previewer, form: MultipartForm) -> PreparedPreview:
    """Judge options and photo as a submission does, and cut the patch out."""
    fields: dict[str, object] = dict(form.fields)
    own = {name: str(fields.pop(name, "")).strip() for name in _FIELDS}
    options = options_of(fields, context.catalog)
    form.flush()
    upload = uploads.only_upload(form)
    context.submission.check(upload, options)
    place, qualities = _place_of(own["x"], own["y"]), _qualities_of(own["qualities"])
    return previewer.prepare(upload.path, options, place, qualities, is_wanted)


async def _lines(
    request: Request, previewer: Previewer, prepared: PreparedPreview, opened: contextlib.AsyncExitStack
) -> AsyncIterator[dict[str, Any]]:
    """The place, then each patch; nothing is begun any more once the client has left, and what has begun stops."""
    async with opened:
        yield _place_view(prepared)
        for quality, options in prepared.variants:
            if await request.is_disconnected():
                return
            try:
                patch = await while_wanted(request, _restore, previewer, prepared, quality, options)
            except ClientDisconnect:
                return
            yield _patch_view(patch)


def _restore(
    is_wanted: IsWanted,
    previewer: Previewer,
    prepared: PreparedPreview,
    quality: Quality | None,
    options: RestoreOptions,
) -> PreviewedPatch:
    return previewer.restore(prepared, quality, options, is_wanted)


async def _told(request: Request, first: dict[str, Any], lines: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    """Each line as text. The answer has begun, so what goes wrong now is its last line."""
    yield json.dumps(first) + "\n"
    try:
        async for line in lines:
            yield json.dumps(line) + "\n"
    except RestoreError as error:
        yield json.dumps(problem_body(error, get_request_id(request))) + "\n"


@contextlib.contextmanager
def told_when_lost(context: AppContext) -> Any:
    """A lost card ends the process, as it does under a photo."""
    try:
        yield
    except DeviceLost:
        threading.Thread(target=context.end_without_card, name="card-lost", daemon=True).start()
        detail = "The graphics card failed and the service starts again; try in a minute."
        raise Unavailable("device_lost", detail, retry_after_seconds=60) from None


def _place_of(x: str, y: str) -> tuple[int, int] | None:
    """Raises `Unprocessable` `invalid_option` for one without the other, and for what is no place."""
    if not x and not y:
        return None
    places = [int(text) if text.isascii() and text.isdecimal() and len(text) < 8 else -1 for text in (x, y)]
    if not all(0 <= place < _LONGEST_SIDE_PIXELS for place in places):
        raise Unprocessable("invalid_option", "Give 'x' and 'y' together, each a whole number of pixels from 0 on.")
    return places[0], places[1]


def _qualities_of(text: str) -> list[Quality]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if any(word not in tuple(Quality) for word in words):
        raise Unprocessable("invalid_option", f"Option 'qualities' takes {', '.join(Quality)}, with commas between.")
    return [Quality(word) for word in words]


def _place_view(prepared: PreparedPreview) -> dict[str, Any]:
    at, overview = prepared.at, prepared.patch.overview
    return {
        "x": at.left,
        "y": at.top,
        "width": at.width,
        "height": at.height,
        "photo_width": overview.width,
        "photo_height": overview.height,
        "chosen_by": prepared.chosen_by.value,
        "qualities": [quality for quality, _ in prepared.variants],
        "original": base64.b64encode(prepared.original).decode(),
    }


def _patch_view(patch: PreviewedPatch) -> dict[str, Any]:
    return {
        "quality": patch.quality,
        "model": patch.model,
        "width": patch.width,
        "height": patch.height,
        "seconds": patch.seconds,
        "image": base64.b64encode(patch.jpeg).decode(),
        "warnings": [notice.as_facts() for notice in patch.warnings],
    }
