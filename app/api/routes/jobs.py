"""The routes of jobs: submit, follow, list, cancel; first the simple surface for scripts, then `/api/v1`.

Routes join requests to the use cases of `app.jobs` and to `views`; they hold no rules of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from app.api import request_schemas, schemas, uploads, views
from app.api.dependencies import (
    AppContext,
    check_id,
    get_context,
    get_job,
    get_job_and_position,
    get_owner,
    get_position,
)
from app.api.fair_use import charged
from app.api.job_origin import origin_of
from app.api.prefer_wait import preferred_wait, wait_for_end
from app.api.problems import Refusal
from app.error_codes import facts_of
from app.errors import RestoreError
from app.jobs.idempotency import HEADER, AcceptedJob, check_key
from app.store import AttemptStatus, Job, JobSummary

router = APIRouter()

SIMPLE_SUBMIT, SUBMIT, SUBMIT_BATCH = "/enhance", "/api/v1/enhance", "/api/v1/enhance/batch"
MOST_IN_A_BATCH = 50
MOST_JOBS_WITH_ATTEMPTS = 20  # on a page; on a longer one, jobs of many photos come without what is known of each
MOST_ATTEMPTS_IN_A_LONG_LIST = 5
_SUBMIT_PROBLEMS = schemas.problems(400, 401, 408, 409, 413, 415, 422, 429, 503, 507)
_READ_PROBLEMS = schemas.problems(401, 404, 429)

JobId = Annotated[str, Path(description="32 hex characters")]


# The simple surface.


@router.post(
    SIMPLE_SUBMIT,
    status_code=202,
    tags=["simple"],
    summary="Submit 1 to 50 photos",
    responses={202: {"model": schemas.Submitted}, **_SUBMIT_PROBLEMS},
    openapi_extra=request_schemas.upload_form("files", MOST_IN_A_BATCH),
)
async def enhance_simple(request: Request) -> Response:
    """Take photos with one set of options; follow them under `/status/{job_id}`."""
    job = await _submit(request, get_context(request).limits.max_batch_size)
    return accepted(submitted(job), f"/status/{job.job_id}")


@router.get(
    "/status/{job_id}",
    tags=["simple"],
    summary="State of a job",
    responses={200: {"model": schemas.StatusShape}, **_READ_PROBLEMS},
)
async def status_simple(request: Request, job_id: JobId) -> Response:
    """Progress, finished photos with their addresses, and errors."""
    return JSONResponse(views.status_view(*await get_job(request, job_id)))


# The versioned surface.


@router.post(
    SUBMIT,
    status_code=202,
    tags=["jobs"],
    summary="Submit one photo",
    responses={200: {"model": schemas.JobShape}, 202: {"model": schemas.Submitted}, **_SUBMIT_PROBLEMS},
    openapi_extra=request_schemas.upload_form("file", 1),
)
async def enhance(request: Request) -> Response:
    """Take one photo. `Prefer: wait=SECONDS` answers with the finished job, or with the failure's own status."""
    job = await _submit(request, 1)
    return await waited(request, job.job_id) or accepted(submitted(job), f"/api/v1/jobs/{job.job_id}")


@router.post(
    SUBMIT_BATCH,
    status_code=202,
    tags=["jobs"],
    summary="Submit several photos",
    responses={200: {"model": schemas.JobShape}, 202: {"model": schemas.BatchSubmitted}, **_SUBMIT_PROBLEMS},
    openapi_extra=request_schemas.upload_form("files", MOST_IN_A_BATCH),
)
async def enhance_batch(request: Request) -> Response:
    """Take 1 to 50 photos with one set of options. One bad photo refuses all; `errors` names each bad one."""
    job = await _submit(request, get_context(request).limits.max_batch_size)
    body = {**submitted(job), "batch_id": job.job_id}
    return await waited(request, job.job_id) or accepted(body, f"/api/v1/batch/{job.job_id}")


@router.get(
    "/api/v1/jobs",
    tags=["jobs"],
    summary="Your jobs, newest first",
    responses={200: {"model": schemas.JobPage}, **_READ_PROBLEMS},
)
async def list_jobs(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    before: Annotated[str | None, Query(description="`next` of the page before")] = None,
) -> Response:
    """One page; ask again with `before` set to `next` until that is null.

    On a page of more than 20 jobs, one of more than 5 photos has null for `attempts`, `results` and `errors`.
    """
    if before is not None:
        check_id(before)
    context = get_context(request)
    found = await context.run_heavy(_page, context, get_owner(request), limit, before)
    return JSONResponse(found)


@router.get(
    "/api/v1/jobs/{job_id}",
    tags=["jobs"],
    summary="One job with all its attempts",
    responses={200: {"model": schemas.JobShape}, **_READ_PROBLEMS},
)
@router.get(
    "/api/v1/batch/{job_id}",
    tags=["jobs"],
    summary="One batch: the same as the job",
    responses={200: {"model": schemas.JobShape}, **_READ_PROBLEMS},
)
async def show_job(request: Request, job_id: JobId) -> Response:
    """Everything that is known of the job."""
    context = get_context(request)
    return JSONResponse(await context.run(_whole, context, get_owner(request), check_id(job_id)))


@router.delete(
    "/api/v1/jobs/{job_id}",
    tags=["jobs"],
    summary="Cancel or remove a job",
    responses={200: {"model": schemas.Removed}, **_READ_PROBLEMS},
)
async def remove_job(request: Request, job_id: JobId) -> Response:
    """Cancel the job if it is active (its row stays), else remove it together with its files."""
    context = get_context(request)
    outcome = await context.run(context.deletion.cancel_or_remove, get_owner(request), check_id(job_id), context.wall())
    return JSONResponse({"job_id": job_id, "status": outcome})


# What the routes share.


async def _submit(request: Request, most: int) -> AcceptedJob:
    context, key = get_context(request), check_key(request.headers.get(HEADER))
    form = await uploads.receive(request, most)
    asked = (get_owner(request), form, request.url.path, key, origin_of(request))
    async with charged(request, context):
        return await context.run_heavy(uploads.submit_form, context, *asked)


def submitted(job: AcceptedJob) -> dict[str, Any]:
    """What a client hears of an accepted job."""
    return {"job_id": job.job_id, "status": AttemptStatus.QUEUED.value, "queue_position": job.position}


def accepted(body: dict[str, Any], location: str) -> Response:
    """202, and where to follow the job."""
    return JSONResponse(body, 202, headers={"Location": location})


async def waited(request: Request, job_id: str) -> Response | None:
    """The answer to `Prefer: wait`, or None when it was not asked for or the job did not end in time."""
    seconds = preferred_wait(request.headers)
    if seconds is None:
        return None
    ended = await wait_for_end(request, job_id, seconds)
    if ended is None:
        return None
    applied = {"Preference-Applied": f"wait={seconds}", "Content-Location": f"/api/v1/jobs/{job_id}"}
    if ended.status is AttemptStatus.COMPLETED:
        return JSONResponse(views.job_view(ended, 0, get_context(request).limits.retention_seconds), headers=applied)
    raise _failure_of(ended)


def _failure_of(job: Job) -> RestoreError:
    """The failure of a job that was waited for: the status of its first failed photo."""
    failed = next((a for a in job.attempts if a.status is AttemptStatus.FAILED), None)
    if failed is None:
        return Refusal("job_cancelled", "The job was cancelled before it ended.", job_id=job.id)
    rows = [views.error_view(a) for a in job.attempts if a.status is AttemptStatus.FAILED]
    code, message = failed.error_code or "internal_error", failed.error_message or "The restoration failed."
    retry = facts_of(code).retry_after_seconds
    return Refusal(code, message, retry_after_seconds=retry, job_id=job.id, errors=rows)


def _whole(context: AppContext, owner: str, job_id: str) -> dict[str, Any]:
    job, position = get_job_and_position(context, owner, job_id)
    return views.job_view(job, position, context.limits.retention_seconds, context.forecast.seconds_left(job))


def _page(context: AppContext, owner: str, limit: int, before: str | None) -> dict[str, Any]:
    """One job more than asked for is looked up, to know whether there is a next page."""
    if limit <= MOST_JOBS_WITH_ATTEMPTS:
        jobs: Sequence[Job | JobSummary] = context.store.jobs(owner, limit + 1, before)
    else:
        jobs = context.store.page(owner, limit + 1, before, MOST_ATTEMPTS_IN_A_LONG_LIST)
    rows = [_row(context, job) for job in jobs[:limit]]
    return {"jobs": rows, "next": jobs[limit - 1].id if len(jobs) > limit else None}


def _row(context: AppContext, job: Job | JobSummary) -> dict[str, Any]:
    retention = context.limits.retention_seconds
    if isinstance(job, Job):
        view = views.job_view(job, get_position(context, job), retention, context.forecast.seconds_left(job))
        return {**view, "photos": len(job.attempts)}
    position = context.store.queue_position(job.id) if AttemptStatus.QUEUED in job.counts else 0
    return {**views.summary_view(job, position, retention), "photos": job.photos}
