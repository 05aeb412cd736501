"""The routes that change a job that is there: cancel or remove one of its photos, keep it past its time, let it go."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import JSONResponse, Response

from app.api import schemas, views
from app.api.dependencies import AppContext, check_id, get_context, get_owner, get_position
from app.api.routes.jobs import JobId
from app.store import Job

router = APIRouter(tags=["jobs"])

KEEP = "/api/v1/jobs/{job_id}/keep"
AttemptId = Annotated[str, Path(description="32 hex characters, of an attempt of the job")]


@router.delete(
    "/api/v1/jobs/{job_id}/attempts/{attempt_id}",
    summary="Cancel or remove one photo of a job",
    responses={200: {"model": schemas.AttemptRemoved}, **schemas.problems(401, 404, 429)},
)
async def remove_attempt(request: Request, job_id: JobId, attempt_id: AttemptId) -> Response:
    """Cancel the attempt if it is active (its row stays), else remove it with its files, the last one with its job."""
    context = get_context(request)
    asked = (get_owner(request), check_id(job_id), context.wall(), attempt_id)
    outcome = await context.run(context.deletion.cancel_or_remove, *asked)
    return JSONResponse({"job_id": job_id, "attempt_id": attempt_id, "status": outcome})


@router.post(
    KEEP,
    summary="Keep a job",
    responses={200: {"model": schemas.JobShape}, **schemas.problems(401, 404, 409, 429, 507)},
)
async def keep_job(request: Request, job_id: JobId) -> Response:
    """Keep an ended job past its retention; 507 `keep_limit_reached` when it would be more than an owner may keep."""
    context = get_context(request)
    limit = context.limits.keep_limit_bytes
    asked = (get_owner(request), check_id(job_id), limit, context.wall())
    job = await context.run(context.store.keeping.keep, *asked)
    return JSONResponse(await context.run(_view, context, job))


@router.delete(
    KEEP,
    summary="Keep a job no longer",
    responses={200: {"model": schemas.JobShape}, **schemas.problems(401, 404, 429)},
)
async def let_job_go(request: Request, job_id: JobId) -> Response:
    """The undo: the job expires once its retention has passed from now. Harmless for one that is not kept."""
    context = get_context(request)
    asked = (get_owner(request), check_id(job_id), context.wall())
    job = await context.run(context.store.keeping.let_go, *asked)
    return JSONResponse(await context.run(_view, context, job))


def _view(context: AppContext, job: Job) -> dict[str, Any]:
    return views.job_view(job, get_position(context, job), context.limits.retention_seconds)
