"""The routes of faces: what was found, small crops of before and after, and other strengths for a finished result.

They turn requests into strengths by index and answers into views; blending itself is the business of `reblending`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from app.api import file_responses, request_schemas, schemas, views
from app.api.dependencies import AppContext, get_context, get_job
from app.api.json_bodies import read_object
from app.api.routes.jobs import JobId
from app.errors import NotFound, Unprocessable
from app.jobs.reblending import require_layers
from app.store import Attempt, AttemptStatus, Job

router = APIRouter(tags=["faces"])

FACES = "/api/v1/jobs/{job_id}/faces"
CROP_SIDE_PIXELS = 256
_LONGEST_INDEX_CHARACTERS = 4
_PROBLEMS = schemas.problems(401, 404, 409, 429)
_STRENGTHS = {
    "type": "object",
    "patternProperties": {"^[0-9]{1,4}$": {"type": "number", "minimum": 0, "maximum": 1}},
    "additionalProperties": False,
    "minProperties": 1,
}


@router.get(FACES, summary="The faces of a job's photos", responses={200: {"model": schemas.FacesShape}, **_PROBLEMS})
async def show_faces(request: Request, job_id: JobId) -> Response:
    """The faces of every finished photo, from left to right; `reblendable` says whether their strength can change."""
    job, _ = await get_job(request, job_id)
    context = get_context(request)
    return JSONResponse(await context.run(_all_faces, context, job))


@router.post(
    FACES,
    summary="Blend the faces of a finished photo again",
    responses={200: {"model": schemas.AttemptFaces}, **_PROBLEMS, **schemas.problems(400, 422, 503)},
    openapi_extra=request_schemas.object_body(_STRENGTHS),
)
async def blend_faces(
    request: Request,
    job_id: JobId,
    attempt: Annotated[str | None, Query(description="which photo of a batch: the id of an attempt")] = None,
) -> Response:
    """Strengths by index, such as {"0": 0.5}; faces that are not named keep theirs.

    The result gets its next version, made from the first one without running a network. Its older addresses show it.
    """
    strengths = _strengths(await read_object(request))
    job, _ = await get_job(request, job_id)
    context = get_context(request)
    chosen = _choose(job, attempt)
    require_layers(chosen, await context.run(context.reblender.can_reblend, chosen))
    done = await asyncio.wrap_future(context.reblender.submit(job.owner, chosen.id, strengths))
    return JSONResponse(views.faces_view(done, reblendable=True))


@router.get(
    FACES + "/{attempt_id}/{index}/{side}",
    summary="One face, small",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **_PROBLEMS},
)
async def show_crop(
    request: Request, job_id: JobId, attempt_id: str, index: int, side: Literal["before", "after"]
) -> Response:
    """A JPEG of at most 256 x 256: the face as it was upscaled, or as it stands in the newest version of the result."""
    job, _ = await get_job(request, job_id)
    attempt = next((one for one in job.attempts if one.id == attempt_id), None)
    if attempt is None:
        raise NotFound("attempt_not_found", "This job has no such attempt.")
    context = get_context(request)
    make = functools.partial(context.run_heavy, _crop, context, attempt, index, side)
    crop = await context.previews.get((attempt.result_name, index, side), make)
    return file_responses.preview_response(crop)


def _all_faces(context: AppContext, job: Job) -> dict[str, Any]:
    done = [attempt for attempt in job.attempts if attempt.status is AttemptStatus.COMPLETED]
    rows = [views.faces_view(attempt, context.reblender.can_reblend(attempt)) for attempt in done]
    return {"job_id": job.id, "attempts": rows}


def _strengths(body: Mapping[str, Any]) -> dict[int, float]:
    """Raises `Unprocessable` `invalid_strength`, or `unknown_face` for a key that is no index."""
    if not body:
        raise _invalid("name at least one face")
    strengths: dict[int, float] = {}
    for key, value in body.items():
        if not (key.isascii() and key.isdecimal() and len(key) <= _LONGEST_INDEX_CHARACTERS):
            raise Unprocessable("unknown_face", "A face is named by its index, a whole number from 0 on.")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _invalid(f"that of face {key} is no number")
        if not 0 <= value <= 1:  # NaN is neither
            raise _invalid(f"that of face {key} is not between 0 and 1")
        strengths[int(key)] = float(value)
    return strengths


def _invalid(reason: str) -> Unprocessable:
    return Unprocessable("invalid_strength", f'Send strengths between 0 and 1 by index, as {{"0": 0.5}}: {reason}.')


def _choose(job: Job, attempt_id: str | None) -> Attempt:
    """The named attempt, or the only one that can be meant. Raises `attempt_not_found` or `attempt_needed`."""
    if attempt_id is not None:
        found = [attempt for attempt in job.attempts if attempt.id == attempt_id]
        if not found:
            raise NotFound("attempt_not_found", "This job has no such attempt.")
        return found[0]
    with_faces = [attempt for attempt in job.attempts if any(face["restored"] for face in attempt.faces)]
    active = [attempt for attempt in job.attempts if not attempt.status.ended]
    if len(with_faces) > 1:
        raise Unprocessable(
            "attempt_needed", "Several photos of this job have faces; add ?attempt= with the id of the one you mean."
        )
    return (with_faces or active or list(job.attempts))[0]


def _crop(context: AppContext, attempt: Attempt, index: int, side: str) -> bytes:
    """The crop as JPEG, from the one layer that it needs, made in a decoder's child: it reads the photo's profile."""
    require_layers(attempt, context.reblender.can_reblend(attempt))
    strength = 0.0
    if side == "after":
        strength = next((float(face["strength"]) for face in attempt.faces if face["index"] == index), 0.0)
    with context.reblender.crop_sources(attempt) as (layers, result):
        return context.inspectors.face_preview(layers, result, index, strength, CROP_SIDE_PIXELS)
