"""The outermost layer: gives each request its id, each answer its headers, and each surprise a plain 500.

It also counts requests by route template.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logs
from app.api import problems
from app.api.auth.caller import OPEN_CALLER
from app.errors import RestoreError, Unavailable, is_exhaustion
from app.logs import Sparing
from app.metrics import Metrics
from app.tracing import NO_TRACER, Tracer, trace_id_of

log = logging.getLogger(__name__)

API_POLICY = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))
_EXHAUSTED_RETRY_SECONDS = 5
CLIENT_GONE_STATUS = 499  # for the counters only: nobody is there to read an answer


class RequestContextMiddleware:
    """ASGI layer around everything. `clock` is monotonic seconds."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, tracer: Tracer = NO_TRACER, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app, self._metrics, self._tracer, self._clock = app, metrics, tracer, clock
        self._sparing = Sparing(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = _name_request(scope)
        with logs.bind(request_id=request_id, trace_id=trace_id_of(self._tracer.traceparent())):
            if scope["type"] == "http":
                await self._http(request_id, scope, receive, send)
            else:
                await self._websocket(request_id, scope, receive, send)

    async def _http(self, request_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer(send, request_id, scope)
        started = self._clock()
        try:
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            answer.status = CLIENT_GONE_STATUS
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a plain problem
            await self._handle_unexpected(error, answer, scope, receive)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            self._metrics.observe_request(method, _template(scope), answer.status, self._clock() - started)
            caller = scope["state"].get("caller")
            if caller is not None and caller is not OPEN_CALLER:
                self._metrics.count_caller_request(caller.label, answer.status)

    async def _handle_unexpected(self, error: Exception, answer: _Answer, scope: Scope, receive: Receive) -> None:
        """Answer an error of a layer below; once an answer has begun the connection can only be cut."""
        if isinstance(error, RestoreError):
            response = problems.from_error(error, answer.request_id)
        elif is_exhaustion(error):
            self._sparing.error(log, "a request could not be served: %s", error)
            response = problems.from_error(_exhausted(), answer.request_id)
        else:
            caller = scope["state"].get("caller")
            log.error("request %s of %s failed", answer.request_id, caller.name if caller else "?", exc_info=error)
            response = problems.internal_error(answer.request_id)
        if answer.status:
            raise error
        await response(scope, receive, answer.send)

    async def _websocket(self, request_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            log.debug("connection %s was closed by the client", request_id)
        except Exception:
            log.exception("connection %s failed", request_id)
            raise


class _Answer:
    """Watches an answer go out and completes its headers."""

    def __init__(self, send: Send, request_id: str, scope: Scope) -> None:
        self._send, self._scope = send, scope
        self.request_id = request_id
        self.status = 0

    async def send(self, message: Message) -> None:
        """Pass one message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message.setdefault("headers", [])
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            headers.setdefault("Content-Security-Policy", API_POLICY)
            headers.setdefault("Cache-Control", "private, no-store")
            for name, value in self._scope["state"].get("limit_headers", {}).items():
                headers[name] = value
            if self._scope["state"].get("close_after_answer"):
                headers["Connection"] = "close"
        await self._send(message)


def _exhausted() -> Unavailable:
    return Unavailable(
        "out_of_resources",
        "The service has no room for this request just now; send it again in a few seconds.",
        retry_after_seconds=_EXHAUSTED_RETRY_SECONDS,
    )


def close_after_answer(scope: Scope) -> None:
    """Ask for the connection to end with this answer, because the rest of the body will not be read."""
    scope.setdefault("state", {})["close_after_answer"] = True


def show_limit(scope: Scope, limit: int, left: int, resets_in_seconds: int) -> None:
    """Have the answer tell what may be asked for in a window, what is left, and when it ends; the last word counts."""
    scope.setdefault("state", {})["limit_headers"] = {
        "RateLimit-Limit": str(limit),
        "RateLimit-Remaining": str(left),
        "RateLimit-Reset": str(resets_in_seconds),
    }


def _name_request(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    scope.setdefault("state", {})["request_id"] = request_id
    return request_id


def _template(scope: Scope) -> str:
    """The matched route's template, so that ids never become labels."""
    return str(getattr(scope.get("route"), "path", "none"))
