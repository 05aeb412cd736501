"""ZIP archives of results: stored, not deflated, since images do not get smaller, and so of known length.

Every file is opened before the answer begins, so that a removal meanwhile cuts no download; an archive therefore holds
a bounded number of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from starlette.responses import StreamingResponse
from zipstream import ZipStream  # type: ignore[import-untyped]

from app.api.download_names import ArchiveNames
from app.api.file_responses import SANDBOX, disposition, read_chunks
from app.errors import NotFound
from app.storage import OpenedFile, Storage
from app.store import AttemptStatus, Job

ERRORS_NAME = "errors.txt"
MOST_RESULTS = 200  # of an archive of several jobs; each is an open file


def archive_response(storage: Storage, jobs: Iterable[Job], name: str, note: str = "") -> StreamingResponse:
    """All completed results of these jobs as a ZIP under this name, with the originals' names.

    Photos that failed or were cancelled are named in `errors.txt`, with `note` before them, so that a short archive
    explains itself. Raises `NotFound` `result_not_found` when a file is gone already.
    """
    archive, names, lines = ZipStream(sized=True), ArchiveNames(), [note] if note else []
    with contextlib.ExitStack() as opening:
        for attempt in (attempt for job in jobs for attempt in job.attempts):
            if attempt.status is not AttemptStatus.COMPLETED or attempt.result_name is None:
                lines.append(f"{attempt.original_filename}: {attempt.error_message or attempt.status.value}\n")
                continue
            opened = _open(storage, attempt.result_name)
            opening.callback(opened.file.close)
            archive.add(read_chunks(opened.file, opened.size), names.add(attempt), size=opened.size)
        if lines:
            archive.add("".join(lines), ERRORS_NAME)
        length = len(archive)
        content = _closing(archive, opening.pop_all())
    headers = {
        "Content-Length": str(length),
        "Content-Disposition": disposition("attachment", name),
        "Content-Security-Policy": SANDBOX,
    }
    return StreamingResponse(content, media_type="application/zip", headers=headers)


def _open(storage: Storage, result_name: str) -> OpenedFile:
    try:
        return storage.open_result(result_name)
    except NotFound:
        raise NotFound("result_not_found", "The results are not there any more; they have expired.") from None


def _closing(archive: ZipStream, opened: contextlib.ExitStack) -> Iterator[bytes]:
    """The archive's bytes; the files are closed at the end, or when the client is gone."""
    with opened:
        yield from archive
