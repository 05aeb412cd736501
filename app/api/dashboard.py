"""The dashboard's port: the static pages, and beside them the same API, so that a browser needs one origin.

The pages carry nothing secret and need no key.
"""

from __future__ import annotations

from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems

# Scripts and styles only from files beside the page, pictures also from memory (thumbnails), and no way at all to turn
# a text into markup or code, wherever it comes from.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
# Of what a page loads: nothing of it is a document, and each of sixty answers without the long policy makes the first
# paint lighter. By the path, since a 304 has no type and its headers take the place of those that a browser kept.
FILE_POLICY = "default-src 'none'; frame-ancestors 'none'"
FILE_SUFFIXES = (".js", ".css", ".json", ".svg", ".jpg")
PERMISSIONS = "camera=(), microphone=(), geolocation=(), payment=(), usb=()"
SMALLEST_COMPRESSED_BYTES = 1000
# Long answers that hold nothing secret and nothing that somebody sent, so that compressing them gives nothing away.
_COMPRESSED_PATHS = frozenset(("/api/v1/config", "/api/v1/models"))
_API_PREFIXES = ("/api/", "/status/", "/processed/", "/health/")
_API_PATHS = frozenset(("/enhance", "/metrics", "/openapi.json"))


class Dashboard:
    """ASGI application of the dashboard's port. The API's own lifespan is run once, elsewhere.

    `result_origin` is the origin that results are redirected to, None where the API sends them itself.
    """

    def __init__(self, api: ASGIApp, static_folder: Path, result_origin: str | None = None) -> None:
        self._api = api
        self._compressed_api = GZipMiddleware(api, minimum_size=SMALLEST_COMPRESSED_BYTES)
        self._policy = page_policy(result_origin)
        # Nothing secret is in the pages, so compressing them gives nothing away.
        pages = StaticFiles(directory=static_folder, html=True, check_dir=False)
        self._pages = GZipMiddleware(pages, minimum_size=SMALLEST_COMPRESSED_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await _no_lifespan(receive, send)
        elif scope["type"] == "websocket" or _is_api(scope["path"]):
            compressed = scope["type"] == "http" and scope["path"] in _COMPRESSED_PATHS
            await (self._compressed_api if compressed else self._api)(scope, receive, send)
        else:
            await self._page(scope, receive, send)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_file = scope["path"].endswith(FILE_SUFFIXES)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = FILE_POLICY if is_file else self._policy
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Cross-Origin-Opener-Policy"] = "same-origin"
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
                if not is_file:
                    headers["Permissions-Policy"] = PERMISSIONS
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        whole = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"range"]}
        try:
            await self._pages(whole, receive, send_guarded)
        except HTTPException as error:
            code, detail = ("method_not_allowed", "Pages are only read.") if error.status_code == 405 else _NOT_FOUND
            await problems.problem(code, detail)(scope, receive, send_guarded)


def page_policy(result_origin: str | None) -> str:
    """The policy of the pages, which may show pictures of one more origin where results come from there."""
    return PAGE_POLICY if result_origin is None else PAGE_POLICY.replace("blob:", f"blob: {result_origin}", 1)


_NOT_FOUND = ("not_found", "There is no such page; the dashboard is at /.")


def _is_api(path: str) -> bool:
    return path in _API_PATHS or path.startswith(_API_PREFIXES)


async def _no_lifespan(receive: Receive, send: Send) -> None:
    """Answer the server's start and stop; there is nothing to do for them."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
