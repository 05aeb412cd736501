"""The use case of accepting work: uploads become photos, jobs and waiting attempts, whichever front door they came by.

The order that survives a crash: header check, scan, files made durable, rows in one transaction, then the wake-up. On
an error nothing is kept, unless the rows may be there all the same: then the files stay, for them or for the janitor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from app.errors import NotFound, RestoreError, Unprocessable
from app.images import Header, ImageLimits, check_format, check_pages
from app.jobs.memory_need import check_memory
from app.options import BackendName, Pages, Repair, RestoreOptions, check_output
from app.queue import Queue
from app.storage import Storage, StoredUpload, UploadWriter
from app.store import NO_ORIGIN, Job, JobOrigin, NewPhoto, Photo, Shares, Store, may_be_committed

SCAN_UNAVAILABLE = "scan_unavailable"  # the code of a scanner that does not answer

Answer = TypeVar("Answer")


@dataclasses.dataclass(frozen=True)
class Upload:
    """One uploaded file whose bytes are all written: its label, and its writer (None when not one byte came).

    `options` are its own where it has others than the job: of the same backend and fallback.
    """

    label: str
    writer: UploadWriter | None
    options: RestoreOptions | None = None

    @property
    def path(self) -> Path:
        """Where its bytes lie. Raises `Unprocessable` `empty_file`."""
        return _writer_of(self).path


@dataclasses.dataclass(frozen=True)
class SubmissionLimits:
    """What a submission is judged by: photos that wait, in all and of one owner, a day's, and bytes of one owner.

    None means any number.
    """

    image: ImageLimits
    max_output_megapixels: float
    queue_limit: int
    owner_limit: int | None = None
    daily_limit: int | None = None
    storage_limit: int | None = None

    @property
    def shares(self) -> Shares:
        """What one owner may have."""
        return Shares(owner_limit=self.owner_limit, daily_limit=self.daily_limit, storage_limit=self.storage_limit)


class BatchRefused(RestoreError):
    """Several photos of which at least one is refused: nothing was accepted, and every refused one is named.

    The status is the photos' own when all agree on it, else 422.
    """

    def __init__(self, refused: Sequence[tuple[int, Upload, RestoreError]]) -> None:
        codes = {error.code for _, _, error in refused}
        statuses = {error.status for _, _, error in refused}
        names = ", ".join(f"'{upload.label}'" for _, upload, _ in refused[:3])
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        super().__init__(
            codes.pop() if len(codes) == 1 else "several_errors",
            f"Nothing was accepted, because of {names}{more}; leave them out or fix them, and send the rest again.",
        )
        self.status = statuses.pop() if len(statuses) == 1 else Unprocessable.status
        self.members = {"errors": [_refused_row(*each) for each in refused]}


def _unknown() -> None:
    """The memory of a process that knows of none that restores."""


class Submission:
    """Accepts jobs and photos. Calls wait for disk and database, so they belong in a thread that may wait.

    `memory_bytes` says what a process that may be given the photo can use in all; None: nobody knows.
    `check_options` names the backend that serves options now, or raises; `read_header` judges a file by its header,
    away from this process; `scan` (None: nobody does) raises for what must not be kept. `now` is epoch seconds.
    """

    def __init__(
        self,
        store: Store,
        storage: Storage,
        queue: Queue,
        *,
        check_options: Callable[[RestoreOptions], str],
        read_header: Callable[[Path], Header],
        limits: SubmissionLimits,
        memory_bytes: Callable[[], int | None] = _unknown,
        scan: Callable[[Path], None] | None = None,
    ) -> None:
        self._store, self._storage, self._queue = store, storage, queue
        self._limits, self._read_header, self._scan = limits, read_header, scan
        self._memory_bytes = memory_bytes
        self.check_options = check_options

    def submit(
        self,
        owner: str,
        uploads: Sequence[Upload],
        options: RestoreOptions,
        now: float,
        job_id: str | None = None,
        origin: JobOrigin = NO_ORIGIN,
    ) -> tuple[Job, int]:
        """Turn uploads into a job (of the given id, or a fresh one); gives it and its place in the queue (1: next).

        Raises:
            RestoreError: what is wrong with the options, the photos, or the state of the service; `BatchRefused` names
                each refused photo of several.
        """
        stored: list[StoredUpload] = []
        with self._kept_only_if_made(uploads, stored):
            backend = self.check_options(options)
            for own in {upload.options for upload in uploads if upload.options is not None}:
                self.check_options(own)
            headers = _check_each(uploads, functools.partial(self._check_one, options=options))
            if self._scan is not None:
                _check_each(uploads, functools.partial(_scan_one, self._scan))
            for upload in uploads:
                stored.append(_writer_of(upload).commit())  # noqa: PERF401 - one by one: what is stored must be known
            photos = [_new_photo(*found) for found in zip(uploads, headers, stored, strict=True)]
        limits = self._limits
        asked = (owner, photos, options.to_json(), backend, limits.queue_limit, now)
        with self._kept_only_if_made(uploads, stored, may_be_made=may_be_committed):
            job, position = self._store.submit(*asked, **limits.shares, job_id=job_id, origin=origin)
        if job.attempts[0].photo_id not in {upload.id for upload in stored}:  # it was made before, under the same key
            self._drop((), stored)
        self._wake(job)
        return job, position

    def add_photo(self, owner: str, upload: Upload, now: float) -> tuple[Photo, bool]:
        """Turn an upload into a photo of the library; whether it is new (equal bytes of one owner are one photo).

        Raises:
            RestoreError: what is wrong with the photo or the state of the service.
        """
        stored: list[StoredUpload] = []
        with self._kept_only_if_made([upload], stored):
            header = self._read_header(upload.path)
            if self._scan is not None:
                self._scan(upload.path)
            stored.append(_writer_of(upload).commit())
        with self._kept_only_if_made([upload], stored, may_be_made=may_be_committed):
            new, limit = _new_photo(upload, header, stored[0]), self._limits.storage_limit
            photo, created = self._store.library.add(owner, new, now, storage_limit=limit)
        if not created:
            self._drop_duplicate(photo, stored[0])
        return photo, created

    def check(self, upload: Upload, options: RestoreOptions) -> None:
        """Judge a photo and its options as `submit` does, and keep nothing. Raises the same."""
        self.check_options(options)
        _check_each([upload], functools.partial(self._check_one, options=options))
        if self._scan is not None:
            _check_each([upload], functools.partial(_scan_one, self._scan))

    def restore_photo(
        self,
        owner: str,
        photo_id: str,
        options: RestoreOptions,
        now: float,
        job_id: str | None = None,
        origin: JobOrigin = NO_ORIGIN,
    ) -> tuple[Job, int]:
        """One attempt more at a photo that is kept; the job and its place in the queue.

        Raises:
            RestoreError: what is wrong with the options, the photo's state, or the state of the service.
        """
        backend = self.check_options(options)
        photo = self._store.library.photo(owner, photo_id)
        self._check_result(photo.width, photo.height, photo.mime, options)
        if not self._storage.has_upload(photo_id):
            raise NotFound("photo_missing", "The uploaded photo is gone; upload it again.")
        if options.pages == Pages.ALL:
            with self._storage.upload(photo_id) as path:
                self._check_pages(self._read_header(path), options)
        limits = self._limits
        asked = (owner, photo_id, options.to_json(), backend, limits.queue_limit, now)
        job, position = self._store.restore_photo(*asked, **limits.shares, job_id=job_id, origin=origin)
        self._wake(job)
        return job, position

    def _check_one(self, upload: Upload, options: RestoreOptions) -> Header:
        header = self._read_header(upload.path)
        self._check_pages(header, upload.options or options)
        return header

    def _check_pages(self, header: Header, options: RestoreOptions) -> None:
        """Judge the result of the first page, or of all that are asked for."""
        sizes = header.page_sizes[:1]
        if options.pages == Pages.ALL:
            check_pages(header, self._limits.image)
            sizes = header.page_sizes
        for width, height in sizes:
            self._check_result(width, height, header.mime, options)

    def _check_result(self, width: int, height: int, mime: str, options: RestoreOptions) -> None:
        """Refuse what could not be kept after all the work: too many pixels for us, or for the asked format."""
        check_output(width * height, options.scale, self._limits.max_output_megapixels)
        if options.backend == BackendName.LOCAL and (memory_bytes := self._memory_bytes()) is not None:
            check_memory(width * height, options.scale, mime, memory_bytes, repaired=options.repair != Repair.OFF)
        check_format(options.output_format, width, height, options.scale)

    @contextlib.contextmanager
    def _kept_only_if_made(
        self,
        uploads: Sequence[Upload],
        stored: Sequence[StoredUpload],
        may_be_made: Callable[[BaseException], bool] = lambda _: False,
    ) -> Iterator[None]:
        """Nothing is kept after an error in the block, except the files whose rows `may_be_made` for all we know."""
        try:
            yield
        except BaseException as error:
            self._drop(uploads, () if may_be_made(error) else stored)
            raise

    def _drop(self, uploads: Sequence[Upload], stored: Sequence[StoredUpload]) -> None:
        for upload in uploads:
            if upload.writer is not None:
                upload.writer.abort()
        for committed in stored:
            self._storage.remove_upload(committed.id)

    def _drop_duplicate(self, photo: Photo, upload: StoredUpload) -> None:
        """The same bytes are kept already, so the new file goes; or it heals a photo whose file was lost."""
        if self._storage.has_upload(photo.id):
            self._storage.remove_upload(upload.id)
        else:
            self._storage.replace_upload(photo.id, by=upload.id)

    def _wake(self, job: Job) -> None:
        for attempt in job.attempts:
            self._queue.publish(attempt.id, attempt.backend)


def _check_each(uploads: Sequence[Upload], check: Callable[[Upload], Answer]) -> list[Answer]:
    """What a check found at all photos. One bad photo refuses the whole submission, and every bad one is named."""
    found, refused = [], []
    for index, upload in enumerate(uploads):
        try:
            found.append(check(upload))
        except RestoreError as error:
            if error.code == SCAN_UNAVAILABLE:  # says nothing of this photo
                raise
            refused.append((index, upload, error))
    if refused:
        raise refused[0][2] if len(uploads) == 1 else BatchRefused(refused)
    return found


def _scan_one(scan: Callable[[Path], None], upload: Upload) -> None:
    scan(upload.path)


def _writer_of(upload: Upload) -> UploadWriter:
    if upload.writer is None:
        raise Unprocessable("empty_file", f"'{upload.label}' is empty; choose another photo.")
    return upload.writer


def _new_photo(upload: Upload, header: Header, stored: StoredUpload) -> NewPhoto:
    own = None if upload.options is None else upload.options.to_json()
    return NewPhoto(stored.id, stored.sha256, upload.label, header.mime, header.width, header.height, stored.bytes, own)


def _refused_row(index: int, upload: Upload, error: RestoreError) -> dict[str, object]:
    """One refused photo with its place (from 0), JSON-ready."""
    return {
        "index": index,
        "original_filename": upload.label,
        "status": error.status,
        "code": error.code,
        "message": error.detail,
    }
