"""The page `/openapi.json`: what FastAPI reads from the routes, with what it cannot know of this service.

That is who may call, that every refusal is a problem, and which methods an address takes.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import compile_path

from app.api.auth.sessions import COOKIE_NAME
from app.api.schemas import PROBLEM

_SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-KEY"},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE_NAME},
}
_FRAMEWORK_SHAPES = ("HTTPValidationError", "ValidationError")


def install(app: FastAPI, open_paths: Collection[str]) -> None:
    """Let the application describe itself this way, once it is asked; `open_paths` are those that need no key."""
    app.openapi = functools.cache(functools.partial(_describe, app, open_paths))  # type: ignore[method-assign]


def methods_of(app: FastAPI, path: str) -> list[str]:
    """All methods that an address takes, sorted; the web framework names those of one route only."""
    described = app.openapi()["paths"]
    found = {method.upper() for known, calls in described.items() for method in calls if _is_at(known, path)}
    return sorted(found)


def _describe(app: FastAPI, open_paths: Collection[str]) -> dict[str, Any]:
    page = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    shapes = page.setdefault("components", {}).setdefault("schemas", {})
    for name in _FRAMEWORK_SHAPES:
        shapes.pop(name, None)
    page["components"]["securitySchemes"] = _SCHEMES
    page["security"] = [{name: []} for name in _SCHEMES]
    for path, calls in page["paths"].items():
        for call in calls.values():
            if "422" in call["responses"]:
                call["responses"]["422"] = PROBLEM  # in place of what the framework would say of its own checks
            if path in open_paths:
                call["security"] = []
    return page


@functools.cache
def _pattern(path: str) -> Any:
    return compile_path(path)[0]


def _is_at(known: str, path: str) -> bool:
    return _pattern(known).match(path) is not None
