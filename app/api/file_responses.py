"""Files on their way out: results, previews, originals and ZIP archives, always streamed and never as a page.

It knows rows and storage; a file is opened before the answer begins, so that a removal meanwhile does no harm.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from zipstream import ZipStream  # type: ignore[import-untyped]

from app.api.middleware.request_context import API_POLICY
from app.api.problems import Refusal
from app.api.views import download_name
from app.errors import NotFound
from app.storage import Storage
from app.store import Attempt, AttemptStatus, Job

SANDBOX = f"{API_POLICY}; sandbox"
ERRORS_NAME = "errors.txt"
_CHUNK_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=(?:(\d{1,15})-(\d{0,15})|-(\d{1,15}))")


def result_response(storage: Storage, attempt: Attempt, headers: Headers) -> Response:
    """A result in its newest version, as an image of fixed type, shown in place or saved under the original's name."""
    assert attempt.result_name is not None
    path = storage.result_path(attempt.result_name)
    media_type = attempt.result_mime or "application/octet-stream"
    tag = attempt.id if attempt.version == 1 else f"{attempt.id}-v{attempt.version}"
    return _file(path, media_type, disposition("inline", download_name(attempt)), tag, headers)


def original_response(storage: Storage, attempt: Attempt, headers: Headers) -> Response:
    """The upload exactly as it was sent, and so without a type: a browser only ever saves it."""
    path, shown_as = storage.upload_path(attempt.photo_id), disposition("attachment", attempt.original_filename)
    return _file(path, "application/octet-stream", shown_as, attempt.photo_id, headers)


def preview_response(jpeg: bytes) -> Response:
    """A small JPEG of our own making."""
    return Response(jpeg, media_type="image/jpeg", headers={"Content-Security-Policy": SANDBOX})


def archive_response(storage: Storage, job: Job) -> Response:
    """All completed results as a ZIP that is stored, not deflated: images do not get smaller, and its length is known.

    Photos that failed are named in `errors.txt`, so that a short archive explains itself.
    """
    archive = ZipStream(sized=True)
    opened: list[BinaryIO] = []
    try:
        for number, attempt in enumerate(job.attempts, start=1):
            if attempt.status is AttemptStatus.COMPLETED and attempt.result_name is not None:
                file = _open(storage.result_path(attempt.result_name))
                opened.append(file)
                name = f"{number:02d}_{download_name(attempt)}"
                archive.add(_chunks(file), name, size=os.fstat(file.fileno()).st_size)
    except BaseException:
        _close(opened)
        raise
    failures = _failures(job)
    if failures:
        archive.add(failures, ERRORS_NAME)
    headers = {
        "Content-Length": str(len(archive)),
        "Content-Disposition": disposition("attachment", f"restored_{job.id[:8]}.zip"),
        "Content-Security-Policy": SANDBOX,
    }
    return StreamingResponse(_closing(archive, opened), media_type="application/zip", headers=headers)


def disposition(kind: str, name: str) -> str:
    """`Content-Disposition` by RFC 6266: a plain fallback and the full name in UTF-8 (RFC 5987)."""
    plain = re.sub(r"[^A-Za-z0-9 ._()-]", "_", name)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _file(path: Path, media_type: str, shown_as: str, tag: str, headers: Headers) -> Response:
    """The file with validators: content behind a tag never changes, so it is the ETag."""
    etag = f'"{tag}"'
    sent = {"ETag": etag, "Content-Disposition": shown_as, "Content-Security-Policy": SANDBOX}
    if etag in headers.get("if-none-match", ""):
        return Response(status_code=304, headers=sent)
    try:
        facts = path.stat()
    except FileNotFoundError:
        raise NotFound("result_not_found", "The file is not there any more; it has expired.") from None
    response = _RangedFile(path, media_type=media_type, headers=sent, stat_result=facts)
    response.wanted = _wanted_range(headers, etag, facts.st_size)
    return response


class _RangedFile(FileResponse):
    """A `FileResponse` whose `Range` was judged by us, so that odd ones are ignored and errors stay problems."""

    wanted: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, or the one range that was asked for."""
        kept = [(name, value) for name, value in scope["headers"] if name not in (b"range", b"if-range")]
        if self.wanted is not None:
            kept.append((b"range", self.wanted.encode()))
        await super().__call__({**scope, "headers": kept}, receive, send)


def _wanted_range(headers: Headers, etag: str, size: int) -> str | None:
    """The single byte range to send, or None for the whole file (RFC 9110 lets a server ignore any other form)."""
    found = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if found is None or headers.get("if-range", etag) != etag:
        return None
    first, last, suffix = found.groups()
    start = int(first) if first is not None else max(0, size - int(suffix))
    if start >= size or (suffix is not None and int(suffix) == 0):
        raise Refusal(416, "range_not_satisfiable", f"The file has only {size} bytes; ask for a range inside it.")
    if last and int(last) < start:
        return None
    return f"bytes={start}-{last or ''}"


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise NotFound("result_not_found", "The results are not there any more; they have expired.") from None


def _failures(job: Job) -> str:
    rows = [a for a in job.attempts if a.status is not AttemptStatus.COMPLETED]
    return "".join(f"{a.original_filename}: {a.error_message or 'cancelled'}\n" for a in rows)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _closing(archive: ZipStream, opened: list[BinaryIO]) -> Iterator[bytes]:
    """The archive in larger pieces; the files are closed at the end, or when the client is gone."""
    try:
        yield from archive
    finally:
        _close(opened)


def _close(files: list[BinaryIO]) -> None:
    for file in files:
        file.close()
