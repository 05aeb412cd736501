"""Files on their way out: results, previews and originals, always streamed and never as a page.

A file is opened before the answer begins, so that a removal meanwhile does no harm. A bucket gives no such promise:
there the janitor leaves files to their readers for a while (`Storage.grace_seconds`), but what a user deletes goes at
once, and a download of it that is not over breaks off, with fewer bytes than its length says.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import BinaryIO
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.api.download_names import download_name
from app.api.middleware.request_context import API_POLICY
from app.api.problems import Refusal
from app.errors import NotFound
from app.storage import OpenedFile, Storage
from app.store import Attempt

SANDBOX = f"{API_POLICY}; sandbox"
_CHUNK_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=(?:(\d{1,15})-(\d{0,15})|-(\d{1,15}))")


def result_response(storage: Storage, attempt: Attempt, request: Request) -> Response:
    """A result in its newest version, as an image of fixed type, shown in place or saved under the original's name.

    Where the storage has addresses of its own a GET is sent there; the answer to HEAD always comes from here, since
    such an address is signed for GET alone.
    """
    assert attempt.result_name is not None
    media_type = attempt.result_mime or "application/octet-stream"
    shown_as = disposition("inline", download_name(attempt))
    tag = attempt.id if attempt.version == 1 else f"{attempt.id}-v{attempt.version}"
    if request.method == "GET" and not _is_known(tag, request.headers):
        address = storage.address(attempt.result_name, media_type, shown_as)
        if address is not None:
            return RedirectResponse(address, 302, {"Cache-Control": "no-store"})
    open_file = functools.partial(storage.open_result, attempt.result_name)
    return _file(open_file, media_type, shown_as, tag, request.headers)


def original_response(storage: Storage, attempt: Attempt, headers: Headers) -> Response:
    """The upload exactly as it was sent, and so without a type: a browser only ever saves it."""
    shown_as = disposition("attachment", attempt.original_filename)
    open_file = functools.partial(storage.open_original, attempt.photo_id)
    return _file(open_file, "application/octet-stream", shown_as, attempt.photo_id, headers)


def preview_response(jpeg: bytes) -> Response:
    """A small JPEG of our own making."""
    return Response(jpeg, media_type="image/jpeg", headers={"Content-Security-Policy": SANDBOX})


def disposition(kind: str, name: str) -> str:
    """`Content-Disposition` by RFC 6266: a plain fallback and the full name in UTF-8 (RFC 5987)."""
    plain = re.sub(r"[^A-Za-z0-9 ._()-]", "_", name)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _is_known(tag: str, headers: Headers) -> bool:
    """Whether the client has what stands behind this tag."""
    return f'"{tag}"' in headers.get("if-none-match", "")


def _file(open_file: Callable[[], OpenedFile], media_type: str, shown_as: str, tag: str, headers: Headers) -> Response:
    """The file with validators: content behind a tag never changes, so it is the ETag."""
    etag = f'"{tag}"'
    sent = {"ETag": etag, "Content-Disposition": shown_as, "Content-Security-Policy": SANDBOX}
    if _is_known(tag, headers):
        return Response(status_code=304, headers=sent)
    try:
        opened = open_file()
    except NotFound:
        raise NotFound("result_not_found", "The file is not there any more; it has expired.") from None
    try:
        span = _wanted_range(headers, etag, opened.size)
    except BaseException:
        opened.file.close()
        raise
    return _OpenedFileResponse(opened, span, media_type, sent)


class _OpenedFileResponse(StreamingResponse):
    """A file that is open already: the whole, or one range of it."""

    def __init__(self, opened: OpenedFile, span: range | None, media_type: str, headers: dict[str, str]) -> None:
        part = range(opened.size) if span is None else span
        sent = {
            **headers,
            "Accept-Ranges": "bytes",
            "Content-Length": str(len(part)),
            "Last-Modified": formatdate(opened.modified_at, usegmt=True),
        }
        if span is not None:
            sent["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{opened.size}"
        self._file = opened.file
        self._file.seek(part.start)
        content = read_chunks(opened.file, len(part))
        super().__init__(content, 200 if span is None else 206, sent, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; the answer to HEAD has no body. The file is closed in any case."""
        try:
            if scope["method"] == "HEAD":
                await Response(status_code=self.status_code, headers=dict(self.headers))(scope, receive, send)
            else:
                await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def _wanted_range(headers: Headers, etag: str, size: int) -> range | None:
    """The single byte range to send, or None for the whole file (RFC 9110 lets a server ignore any other form)."""
    found = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if found is None or headers.get("if-range", etag) != etag:
        return None
    first, last, suffix = found.groups()
    start = int(first) if first is not None else max(0, size - int(suffix))
    if start >= size or (suffix is not None and int(suffix) == 0):
        raise Refusal("range_not_satisfiable", f"The file has only {size} bytes; ask for a range inside it.")
    if last and int(last) < start:
        return None
    return range(start, min(size, int(last) + 1) if last else size)


def read_chunks(file: BinaryIO, length: int) -> Iterator[bytes]:
    """So many bytes from where the file stands."""
    while length > 0 and (chunk := file.read(min(length, _CHUNK_BYTES))):
        length -= len(chunk)
        yield chunk
