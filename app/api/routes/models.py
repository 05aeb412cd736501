"""The routes of models: what there is, and for an operator to install what is missing."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from app.api import schemas
from app.api.dependencies import AppContext, get_caller, get_context, require_admin
from app.api.json_bodies import read_object
from app.api.models_schemas import DownloadsShape, ModelsShape
from app.api.models_view import list_models, show_download, why_no_downloads
from app.api.request_schemas import object_body
from app.errors import Conflict, Forbidden, NotFound, Unprocessable
from app.model_downloads import Download, ModelDownloads, WeightFile

router = APIRouter(tags=["models"])

_ACCEPTANCE = {
    "type": "object",
    "properties": {
        "accept_licence": {
            "type": "boolean",
            "description": "true: the licences of these files, which restrict commercial use, are accepted",
        }
    },
    "additionalProperties": False,
}
_PROBLEMS = schemas.problems(400, 401, 403, 404, 409, 413, 422, 429, 503)


@router.get(
    "/api/v1/models",
    summary="Every model: what for, licence, installed, in use, on its way",
    responses={200: {"model": ModelsShape}, **schemas.problems(401, 429)},
)
async def models(request: Request) -> Response:
    """`downloads` says whether you may install what is missing, or why not; `used_for` names the qualities served."""
    context = get_context(request)
    return JSONResponse(await context.run_system(list_models, context, is_operator=get_caller(request).is_admin))


@router.post(
    "/api/v1/models/{name}/download",
    status_code=202,
    summary="Install a model",
    responses={202: {"model": DownloadsShape}, **_PROBLEMS},
    openapi_extra=object_body(_ACCEPTANCE),
)
async def download(request: Request, name: str) -> Response:
    """Begins to download a model, a file, or a set (`default`, `faces`, `all`), or joins the download that runs.

    `GET /api/v1/models` says how far it is. Needs the role admin, where there are roles. A model whose licence
    restricts commercial use needs `accept_licence`.
    """
    context, downloads = _operate(request)
    rows = _find(downloads, name)
    _check_licences(rows, await read_object(request))
    begun = await context.run_system(downloads.start, rows)
    return _answer(name, begun, 202)


@router.delete(
    "/api/v1/models/{name}/download",
    summary="Cancel the download of a model",
    responses={200: {"model": DownloadsShape}, **_PROBLEMS},
)
async def cancel(request: Request, name: str) -> Response:
    """What has arrived stays, so that the next download goes on there."""
    context, downloads = _operate(request)
    return _answer(name, await context.run_system(downloads.cancel, _find(downloads, name)), 200)


def _operate(request: Request) -> tuple[AppContext, ModelDownloads]:
    """The parts, for a caller who may install here. Raises `Forbidden` or `Conflict` `models_elsewhere`."""
    require_admin(request)
    context = get_context(request)
    refusal = why_no_downloads(context, is_operator=True)
    if context.model_downloads is None:
        raise Conflict("models_elsewhere", str(refusal))
    if refusal is not None:
        raise Forbidden("downloads_off", refusal)
    return context, context.model_downloads


def _find(downloads: ModelDownloads, name: str) -> list[WeightFile]:
    rows = downloads.find(name)
    if not rows:
        raise NotFound("model_not_found", "There is no such model to download; GET /api/v1/models names them.")
    return rows


def _check_licences(rows: list[WeightFile], body: dict[str, Any]) -> None:
    """Raises `Conflict` `licence_not_accepted` where a licence restricts commercial use and the body accepts none."""
    unknown = next((name for name in body if name != "accept_licence"), None)
    accepted = body.get("accept_licence", False)
    if unknown is not None or not isinstance(accepted, bool):
        raise Unprocessable("invalid_option", 'Send {"accept_licence": true}, or an empty body.')
    restricted = [row for row in rows if not row.commercial_use]
    if restricted and not accepted:
        named = "; ".join(f"{row.file}: {row.licence}" for row in restricted)
        raise Conflict(
            "licence_not_accepted",
            f'These licences restrict commercial use, so send {{"accept_licence": true}} if they suit you. {named}.',
        )


def _answer(name: str, downloads: list[Download], status: int) -> Response:
    shown = [show_download(one) for one in downloads]
    headers = {"Location": "/api/v1/models"} if status == 202 else {}
    return JSONResponse({"name": name, "downloads": shown}, status, headers)
