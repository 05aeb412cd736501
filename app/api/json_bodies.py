"""Small bodies that are no upload: a JSON object, or options as JSON or as a form.

The guard has counted their length already; here they are read, and refused when they are not what they claim.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from app.api.catalog import Catalog
from app.api.multipart_form import MAX_FIELDS, MultipartForm, UploadLimits, receive_form
from app.errors import BadRequest, RestoreError, Unprocessable, UnsupportedFormat
from app.options import FIELDS, RestoreOptions
from app.presets import find_preset
from app.storage import UploadWriter, clean_label

PRESET_FIELD = "preset"  # beside the options: fills in those that are not given
_FORM, _MULTIPART, _JSON = "application/x-www-form-urlencoded", "multipart/form-data", "application/json"


async def read_object(request: Request) -> dict[str, Any]:
    """The body as one JSON object; an empty body is an empty object. Raises `BadRequest` `bad_json`."""
    body = await request.body()
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise BadRequest("bad_json", "The body is not JSON; send one object, such as {}.") from None
    if not isinstance(found, dict):
        raise BadRequest("bad_json", "The body is JSON, but no object; send one object, such as {}.")
    return found


async def read_fields(request: Request) -> dict[str, object]:
    """Fields from a JSON object, a form, or nothing at all; see `options_of`.

    Raises `BadRequest` for a broken body, `UnsupportedFormat` for another type, `Unprocessable` for a repeated field.
    """
    kind = request.headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    if kind == _JSON:
        return await read_object(request)
    if kind == _FORM:
        return _pairs(await request.body())
    if kind == _MULTIPART:
        return dict(await _multipart_fields(request))
    raise UnsupportedFormat("unsupported_media_type", "Send the options as JSON or as a form.")


def options_of(fields: Mapping[str, object], catalog: Catalog) -> RestoreOptions:
    """Fields as options, those of a `preset` filled in with what is installed now; not in the loop, see `Catalog`.

    A name that only a path or a page could have made is not repeated in the answer.

    Raises:
        Unprocessable: as `RestoreOptions.from_fields`, and for a preset that there is not.
        Unavailable: `starting` or `backend_failed`, for a preset while nothing is known of what is installed.
    """
    given = {name: value for name, value in fields.items() if name != PRESET_FIELD}
    unknown = next((name for name in given if name not in FIELDS), None)
    if unknown is not None and not unknown.isidentifier():
        raise Unprocessable("unknown_option", f"There is no such option; known options are {', '.join(FIELDS)}.")
    preset = fields.get(PRESET_FIELD)
    if preset is None or preset == "":
        return RestoreOptions.from_fields(given)
    described = catalog.description()
    if not described:
        catalog.require_loaded()
    return RestoreOptions.from_fields(find_preset(preset, described).fields(given))


def _pairs(body: bytes) -> dict[str, object]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise BadRequest("bad_request", "The form could not be read; check its form.") from None
    fields: dict[str, object] = {}
    for name, value in pairs:
        if name in fields:
            raise Unprocessable("repeated_option", f"Option '{clean_label(name)[:40]}' is given twice; give it once.")
        fields[name] = value
    return fields


async def _multipart_fields(request: Request) -> Mapping[str, object]:
    form = MultipartForm(request.headers["content-type"], UploadLimits(0, 0), _no_upload)

    async def at_once(flush: Any) -> None:
        flush()

    try:
        await receive_form(form, request.stream(), at_once)
    except RestoreError as error:
        if error.code == "too_many_files":
            raise Unprocessable("unknown_option", "The photo is here already; send options only, no file.") from None
        raise
    return form.fields


def _no_upload() -> UploadWriter:
    raise AssertionError("a form without files opens no upload")
