"""ZIP archives of results: stored, not deflated, since images do not get smaller, and so of known length.

Each file is opened when its turn comes, so that an archive of any number of results holds one descriptor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from starlette.responses import StreamingResponse
from zipstream import ZipStream  # type: ignore[import-untyped]

from app.api.download_names import ArchiveNames
from app.api.file_responses import SANDBOX, disposition, read_chunks
from app.errors import NotFound
from app.storage import Storage
from app.store import Attempt, AttemptStatus, Job

ERRORS_NAME = "errors.txt"


def archive_response(storage: Storage, jobs: Iterable[Job], name: str) -> StreamingResponse:
    """All completed results of these jobs as a ZIP under this name, with the originals' names.

    Photos that failed or were cancelled are named in `errors.txt`, so that a short archive explains itself. Raises
    `NotFound` `result_not_found` when a file is gone already; one that goes later cuts the archive short, which its
    length tells.
    """
    archive, names, failures = ZipStream(sized=True), ArchiveNames(), []
    for attempt in (attempt for job in jobs for attempt in job.attempts):
        if attempt.status is not AttemptStatus.COMPLETED or attempt.result_name is None:
            failures.append(f"{attempt.original_filename}: {attempt.error_message or attempt.status.value}\n")
            continue
        if not storage.has_result(attempt.result_name):
            raise NotFound("result_not_found", "The results are not there any more; they have expired.")
        size = attempt.result_bytes or 0
        archive.add(_content(storage, attempt, size), names.add(attempt), size=size)
    if failures:
        archive.add("".join(failures), ERRORS_NAME)
    headers = {
        "Content-Length": str(len(archive)),
        "Content-Disposition": disposition("attachment", name),
        "Content-Security-Policy": SANDBOX,
    }
    return StreamingResponse(iter(archive), media_type="application/zip", headers=headers)


def _content(storage: Storage, attempt: Attempt, size: int) -> Iterator[bytes]:
    """The bytes of one result, opened at the first of them."""
    assert attempt.result_name is not None
    opened = storage.open_result(attempt.result_name)
    with opened.file:
        if opened.size != size:
            raise NotFound("result_not_found", "A result has another length than its row says.")
        yield from read_chunks(opened.file, size)
