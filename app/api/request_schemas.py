"""The OpenAPI text of what requests carry: upload forms and options, as `app.options` has them."""

from __future__ import annotations

from typing import Any

from app.options import BOOLEAN_WORDS, FIELDS, NUMBER_PATTERN, Field
from app.presets import PresetName


def upload_form(
    field: str,
    most: int,
    *,
    options: bool = True,
    more: dict[str, Any] | None = None,
    bare: dict[str, Any] | None = None,
    required: bool = True,
) -> dict[str, Any]:
    """OpenAPI text of an upload form: the file field and, where they belong, every option with its bounds.

    `more`: fields that stand in the place of what a job has beside its options. `bare`: the only ones beside the file.
    `required`: whether there has to be a file.
    """
    binary = {"type": "string", "format": "binary", "minLength": 1}
    files = binary if most == 1 else {"type": "array", "items": binary, "minItems": 1, "maxItems": most}
    beside = _BESIDE if more is None else {name: {"anyOf": [row, _EMPTY]} for name, row in more.items()}
    properties: dict[str, Any] = {field: files, **({**_written_options(), **beside} if options else {})}
    if bare is not None:
        properties = {field: files, **bare}
    return _body({"multipart/form-data": _closed(properties, **({"required": [field]} if required else {}))})


def option_parameters() -> dict[str, Any]:
    """OpenAPI text of every option as a parameter in the address."""
    rows = [{"name": name, "in": "query", "schema": schema} for name, schema in _written_options().items()]
    return {"parameters": rows}


def options_body() -> dict[str, Any]:
    """OpenAPI text of a body that holds options only, as JSON or as a form."""
    kinds = {
        "application/json": _json_options(),
        "application/x-www-form-urlencoded": {**_written_options(), **_WEBHOOK},
    }
    return _body({kind: _closed(properties) for kind, properties in kinds.items()}, required=False)


def object_body(schema: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI text of a JSON body."""
    return _body({"application/json": schema})


def _body(schemas: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    content = {kind: {"schema": schema} for kind, schema in schemas.items()}
    return {"requestBody": {"required": required, "content": content}}


def _closed(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


_EMPTY = {"type": "string", "enum": [""]}
_PRESET_HELP = "a kind of photo, which fills in options that are not given, as /api/v1/config tells"
_PRESET: dict[str, Any] = {"preset": {"description": _PRESET_HELP, "type": "string", "enum": [*PresetName, ""]}}
_WEBHOOK = {"webhook_url": {"type": "string", "description": "https address to tell when the job ends"}}
_PHOTO_OPTIONS_HELP = 'options of single photos: a JSON list with one object a photo, such as [{"rotate": 90}, {}]'
_BESIDE = {**_WEBHOOK, "photo_options": {"type": "string", "description": _PHOTO_OPTIONS_HELP}}


def _json_options() -> dict[str, Any]:
    """Every option as a JSON value: its own type, the same as text, or null for the default; and whom to tell."""
    values = {}
    for name, option in FIELDS.items():
        kinds = [_typed(option), *_as_text(option), *_number_as_text(option), {"type": "null"}]
        values[name] = {"description": option.help, "anyOf": kinds}
    written = _PRESET["preset"]
    return {**values, "preset": {**written, "type": ["string", "null"], "enum": [*written["enum"], None]}, **_WEBHOOK}


def _written_options() -> dict[str, Any]:
    """Every option as it is written in a form or an address, where all is text; an empty one means the default."""
    values = {
        name: {"description": option.help, "anyOf": [_typed(option), *_as_text(option)]}
        for name, option in FIELDS.items()
    }
    return {**values, **_PRESET}


def _typed(option: Field) -> dict[str, Any]:
    kind = {str: "string", int: "integer", float: "number", bool: "boolean"}[option.kind]
    facts = {
        "minimum": option.low,
        "maximum": option.high,
        "multipleOf": option.step,
        "enum": option.choices and list(option.choices),
    }
    return {"type": kind, **{key: value for key, value in facts.items() if value is not None}}


def _number_as_text(option: Field) -> list[dict[str, Any]]:
    """In JSON a number may be a text too, whose bounds no schema can say."""
    return [{"type": "string", "pattern": f"^{NUMBER_PATTERN}$"}] if option.kind in (int, float) else []


def _as_text(option: Field) -> list[dict[str, Any]]:
    """The texts that are taken beside the option's own type."""
    if option.kind is str:
        return [{"type": "string", "enum": [""]}]
    words = list(BOOLEAN_WORDS) if option.kind is bool else []
    return [{"type": "string", "enum": [*words, ""]}]
