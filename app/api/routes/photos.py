"""The routes of photos: upload once, restore as often as wanted, keep the result that is liked.

Routes join requests to the use cases of `app.jobs`, the store's library and `views`; they hold no rules of their own.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from app.api import request_schemas, schemas, uploads, views
from app.api.dependencies import AppContext, get_context, get_owner
from app.api.fair_use import charged
from app.api.job_origin import origin_of, with_webhook
from app.api.json_bodies import read_fields, read_object
from app.api.routes.jobs import accepted, submitted, waited
from app.errors import NotFound, Unprocessable
from app.jobs.idempotency import HEADER, check_key
from app.options import is_plain_text
from app.storage import ID_PATTERN
from app.store import Photo

router = APIRouter(tags=["photos"])

UPLOAD = "/api/v1/photos"
PhotoId = Annotated[str, Path(description="32 hex characters")]
_UPLOAD_PROBLEMS = schemas.problems(400, 401, 408, 413, 415, 422, 429, 503, 507)
_READ_PROBLEMS = schemas.problems(401, 404, 429)
_CHANGE_PROBLEMS = schemas.problems(400, 401, 404, 409, 422, 429)
_ATTEMPT_ID = {"type": "string", "pattern": f"^{ID_PATTERN.pattern}$"}
_CHOICE = {"type": "object", "properties": {"attempt_id": _ATTEMPT_ID}, "required": ["attempt_id"]}


@router.post(
    UPLOAD,
    status_code=201,
    summary="Upload one photo",
    responses={200: {"model": schemas.PhotoShape}, 201: {"model": schemas.PhotoShape}, **_UPLOAD_PROBLEMS},
    openapi_extra=request_schemas.upload_form("file", 1, options=False),
)
async def upload_photo(request: Request) -> Response:
    """Take one photo without restoring it. Bytes that are here already give the photo they are, with 200."""
    context = get_context(request)
    form = await uploads.receive(request, 1)
    photo, created = await context.run_heavy(uploads.add_photo, context, get_owner(request), form)
    return JSONResponse(_view(context, photo), 201 if created else 200, headers={"Location": f"{UPLOAD}/{photo.id}"})


@router.get(
    UPLOAD, summary="Your photos, newest first", responses={200: {"model": schemas.PhotoPage}, **_READ_PROBLEMS}
)
async def list_photos(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    before: Annotated[str | None, Query(description="`next` of the page before")] = None,
    archived: Annotated[bool, Query(description="the archived photos instead")] = False,
) -> Response:
    """One page of the photos that were uploaded here; ask again with `before` set to `next` until that is null."""
    if before is not None:
        _check_id(before)
    context = get_context(request)
    return JSONResponse(await context.run_heavy(_page, context, get_owner(request), limit, before, archived))


@router.get(
    UPLOAD + "/{photo_id}",
    summary="One photo with all its attempts",
    responses={200: {"model": schemas.PhotoShape}, **_READ_PROBLEMS},
)
async def show_photo(request: Request, photo_id: PhotoId) -> Response:
    """Everything that is known of the photo; the uploads of jobs are found here too."""
    context = get_context(request)
    return JSONResponse(
        _view(context, await context.run(context.store.library.photo, get_owner(request), _check_id(photo_id)))
    )


@router.post(
    UPLOAD + "/{photo_id}/restore",
    status_code=202,
    summary="Restore a photo once more",
    responses={
        200: {"model": schemas.JobShape},
        202: {"model": schemas.RestoreSubmitted},
        **_CHANGE_PROBLEMS,
        **schemas.problems(413, 415, 503, 507),
    },
    openapi_extra=request_schemas.options_body(),
)
async def restore_photo(request: Request, photo_id: PhotoId) -> Response:
    """One attempt more, with any backend and options, as a job of its own; 409 `photo_busy` while one is active.

    `Prefer: wait=SECONDS` answers with the finished job, or with the failure's own status.
    """
    context, key = get_context(request), check_key(request.headers.get(HEADER))
    await context.admission.check()
    fields = await read_fields(request)
    origin = with_webhook(context, origin_of(request), fields)
    asked = (get_owner(request), _check_id(photo_id), fields, request.url.path, key, origin)
    async with charged(request, context):
        job = await context.run(uploads.restore_photo, context, *asked)
    body = {**submitted(job), "attempt_id": job.attempt_id}
    return await waited(request, job.job_id) or accepted(body, f"/api/v1/jobs/{job.job_id}")


@router.post(
    UPLOAD + "/{photo_id}/select",
    summary="Choose the attempt to keep",
    responses={200: {"model": schemas.PhotoShape}, **_CHANGE_PROBLEMS},
    openapi_extra=request_schemas.object_body(_CHOICE),
)
async def select_attempt(request: Request, photo_id: PhotoId) -> Response:
    """Mark one completed attempt as the result of this photo; the last choice counts."""
    chosen = (await read_object(request)).get("attempt_id")
    if not isinstance(chosen, str) or not is_plain_text(chosen):
        raise Unprocessable("no_attempt", 'Send the attempt to keep as {"attempt_id": "..."}.')
    context = get_context(request)
    found = await context.run(
        context.store.library.select, get_owner(request), _check_id(photo_id), chosen, context.wall()
    )
    return JSONResponse(_view(context, found))


@router.post(
    UPLOAD + "/{photo_id}/archive",
    summary="Set a restored photo aside",
    responses={200: {"model": schemas.PhotoShape}, **_CHANGE_PROBLEMS},
)
async def archive_photo(request: Request, photo_id: PhotoId) -> Response:
    """The photo leaves the list and takes no more attempts; its results stay until it expires or is deleted."""
    context = get_context(request)
    found = await context.run(context.store.library.archive, get_owner(request), _check_id(photo_id), context.wall())
    return JSONResponse(_view(context, found))


@router.delete(
    UPLOAD + "/{photo_id}",
    summary="Remove a photo",
    responses={200: {"model": schemas.PhotoRemoved}, **_READ_PROBLEMS, **schemas.problems(409)},
)
async def remove_photo(request: Request, photo_id: PhotoId) -> Response:
    """Remove the photo, its attempts and all their files; 409 `photo_busy` while an attempt is active."""
    context = get_context(request)
    await context.run(context.deletion.remove_photo, get_owner(request), _check_id(photo_id))
    return JSONResponse({"photo_id": photo_id, "status": "removed"})


def _view(context: AppContext, photo: Photo) -> dict[str, Any]:
    return views.photo_view(photo, context.limits.retention_seconds)


def _page(context: AppContext, owner: str, limit: int, before: str | None, archived: bool) -> dict[str, Any]:
    photos = context.store.library.photos(owner, limit + 1, before, archived=archived)
    rows = [_view(context, photo) for photo in photos[:limit]]
    return {"photos": rows, "next": photos[limit - 1].id if len(photos) > limit else None}


def _check_id(photo_id: str) -> str:
    if not ID_PATTERN.fullmatch(photo_id):
        raise NotFound("photo_not_found", "There is no such photo; it may have expired or been removed.")
    return photo_id
