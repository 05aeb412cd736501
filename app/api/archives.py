"""ZIP archives of results: stored, not deflated, since images do not get smaller, and so of known length.

Every file is opened before the answer begins and closed once it is sent, so that a removal meanwhile cuts no download
from a folder; an archive therefore holds a bounded number of them, and so many archives at once are made as there are
places. Of files in a bucket only their lengths are asked before: the janitor leaves them to their readers for a while,
but what a user deletes meanwhile cuts the archive.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from zipstream import ZipStream  # type: ignore[import-untyped]

from app.api.connection_limits import FILES_OF_ARCHIVE, archives_within
from app.api.connections import Connections
from app.api.download_names import ArchiveNames
from app.api.file_responses import SANDBOX, disposition, read_chunks
from app.errors import NotFound, TooManyRequests
from app.storage import OpenedFile, Storage
from app.store import AttemptStatus, Job

ERRORS_NAME = "errors.txt"
MOST_RESULTS = FILES_OF_ARCHIVE  # of an archive of several jobs; each is an open file
MOST_OF_ONE_OWNER = 4  # archives at once
RETRY_SECONDS = 5


class ArchiveResponse(StreamingResponse):
    """An archive on its way. Whatever becomes of it, `held` is closed at its end: open files, and its place."""

    def __init__(self, archive: ZipStream, held: contextlib.ExitStack, headers: dict[str, str]) -> None:
        super().__init__(archive, media_type="application/zip", headers=headers)
        self.held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, until the end or until the client leaves."""
        with self.held:
            await super().__call__(scope, receive, send)


def archive_places(descriptors: int) -> Connections:
    """Places for the archives that a process with so many descriptors sends at once."""
    return Connections(archives_within(descriptors), MOST_OF_ONE_OWNER)


@contextlib.contextmanager
def archive_place(places: Connections, owner: str) -> Iterator[None]:
    """Take a place while the block runs. Raises `TooManyRequests` `too_many_archives` when there is none."""
    with places.acquire(owner) as has_place:
        if not has_place:
            raise TooManyRequests(
                "too_many_archives",
                "As many ZIP archives as fit are being downloaded already; ask for this one again when one has ended.",
                retry_after_seconds=RETRY_SECONDS,
            )
        yield


def archive_response(storage: Storage, jobs: Iterable[Job], name: str, note: str = "") -> ArchiveResponse:
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
            archive.add(_sent(opened), names.add(attempt), size=opened.size)
        if lines:
            archive.add("".join(lines), ERRORS_NAME)
        headers = {
            "Content-Length": str(len(archive)),
            "Content-Disposition": disposition("attachment", name),
            "Content-Security-Policy": SANDBOX,
        }
        return ArchiveResponse(archive, opening.pop_all(), headers)


def _open(storage: Storage, result_name: str) -> OpenedFile:
    """Without its first bytes where they would have to be fetched: of hundreds of files they fill the memory."""
    try:
        return storage.open_result(result_name, prefetch=False)
    except NotFound:
        raise NotFound("result_not_found", "The results are not there any more; they have expired.") from None


def _sent(opened: OpenedFile) -> Iterator[bytes]:
    """The bytes of one file, which is closed as soon as they are out."""
    with opened.file:
        yield from read_chunks(opened.file, opened.size)
