"""The route that says what a restoration would take, without doing it: a dry run from sizes and options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import WithJsonSchema
from starlette.responses import JSONResponse, Response

from app.api import request_schemas, schemas
from app.api.dependencies import AppContext, get_context, get_owner
from app.api.forecast import Estimator
from app.api.json_bodies import PRESET_FIELD, options_of
from app.errors import Unprocessable
from app.options import FIELDS, BackendName, Quality, RestoreOptions, check_output, output_size
from app.time_estimate import Estimate

router = APIRouter()

MOST_SIZES = 50
_LONGEST_SIDE = 1 << 20
_SIZE_SCHEMA = {"type": "string", "pattern": "^[1-9][0-9]{0,5}x[1-9][0-9]{0,5}$"}
_Size = Annotated[str, WithJsonSchema(_SIZE_SCHEMA)]  # described only: `_size_of` judges, and says what is expected
_SIZE_HELP = "WIDTHxHEIGHT of a photo in pixels; may be repeated"


class EstimatedQuality(schemas.Shape):
    """What one quality would take; null while this machine has measured nothing."""

    quality: Literal["fast", "balanced", "best"]
    model: str | None
    seconds: float | None


class EstimatedResult(schemas.Shape):
    """The size of one result in pixels, and its format."""

    width: int
    height: int
    format: str


class EstimateShape(schemas.Shape):
    """A dry run. `seconds` is the work for all photos, `seconds_ahead` what the queue adds, both null while unknown.

    `measured`: the model that would run has run here before. `loading_seconds` is part of `seconds`.
    """

    seconds: float | None
    seconds_ahead: float | None
    loading_seconds: float | None
    measured: bool
    model: str | None
    qualities: list[EstimatedQuality]
    results: list[EstimatedResult]


@router.get(
    "/api/v1/estimate",
    tags=["system"],
    summary="What a restoration would take",
    responses={200: {"model": EstimateShape}, **schemas.problems(401, 413, 422, 429)},
    openapi_extra=request_schemas.option_parameters(),
)
async def estimate_job(
    request: Request, size: Annotated[list[_Size], Query(min_length=1, max_length=MOST_SIZES, description=_SIZE_HELP)]
) -> Response:
    """Seconds for photos of these sizes with these options, the queue ahead of them, and the size of each result."""
    context = get_context(request)
    sizes = [_size_of(text) for text in size]
    fields = {k: v for k, v in request.query_params.items() if k in FIELDS or k == PRESET_FIELD}
    return JSONResponse(await context.run(_estimated, context, get_owner(request), sizes, fields))


def _estimated(
    context: AppContext, owner: str, sizes: Sequence[tuple[int, int]], fields: dict[str, str]
) -> dict[str, Any]:
    options = options_of(fields, context.catalog)
    for width, height in sizes:
        check_output(width * height, options.scale, context.limits.max_output_megapixels)
    estimator, line = context.forecast.now()
    plans = _plans(estimator, sizes, options)
    seconds = None if plans is None else _total(plans)
    end = None if plans is None else line.end_of_new(options.backend, owner, plans)
    return {
        "seconds": seconds,
        "seconds_ahead": None if end is None or seconds is None else round(max(0.0, end - seconds), 1),
        "loading_seconds": None if plans is None else round(plans[0].loading, 1),
        "measured": plans is not None and all(plan.is_measured for plan in plans),
        "model": plans[0].model if plans else None,
        "qualities": _qualities(estimator, sizes, options),
        "results": [_result(size, options) for size in sizes],
    }


def _plans(estimator: Estimator, sizes: Sequence[tuple[int, int]], options: RestoreOptions) -> list[Estimate] | None:
    """One estimate a photo, None when one of them is not known."""
    found = [estimator.estimate(width, height, options) for width, height in sizes]
    plans = [plan for plan in found if plan is not None]
    return plans if plans and len(plans) == len(found) else None


def _total(plans: Sequence[Estimate]) -> float:
    """The network is loaded once, and a result is saved while the next photo is being restored."""
    restoring = sum(plan.restoring for plan in plans)
    return round(plans[0].loading + restoring + plans[-1].saving, 1)


def _qualities(estimator: Estimator, sizes: Sequence[tuple[int, int]], options: RestoreOptions) -> list[dict[str, Any]]:
    """The same with each quality, as a choice of one; an asked model counts for none of them."""
    if options.backend != BackendName.LOCAL:
        return []
    rows = []
    for quality in Quality:
        fields = {"model": None, "quality": quality.value}
        plans = _plans(estimator, sizes, RestoreOptions(**{**vars(options), **fields}))
        seconds = None if plans is None else _total(plans)
        rows.append({"quality": quality.value, "model": plans[0].model if plans else None, "seconds": seconds})
    return rows


def _result(size: tuple[int, int], options: RestoreOptions) -> dict[str, Any]:
    width, height = output_size(*size, options.scale, options.rotate)
    return {"width": width, "height": height, "format": options.output_format}


def _size_of(text: str) -> tuple[int, int]:
    """Raises `Unprocessable` `invalid_option` for what is no size."""
    width, separator, height = text.lower().partition("x")
    if separator and width.isascii() and width.isdecimal() and height.isascii() and height.isdecimal():
        sides = int(width[:8]), int(height[:8])
        if all(0 < side <= _LONGEST_SIDE for side in sides):
            return sides
    raise Unprocessable("invalid_option", "Option 'size' must be WIDTHxHEIGHT in pixels, such as 960x640.")
