"""The route of tiles: a result or an upload at its true pixels, piece by piece, for viewers that zoom.

Both are guarded as their previews are. A large result was cut up when it was restored here; any other picture is at the
first tile that somebody asks for.
"""

from __future__ import annotations

import asyncio
import enum
import functools
from collections.abc import Hashable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api import file_responses, schemas
from app.api.dependencies import AppContext, choose_attempt, get_context, get_finished_attempt, get_job
from app.api.hang_ups import while_connected
from app.api.routes.downloads import AttemptChoice, rotation_of
from app.api.routes.jobs import JobId
from app.errors import NotFound, Unavailable
from app.images import Pyramid
from app.jobs.memory_need import cutting_bytes
from app.memory_limit import available_bytes
from app.store import Attempt

router = APIRouter()

_MOST_TILES_A_SIDE = 1 << 10
_READ_IN_BANDS = frozenset(("image/jpeg", "image/png", "image/tiff"))
_MEMORY_RETRY_SECONDS = 5


class TileSource(enum.StrEnum):
    """Which of the two pictures of an attempt is cut up."""

    RESULT = "result"
    ORIGINAL = "original"


TilePlace = Annotated[int, Query(ge=0, le=_MOST_TILES_A_SIDE)]


@router.get(
    "/api/v1/jobs/{job_id}/tile",
    tags=["files"],
    summary="A piece of a picture at its true pixels",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **schemas.problems(401, 404, 409, 422, 429, 503)},
)
async def tile(
    request: Request,
    job_id: JobId,
    attempt: AttemptChoice = None,
    of: Annotated[TileSource, Query(description="the finished image, or the upload, upright and turned like it")] = (
        TileSource.RESULT
    ),
    level: Annotated[int, Query(ge=0, le=20, description="0: full size, 1: half, 2: a quarter ...")] = 0,
    x: TilePlace = 0,
    y: TilePlace = 0,
) -> Response:
    """The JPEG in column `x` and row `y` of a level: 1024 x 1024 pixels, or what is left at the right and the bottom.

    A level is half as large as the one before it, rounded up; the last one is a single tile. A result over 32
    megapixels is cut up while it is saved; the first tile of any other picture waits until all of it has been cut up.
    """
    context = get_context(request)
    if of is TileSource.RESULT:
        chosen = await get_finished_attempt(request, job_id, attempt)
        key: Hashable = chosen.result_name
    else:
        chosen = choose_attempt((await get_job(request, job_id))[0], attempt)
        key = (chosen.photo_id, rotation_of(chosen))
    # In no pool: in its share the owner's other work may be ahead, and all other owners' pictures would wait for that.
    make = functools.partial(asyncio.to_thread, _pyramid, context, chosen, of)
    pyramid = context.pyramids.kept(key)
    if pyramid is None:
        pyramid = await while_connected(request, context.pyramids.get(context.owner, key, make))
    return file_responses.preview_response(await context.run(pyramid.tile, level, x, y))


def _pyramid(context: AppContext, attempt: Attempt, of: TileSource) -> Pyramid:
    _require_memory(attempt, of)
    with _lent(context, attempt, of) as path:
        if of is TileSource.RESULT:
            return context.pyramids.decoder.pyramid(path, of_result=True)
        return context.pyramids.decoder.pyramid(path, of_result=False, rotate=rotation_of(attempt))


def _require_memory(attempt: Attempt, of: TileSource) -> None:
    """Leave their memory to the photos in work: whoever looks at a large picture can wait, and they cannot."""
    if of is TileSource.RESULT:
        size, in_bands = (attempt.result_width or 0, attempt.result_height or 0), attempt.result_mime in _READ_IN_BANDS
    else:
        size, in_bands = (attempt.photo_width, attempt.photo_height), False
    if available_bytes() < cutting_bytes(*size, in_bands=in_bands):
        raise Unavailable(
            "out_of_memory",
            "There is too little memory to cut this picture into tiles just now; ask again when less is in work.",
            retry_after_seconds=_MEMORY_RETRY_SECONDS,
        )


def _lent(context: AppContext, attempt: Attempt, of: TileSource) -> AbstractContextManager[Path]:
    storage = context.storage
    if of is TileSource.ORIGINAL:
        if not storage.has_upload(attempt.photo_id):
            raise NotFound("photo_not_found", "The upload is not there any more; it has expired.")
        return storage.upload(attempt.photo_id)
    assert attempt.result_name is not None
    if not storage.has_result(attempt.result_name):
        raise NotFound("result_not_found", "The file is not there any more; it has expired.")
    return storage.result(attempt.result_name)
