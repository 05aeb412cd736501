"""Every error as `application/problem+json`: `type`, `title`, `status`, `detail`, `code` and `request_id`.

It turns the errors of `app.errors` (and those of the web framework) into answers, without traces, paths or versions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.api.openapi import methods_of
from app.error_codes import facts_of
from app.errors import RestoreError

MEDIA_TYPE = "application/problem+json"

_OF_TOKENS = frozenset(("wrong_token", "token_expired"))
# What the web framework refuses by itself, by our codes.
_FRAMEWORK_ERRORS = {
    "bad_request": "The request could not be read; check its form.",
    "not_found": "There is nothing at this address; the calls are listed in /openapi.json.",
    "method_not_allowed": "This address does not take that method; see the Allow header.",
    "range_not_satisfiable": "The asked range lies outside the file.",
}


class Refusal(RestoreError):
    """A refusal of no family, with further members for the answer."""

    def __init__(self, code: str, detail: str, *, retry_after_seconds: int | None = None, **members: Any) -> None:
        super().__init__(code, detail, retry_after_seconds=retry_after_seconds)
        self.members = members


def problem(
    code: str,
    detail: str,
    *,
    status: int | None = None,
    request_id: str | None = None,
    retry_after_seconds: int | None = None,
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """One problem as a response.

    Args:
        code: the stable code.
        detail: one plain sentence.
        status: the HTTP status; None takes that of the code from the table.
        request_id: the id of the request, None where it has none.
        retry_after_seconds: for the Retry-After header.
        members: further keys of the JSON object.
        headers: further headers of the answer.
    """
    status = facts_of(code).status if status is None else status
    body = _body(code, detail, status, request_id, members)
    sent = dict(headers or {})
    if retry_after_seconds is not None:
        sent["Retry-After"] = str(retry_after_seconds)
    if status == HTTPStatus.UNAUTHORIZED:
        sent["WWW-Authenticate"] = 'Bearer error="invalid_token"' if code in _OF_TOKENS else "ApiKey"
    return Response(json.dumps(body), status, headers=sent, media_type=MEDIA_TYPE)


def from_error(error: RestoreError, request_id: str | None) -> Response:
    """The answer for one of our errors."""
    return problem(
        error.code,
        error.detail,
        status=error.status,
        request_id=request_id,
        retry_after_seconds=error.retry_after_seconds,
        members=error.members,
    )


def problem_body(error: RestoreError, request_id: str | None) -> dict[str, Any]:
    """The same as an object, for an answer that has begun already."""
    return _body(error.code, error.detail, error.status, request_id, error.members)


def _body(
    code: str, detail: str, status: int, request_id: str | None, members: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        **(members or {}),
    }


def internal_error(request_id: str | None) -> Response:
    """The answer when something broke that nobody expected."""
    detail = "Something went wrong in the service; the operator finds the reason in the log under this request id."
    return problem("internal_error", detail, request_id=request_id)


def get_request_id(request: Request) -> str | None:
    """The id that `RequestContextMiddleware` gave this request."""
    found = request.scope.get("state", {}).get("request_id")
    return found if isinstance(found, str) else None


def install(app: FastAPI) -> None:
    """Answer every error that reaches the framework as a problem."""
    app.add_exception_handler(RestoreError, _on_restore_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)


async def _on_restore_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RestoreError)
    return from_error(error, get_request_id(request))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    fallback = f"http_{status}", f"{HTTPStatus(status).phrase}."
    known = (row for row in _FRAMEWORK_ERRORS.items() if facts_of(row[0]).status == status)
    code, detail = next(known, fallback)
    headers = dict(error.headers or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED and (methods := methods_of(request.app, request.url.path)):
        headers["Allow"] = ", ".join(methods)
    return problem(code, detail, status=status, request_id=get_request_id(request), headers=headers)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    """Only query parameters are checked by the framework; say which one and what was expected."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = re.sub(r"[^\w.-]", "", str(first["loc"][-1]))[:40]
    detail = f"Parameter '{name}' is not valid: {first['msg'].lower()}."
    return problem("invalid_parameter", detail, request_id=get_request_id(request))
