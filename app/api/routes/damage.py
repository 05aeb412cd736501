"""The routes of damage: what was found in a photo, a mask that says it better, and a quick look before all that.

They turn requests into calls of `own_masks` and `previewing`; finding and filling are the business of the backend.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from app.api import request_schemas, schemas, uploads
from app.api.dependencies import AppContext, choose_attempt, get_context, get_finished_attempt, get_job
from app.api.fair_use import charged, note_accepted
from app.api.file_responses import SANDBOX
from app.api.job_origin import origin_of, with_webhook
from app.api.multipart_form import MultipartForm
from app.api.routes.downloads import AttemptChoice
from app.api.routes.jobs import JobId, accepted, submitted, waited
from app.api.routes.previews import admit_preview, receive_preview, while_wanted
from app.errors import NotFound, Unprocessable
from app.images.damage_file import DamageMap, read_damage
from app.jobs.idempotency import HEADER, AcceptedJob, check_key, digest_of
from app.jobs.previewing import SUGGESTED_SHARE, Previewer
from app.options import Repair, RestoreOptions
from app.stages import IsWanted
from app.storage import Beside
from app.store import Attempt, Job, JobOrigin

router = APIRouter(tags=["damage"])

DAMAGE = "/api/v1/jobs/{job_id}/damage"
LOOK = "/api/v1/damage"
MASK_FIELDS = frozenset(("mask",))
SHARE_HEADER = "Damage-Share"
_SHARE_DIGITS = 6
_ATTEMPT = "attempt"
_MORE = {_ATTEMPT: {"type": "string", "description": "which photo of a batch: the id of an attempt"}}


class DamageLook(schemas.Shape):
    """How much of a photo looks damaged, 0 to 1, and whether that is enough to offer a repair."""

    share: float
    suggested: bool


@router.get(
    DAMAGE,
    summary="What was found damaged and filled",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, **schemas.problems(401, 404, 409, 422, 429, 503)},
)
async def show_damage(
    request: Request,
    job_id: JobId,
    attempt: AttemptChoice = None,
    show: Annotated[
        DamageMap, Query(description="mask: 255 where the photo was filled; probability: 0 to 255, how sure it was")
    ] = DamageMap.MASK,
) -> Response:
    """An 8-bit grey PNG of the photo's own size, upright and turned. `Damage-Share` is the part that was filled."""
    chosen = await get_finished_attempt(request, job_id, attempt)
    report = chosen.params.get("repair")
    if not isinstance(report, Mapping) or not report.get("kept"):
        raise _no_map()
    context = get_context(request)
    png = await context.run_heavy(_map_of, context, chosen, show)
    headers = {SHARE_HEADER: str(report.get("share", 0)), "Content-Security-Policy": SANDBOX}
    return Response(png, media_type="image/png", headers=headers)


@router.post(
    DAMAGE,
    status_code=202,
    summary="Repair a photo with a mask",
    responses={
        200: {"model": schemas.JobShape},
        202: {"model": schemas.RestoreSubmitted},
        **schemas.problems(400, 401, 404, 408, 409, 413, 415, 422, 429, 503, 507),
    },
    openapi_extra=request_schemas.upload_form("mask", 1, bare=_MORE, required=False),
)
async def repair_with_mask(request: Request, job_id: JobId) -> Response:
    """One attempt more with the same options, as a job of its own, which fills what the mask marks.

    The mask is an 8-bit grey PNG or WebP of the photo's own size, upright and turned, white where to repair. Without
    one the attempt's own mask is used again (`own_mask`).
    """
    context, key = get_context(request), check_key(request.headers.get(HEADER))
    job, _ = await get_job(request, job_id)
    form = await uploads.receive(request, 1, MASK_FIELDS)
    async with charged(request, context):
        done = await context.run_heavy(_submit, context, job, form, request.url.path, key, origin_of(request))
    body = {**submitted(done), "attempt_id": done.attempt_id}
    return await waited(request, done.job_id) or accepted(body, f"/api/v1/jobs/{done.job_id}")


@router.post(
    LOOK,
    summary="How much of a photo looks damaged",
    responses={200: {"model": DamageLook}, **schemas.problems(400, 401, 408, 409, 413, 415, 422, 429, 503)},
    openapi_extra=request_schemas.upload_form("file", 1, bare={}),
)
async def look_for_damage(request: Request) -> Response:
    """A quick look at the photo made small, ahead of the queue; `suggested` says whether to offer a repair.

    Nothing is kept. It counts as a preview.
    """
    context = get_context(request)
    async with contextlib.AsyncExitStack() as opened:
        previewer = await admit_preview(request, context)
        form = await receive_preview(request, context, opened)
        share = await while_wanted(request, _look, context, previewer, form)
    return JSONResponse({"share": round(share, _SHARE_DIGITS), "suggested": share >= SUGGESTED_SHARE})


def _map_of(context: AppContext, attempt: Attempt, show: DamageMap) -> bytes:
    assert attempt.result_name is not None
    try:
        with context.storage.beside(attempt.result_name, Beside.DAMAGE) as path:
            return read_damage(path, show)
    except NotFound:
        raise _no_map() from None


def _no_map() -> NotFound:
    return NotFound("no_damage_map", "No damage is kept for this photo; restore it again with repair=auto.")


def _submit(
    context: AppContext, job: Job, form: MultipartForm, target: str, key: str | None, origin: JobOrigin
) -> AcceptedJob:
    """In one thread from start to end. Whatever happens, the uploaded file goes."""
    owner = context.owner
    try:
        fields: dict[str, object] = dict(form.fields)
        origin = with_webhook(context, origin, fields)
        attempt = choose_attempt(job, str(fields.pop(_ATTEMPT, "")) or None)
        _refuse_more(fields)
        form.flush()
        uses_own = attempt.mask_bytes is not None and not uploads.has_files(form)
        mask = None if uses_own else uploads.only_upload(form)

        def submit(job_id: str | None) -> tuple[Job, int]:
            def restore(options: RestoreOptions, origin: JobOrigin) -> tuple[Job, int]:
                asked = (owner, attempt.photo_id, options, context.wall(), job_id, origin)
                return context.submission.restore_photo(*asked)

            if mask is None:
                made, position = context.masks.submit_again(attempt, restore, origin)
            else:
                made, position = context.masks.submit(attempt, mask.path, restore, origin)
            note_accepted(context, made)
            return made, position

        sent = [] if mask is None else [mask]
        return uploads.submit_under_key(context, owner, key, lambda: digest_of(target, form.fields, sent), submit)
    finally:
        form.abort()


def _look(is_wanted: IsWanted, context: AppContext, previewer: Previewer, form: MultipartForm) -> float:
    """Judge the photo as a submission does, and look at it small."""
    _refuse_more(form.fields)
    form.flush()
    upload = uploads.only_upload(form)
    context.submission.check(upload, RestoreOptions(repair=Repair.AUTO.value, scale=1))
    return previewer.damage_share(upload.path, is_wanted)


def _refuse_more(fields: Mapping[str, Any]) -> None:
    if fields:
        raise Unprocessable("unknown_option", f"'{sorted(fields)[0][:40]}' is not taken here; leave it out.")
