"""The routes that hand out files: results, previews, originals, and the ZIP of a batch."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api import archives, file_responses, schemas
from app.api.dependencies import (
    AppContext,
    choose_attempt,
    get_context,
    get_finished_attempt,
    get_job,
    get_owner,
    not_finished,
)
from app.api.routes.jobs import JobId
from app.errors import Conflict, NotFound
from app.images import PREVIEW_SIDE_PIXELS, Pyramid
from app.options import RestoreOptions
from app.store import Attempt, AttemptStatus, Job

router = APIRouter()

JOBS_READ_AT_ONCE = 100

AttemptChoice = Annotated[str | None, Query(description="which photo of a batch: the id of an attempt")]
PreviewSize = Annotated[int, Query(ge=16, le=4096, description="most pixels a side")]
_FILE_PROBLEMS = schemas.problems(401, 404, 409, 416, 429)
_ELSEWHERE = {"description": "with RESULT_DELIVERY=redirect: the file is at `Location` for some minutes"}


@router.head("/processed/{name}", include_in_schema=False)
@router.get(
    "/processed/{name}",
    tags=["simple"],
    summary="A finished image",
    response_class=Response,
    responses={200: {"content": {"image/*": {}}}, 302: _ELSEWHERE, **_FILE_PROBLEMS},
)
async def processed(request: Request, name: str) -> Response:
    """The image behind a result's `url`, streamed; single byte ranges and If-None-Match are understood."""
    context = get_context(request)
    attempt = await context.run(context.store.result_attempt, get_owner(request), name)
    return await context.run(file_responses.result_response, context.storage, attempt, request)


@router.head("/api/v1/jobs/{job_id}/result", include_in_schema=False)
@router.get(
    "/api/v1/jobs/{job_id}/result",
    tags=["files"],
    summary="The finished image",
    response_class=Response,
    responses={200: {"content": {"image/*": {}}}, 302: _ELSEWHERE, **_FILE_PROBLEMS},
)
async def result(request: Request, job_id: JobId, attempt: AttemptChoice = None) -> Response:
    """The image. A job of several photos answers 409 `several_results`: choose with `attempt`, or fetch the ZIP."""
    context = get_context(request)
    chosen = await get_finished_attempt(request, job_id, attempt)
    return await context.run(file_responses.result_response, context.storage, chosen, request)


@router.get(
    "/api/v1/jobs/{job_id}/preview",
    tags=["files"],
    summary="The finished image, small",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **_FILE_PROBLEMS},
)
async def preview(
    request: Request, job_id: JobId, attempt: AttemptChoice = None, size: PreviewSize = PREVIEW_SIDE_PIXELS
) -> Response:
    """A JPEG of at most 400 x 400 pixels, or of `size`, for pages that must not decode a result of any length."""
    context = get_context(request)
    chosen = await get_finished_attempt(request, job_id, attempt)
    pyramid = context.pyramids.kept(chosen.result_name)
    make = functools.partial(context.run_heavy, _result_preview, context, chosen, size, pyramid)
    return file_responses.preview_response(await context.previews.get((chosen.result_name, size), make))


@router.get(
    "/api/v1/jobs/{job_id}/original",
    tags=["files"],
    summary="The upload",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}, "image/jpeg": {}}}, **_FILE_PROBLEMS},
)
async def original(
    request: Request,
    job_id: JobId,
    attempt: AttemptChoice = None,
    preview: Annotated[
        bool, Query(description="a JPEG of at most 400 x 400 (or `size`) instead, turned as the result is")
    ] = False,
    size: PreviewSize = PREVIEW_SIDE_PIXELS,
) -> Response:
    """The upload as an attachment, exactly as it was sent; or a small re-encoded JPEG to show."""
    context = get_context(request)
    job, _ = await get_job(request, job_id)
    chosen = choose_attempt(job, attempt)
    if preview:
        make = functools.partial(context.run_heavy, _original_preview, context, chosen, size)
        key = (chosen.photo_id, size, rotation_of(chosen))
        return file_responses.preview_response(await context.previews.get(key, make))
    return await context.run(file_responses.original_response, context.storage, chosen, request.headers)


@router.get(
    "/api/v1/batch/{job_id}/results",
    tags=["files"],
    summary="All finished images as a ZIP",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}}, **_FILE_PROBLEMS},
)
async def batch_results(request: Request, job_id: JobId) -> Response:
    """A streamed ZIP, stored and not deflated; photos that failed are named in its `errors.txt`.

    429 `too_many_archives` while four of yours are under way, or as many of all callers as the server can hold.
    """
    context = get_context(request)
    job, _ = await get_job(request, job_id)
    if not job.status.ended:
        raise not_finished()
    if job.status is not AttemptStatus.COMPLETED:
        raise Conflict("no_result", "No photo of this job was finished; its errors say why.")
    name = f"restored_{job.id[:8]}.zip"
    return await _archive(request, lambda: archives.archive_response(context.storage, [job], name))


@router.get(
    "/api/v1/results",
    tags=["files"],
    summary="Everything finished as one ZIP",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}}, **_FILE_PROBLEMS},
)
async def all_results(
    request: Request,
    before: Annotated[str | None, Query(description="only jobs older than this one, by its id", max_length=64)] = None,
) -> Response:
    """A streamed ZIP of the results of all your jobs that have ended, newest first; names are as in that of a batch.

    It holds at most 200 results. Where there are more, the header `Link` has the address of the next one. As many at
    once as of a batch.
    """
    context = get_context(request)
    return await _archive(request, lambda: _all_results(context, get_owner(request), before))


async def _archive(request: Request, make: Callable[[], archives.ArchiveResponse]) -> Response:
    """Make an archive in a place of its owner's, which is given back at the end of the answer or when there is none."""
    context = get_context(request)
    with contextlib.ExitStack() as place:
        place.enter_context(archives.archive_place(context.archiving, get_owner(request)))
        answer = await context.run_heavy(make)
        answer.held.push(place.pop_all())
    return answer


def _all_results(context: AppContext, owner: str, before: str | None) -> archives.ArchiveResponse:
    found: list[Job] = []
    room, fits = archives.MOST_RESULTS, True
    while fits and (page := context.store.jobs(owner, JOBS_READ_AT_ONCE, before)):
        for job in page:
            results = sum(attempt.result_name is not None for attempt in job.attempts)
            fits = results <= room
            if not fits:
                break
            before, room = job.id, room - results
            found += [job] if job.status is AttemptStatus.COMPLETED else []
    if not found:
        raise Conflict("no_result", "No photo of yours is finished yet, so there is nothing to download.")
    if fits:
        return archives.archive_response(context.storage, found, "restored.zip")
    address = f"/api/v1/results?before={before}"
    answer = archives.archive_response(
        context.storage, found, "restored.zip", f"Older results are not in this archive; they are at {address}\n"
    )
    answer.headers["Link"] = f'<{address}>; rel="next"'
    return answer


def _result_preview(context: AppContext, attempt: Attempt, size: int, pyramid: Pyramid | None) -> bytes:
    """From the tiles of a large result where it is cut up already: its file may take seconds to read."""
    assert attempt.result_name is not None
    if not context.storage.has_result(attempt.result_name):
        raise NotFound("result_not_found", "The file is not there any more; it has expired.")
    if pyramid is not None:
        with contextlib.suppress(NotFound):  # others needed the room just now
            return context.inspectors.tile_preview(pyramid, size)
    with context.storage.result(attempt.result_name) as path:
        return context.inspectors.preview(path, size, max_megapixels=context.limits.max_output_megapixels)


def _original_preview(context: AppContext, attempt: Attempt, size: int) -> bytes:
    if not context.storage.has_upload(attempt.photo_id):
        raise NotFound("photo_not_found", "The upload is not there any more; it has expired.")
    with context.storage.upload(attempt.photo_id) as path:
        return context.inspectors.preview(path, size, rotate=rotation_of(attempt))


def rotation_of(attempt: Attempt) -> int:
    """Degrees that this attempt turned its photo by: what stands beside the result is turned like it."""
    return RestoreOptions.from_json(attempt.options_json).rotate
