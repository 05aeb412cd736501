"""Access control: host, origin, key, rate and length are checked here, before one byte of a body is read.

It is a pure ASGI layer around the whole API. It knows routes only as a short table of who may come and how much they
may send; what a body means is for others.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logs
from app.api import problems
from app.api.admission import Admission
from app.api.auth.authentication import Authentication
from app.api.auth.origins import SAFE_METHODS, Origins
from app.api.auth.rate_limits import RateLimits, network_of
from app.api.middleware.request_body import DEFAULT_PACE, MeteredBody, Pace, too_large
from app.api.middleware.request_context import close_after_answer, show_limit
from app.errors import BadRequest, RestoreError, Unauthorized, UnsupportedFormat

OPEN_PATHS = frozenset(("/health/live",))
SESSION_PATH = "/api/v1/session"
SMALL_BODY_BYTES = 64 * 1024
FORM_OVERHEAD_BYTES = 2 * 1024 * 1024
UNAUTHORIZED_CLOSE = 4401
REFUSED_CLOSE = 4403
RATE_CLOSE = 4429
_TILE_PATH = re.compile(r"/api/v1/jobs/[0-9a-f]{32}/tile")
_LENGTH = re.compile(r"[0-9]{1,18}")
_JOB_IN_PATH = re.compile(r"/jobs/[0-9a-f]{32}/")


@dataclasses.dataclass(frozen=True)
class AccessRules:
    """What access is decided by.

    `submit_limits` maps the path of each upload call, with `{job_id}` where an id stands, to its largest body in bytes.
    """

    authentication: Authentication
    origins: Origins
    rate_limits: RateLimits
    submit_limits: Mapping[str, int]
    pace: Pace = DEFAULT_PACE

    def submit_limit(self, path: str) -> int | None:
        """The largest body of an upload call; None for a path that is none."""
        return self.submit_limits.get(_JOB_IN_PATH.sub("/jobs/{job_id}/", path, count=1))


class AccessControlMiddleware:
    """The ASGI layer. In `scope["state"]` it leaves the `caller`, the `owner`, and where the rate stands."""

    def __init__(self, app: ASGIApp, rules: AccessRules, admission: Admission) -> None:
        self._app, self._rules, self._admission = app, rules, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Judge one connection and pass it on."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            await self._admit(scope, headers)
            limit = await self._judge_body(scope, headers)
        except RestoreError as error:
            if _has_body(headers):
                close_after_answer(scope)
            await problems.from_error(error, scope["state"].get("request_id"))(scope, receive, send)
            return
        body = MeteredBody(receive, scope, limit, self._rules.pace)

        async def send_watched(message: Message) -> None:
            # An answer before the end of a body of unknown length: the rest is not worth reading. A known rest (within
            # the limit) is let in and dropped by the server, so that ordinary clients get to read the answer.
            if message["type"] == "http.response.start" and not body.complete and "transfer-encoding" in headers:
                close_after_answer(scope)
            await send(message)

        await self._app(scope, body, send_watched)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A browser sees the reason of a close only after an accept."""
        headers = Headers(scope=scope)
        try:
            await self._admit(scope, headers)
        except RestoreError as error:
            await receive()
            await send({"type": "websocket.accept"})
            code = {401: UNAUTHORIZED_CLOSE, 429: RATE_CLOSE}.get(error.status, REFUSED_CLOSE)
            await send({"type": "websocket.close", "code": code, "reason": error.code})
            return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, headers: Headers) -> None:
        """Host, key or token, origin and rate, in this order; probes name a machine by its address and pass."""
        if scope["path"] in OPEN_PATHS:
            return
        rules = self._rules
        rules.origins.check_host(headers)
        address = client_address(scope)
        caller, session_id, by_header = await rules.authentication.identify(headers, address)
        # A page of another origin cannot set our header, but its requests do carry cookies and reach loopback.
        if not by_header and (scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS):
            rules.origins.check_page(headers)
        client = f"key {caller.owner}" if caller and rules.authentication.required else f"address {address}"
        if not by_header and rules.origins.is_foreign(headers):  # what other pages ask for is not the user's doing
            client = f"foreign {client}"
        is_tile = scope["type"] == "http" and _TILE_PATH.fullmatch(scope["path"])
        window = await (rules.rate_limits.hit_tile(client) if is_tile else rules.rate_limits.hit(client))
        if window is not None:
            scope["state"]["rate_window"] = window
            show_limit(scope, window.limit, window.left, window.resets_in_seconds)
            window.check()
        if caller is None and scope["path"] != SESSION_PATH:
            raise Unauthorized(
                "key_required", "A valid key is needed; send it in the X-API-KEY header or sign in on the dashboard."
            )
        scope["state"]["caller"] = caller
        scope["state"]["owner"] = caller.owner if caller else None
        scope["state"]["session_id"] = session_id
        if caller is not None:
            logs.add(owner=caller.owner, caller=caller.name)

    async def _judge_body(self, scope: Scope, headers: Headers) -> int:
        """The body's limit in bytes, once its announced length and the state of the service allow it."""
        limit = SMALL_BODY_BYTES
        upload_limit = self._rules.submit_limit(scope["path"]) if scope["method"] == "POST" else None
        if upload_limit is not None:
            limit = upload_limit
            if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
                raise UnsupportedFormat(
                    "unsupported_media_type", "Send the photo as multipart/form-data, as HTML forms and curl -F do."
                )
            await self._admission.check()
        announced = headers.get("content-length", "0")
        if not _LENGTH.fullmatch(announced):
            raise BadRequest("bad_request", "Content-Length is not a number of bytes.")
        if int(announced) > limit:
            raise too_large(limit)
        return limit


def client_address(scope: Scope) -> str:
    """The client's address as one word."""
    client = scope.get("client")
    return network_of(client[0]) if client else "unknown"


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
