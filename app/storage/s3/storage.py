"""Photos and results in a bucket: worked on in local scratch folders, then put under keys that nobody else writes.

`uploads/<photo id>`, `masks/<attempt id>.mask`, `results/<result name>` (each bears the mark of its run),
`shared/<id>.jpg` and the janitor's note stand below the prefix. A row names an object only once it is there; what a
crash leaves is found by the rows, as on disk.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

from app.errors import NotFound, RestoreError
from app.notices import Sentence
from app.storage.disk_upload import translate_disk_full
from app.storage.names import (
    BESIDE_PATTERN,
    ID_PATTERN,
    MASK_PATTERN,
    RESULT_PATTERN,
    Beside,
    beside_name,
    mark_run,
    mask_name,
    new_id,
    version_of,
)
from app.storage.protocol import FoundFile, OnBytes, OpenedFile, ignore_bytes
from app.storage.s3.bucket import Bucket, S3Options
from app.storage.s3.failures import KeyMissing, unavailable
from app.storage.s3.janitor_note import JanitorNote
from app.storage.s3.reader import READING_GRACE_SECONDS, open_object
from app.storage.s3.upload_writer import S3UploadWriter, staged_upload
from app.storage.scratch import GONE, ScratchFolders

log = logging.getLogger(__name__)

ADDRESS_SECONDS = 300
SHARED_SECONDS = 3600  # the provider fetches it within its own time limit; it is removed at the end of the call anyway
_UPLOADS, _MASKS, _RESULTS, _SHARED = "uploads/", "masks/", "results/", "shared/"
_SHARED_PATTERN = re.compile(r"shared/[0-9a-f]{32}\.jpg")
_MULTIPART_PATTERN = re.compile(r"multipart:(?P<key>(?:uploads|masks|results)/[0-9a-z.-]{32,80}):(?P<id>.{1,1024})")


class S3Storage:
    """The bucket with its local scratch folders; see `Storage`."""

    def __init__(self, bucket: Bucket, folders: ScratchFolders, *, redirect: bool, reachable_by_all: bool) -> None:
        self._bucket, self._folders = bucket, folders
        self._redirect, self._reachable_by_all = redirect, reachable_by_all
        self._note = JanitorNote(bucket)

    def open_upload(self, photo_id: str) -> S3UploadWriter:
        """See `Storage`: staged on the local disk."""
        key = _upload_key(photo_id)
        return staged_upload(self._folders, photo_id, self._bucket, key)

    def has_upload(self, photo_id: str) -> bool:
        """See `Storage`."""
        return self._bucket.exists(_upload_key(photo_id))

    def has_result(self, result_name: str) -> bool:
        """See `Storage`."""
        return self._bucket.exists(_result_key(result_name))

    def has_beside(self, result_name: str, kind: Beside) -> bool:
        """See `Storage`."""
        return self._bucket.exists(_beside_key(result_name, kind))

    def upload(self, photo_id: str, on_bytes: OnBytes = ignore_bytes) -> AbstractContextManager[Path]:
        """See `Storage`. The copy that is lent is the borrower's own."""
        return self._lend(_upload_key(photo_id), "photo_not_found", on_bytes)

    def result(self, result_name: str) -> AbstractContextManager[Path]:
        """See `Storage`. The copy that is lent is the borrower's own."""
        return self._lend(_result_key(result_name), "result_not_found")

    def beside(self, result_name: str, kind: Beside) -> AbstractContextManager[Path]:
        """See `Storage`. The copy that is lent is the borrower's own."""
        return self._lend(_beside_key(result_name, kind), "result_not_found")

    def mask(self, attempt_id: str) -> AbstractContextManager[Path]:
        """See `Storage`. The copy that is lent is the borrower's own."""
        return self._lend(_MASKS + mask_name(attempt_id), "mask_missing")

    def open_original(self, photo_id: str) -> OpenedFile:
        """See `Storage`."""
        with _missing_is("photo_not_found"):
            return open_object(self._bucket, _upload_key(photo_id))

    def open_result(self, result_name: str, *, prefetch: bool = True) -> OpenedFile:
        """See `Storage`."""
        with _missing_is("result_not_found"):
            return open_object(self._bucket, _result_key(result_name), prefetch=prefetch)

    def address(self, result_name: str, media_type: str, disposition: str) -> str | None:
        """See `Storage`: a signed address, where results are handed out so."""
        key = _result_key(result_name)
        if not self._redirect:
            return None
        if not self._bucket.exists(key):
            raise NotFound("result_not_found", GONE)
        return self._bucket.sign(
            key,
            ADDRESS_SECONDS,
            ResponseContentType=media_type,
            ResponseContentDisposition=disposition,
            ResponseCacheControl="no-store",
        )

    def address_origin(self) -> str | None:
        """See `Storage`: the bucket may be a part of the host, so it is read from an address."""
        if not self._redirect:
            return None
        address = urlsplit(self._bucket.sign(_RESULTS, ADDRESS_SECONDS))
        return f"{address.scheme}://{address.netloc}"

    @contextlib.contextmanager
    def share(self, jpeg: bytes) -> Iterator[str | None]:
        """See `Storage`: under a key that cannot be guessed, removed at the end of the block."""
        if not self._reachable_by_all:
            yield None
            return
        key = f"{_SHARED}{new_id()}.jpg"
        try:
            address = self._put_shared(jpeg, key)
            yield address
        finally:
            with contextlib.suppress(RestoreError):  # the janitor finds it
                self._bucket.delete(key)

    def problem(self) -> str | None:
        """See `Storage`."""
        if not self._bucket.failing:
            return None
        error = unavailable()
        return Sentence(error.code, error.detail)

    def scratch(self, attempt_id: str) -> AbstractContextManager[Path]:
        """See `Storage`."""
        return self._folders.scratch(attempt_id)

    def name_of_run(self, result_name: str, run: str) -> str:
        """See `Storage`: marked, since runs of several hosts may end at once."""
        return mark_run(result_name, run)

    def publish(self, temporary: Path, result_name: str, on_bytes: OnBytes = ignore_bytes) -> None:
        """See `Storage`. The temporary stays for another try; its `scratch` block removes it."""
        self._bucket.put_file(temporary, _result_key(result_name), on_bytes)

    def publish_beside(self, temporary: Path, result_name: str, kind: Beside, on_bytes: OnBytes = ignore_bytes) -> None:
        """See `Storage`."""
        self._bucket.put_file(temporary, _beside_key(result_name, kind), on_bytes)

    def keep_mask(self, temporary: Path, attempt_id: str) -> None:
        """See `Storage`."""
        self._bucket.put_file(temporary, _MASKS + mask_name(attempt_id))

    def copy_result(self, result_name: str, copy_name: str) -> None:
        """See `Storage`: the server copies."""
        with _missing_is("result_not_found"):
            self._bucket.copy(_result_key(result_name), _result_key(copy_name))
        for kind in Beside:
            if self.has_beside(result_name, kind):
                self._bucket.copy(_beside_key(result_name, kind), _beside_key(copy_name, kind))

    def remove_upload(self, photo_id: str) -> bool:
        """See `Storage`."""
        return self._remove(_upload_key(photo_id))

    def remove_result(self, result_name: str) -> bool:
        """See `Storage`: all versions of the run, found by their names."""
        kept = self._of_run(result_name)
        for name in kept:
            self._bucket.delete(_RESULTS + name)
        return result_name in kept

    def remove_mask(self, attempt_id: str) -> bool:
        """See `Storage`."""
        return self._remove(_MASKS + mask_name(attempt_id))

    def remove_version(self, result_name: str) -> bool:
        """See `Storage`."""
        return self._remove(_result_key(result_name))

    def remove_versions_before(self, result_name: str) -> None:
        """See `Storage`."""
        for name in self._of_run(result_name):
            if RESULT_PATTERN.fullmatch(name) and 1 < version_of(name) < version_of(result_name):
                self._bucket.delete(_RESULTS + name)

    def replace_upload(self, photo_id: str, by: str) -> None:
        """See `Storage`: copied at the server, then the other is removed."""
        with _missing_is("photo_not_found"):
            self._bucket.copy(_upload_key(by), _upload_key(photo_id))
        self._bucket.delete(_upload_key(by))

    def grace_seconds(self) -> float:
        """See `Storage`: whoever reads an object asks for it again and again."""
        return READING_GRACE_SECONDS

    def unnamed_since(self) -> dict[str, float]:
        """See `Storage`."""
        return self._note.read()

    def note_unnamed(self, since: Mapping[str, float]) -> None:
        """See `Storage`."""
        self._note.write(since)

    def free_disk_ok(self) -> bool:
        """See `Storage`: of the scratch folders; the server says by itself when it is full."""
        return self._folders.free_disk_ok()

    def iter_uploads(self) -> Iterator[FoundFile]:
        """See `Storage`."""
        return self._found(_UPLOADS, ID_PATTERN)

    def iter_results(self) -> Iterator[FoundFile]:
        """See `Storage`."""
        return self._found(_RESULTS, RESULT_PATTERN, BESIDE_PATTERN)

    def iter_masks(self) -> Iterator[FoundFile]:
        """See `Storage`."""
        return self._found(_MASKS, MASK_PATTERN)

    def iter_parts(self) -> Iterator[FoundFile]:
        """See `Storage`: local ones, multipart uploads that nobody ended, and shared pictures."""
        yield from self._folders.iter_parts()
        for found in self._bucket.iter_objects(_SHARED):
            if _SHARED_PATTERN.fullmatch(found.key):
                yield FoundFile(found.key, found.modified_at)
        for begun, upload_id in self._bucket.iter_multipart(""):
            name = f"multipart:{begun.key}:{upload_id}"
            if _MULTIPART_PATTERN.fullmatch(name):
                yield FoundFile(name, begun.modified_at)

    def iter_local_parts(self) -> Iterator[FoundFile]:
        """See `Storage`: nothing of the bucket, where others' uploads in parts and shared pictures are in use."""
        return self._folders.iter_parts()

    def remove_found(self, file: FoundFile) -> bool:
        """See `Storage`. The name tells the place."""
        if ID_PATTERN.fullmatch(file.name):
            return self._remove(_UPLOADS + file.name)
        if RESULT_PATTERN.fullmatch(file.name) or BESIDE_PATTERN.fullmatch(file.name):
            return self._remove(_RESULTS + file.name)
        if MASK_PATTERN.fullmatch(file.name):
            return self._remove(_MASKS + file.name)
        if _SHARED_PATTERN.fullmatch(file.name):
            return self._remove(file.name)
        begun = _MULTIPART_PATTERN.fullmatch(file.name)
        if begun is not None:
            return self._bucket.abort_multipart(begun["key"], begun["id"])
        removed = self._folders.remove_part(file.name)
        if removed is None:
            raise NotFound("result_not_found", GONE)
        return removed

    def check(self) -> None:
        """Ask the bucket. Raises `Unavailable` `storage_unavailable` when it cannot be used or is not there."""
        self._bucket.check()

    @contextlib.contextmanager
    def _lend(self, key: str, code: str, on_bytes: OnBytes = ignore_bytes) -> Iterator[Path]:
        with self._folders.scratch(new_id()) as copy:
            with _missing_is(code), translate_disk_full():
                self._bucket.get_file(key, copy, on_bytes)
            yield copy

    def _put_shared(self, jpeg: bytes, key: str) -> str | None:
        try:
            self._bucket.put_bytes(jpeg, key)
            return self._bucket.sign(key, SHARED_SECONDS, ResponseContentType="image/jpeg")
        except RestoreError as error:
            log.warning("a picture could not be shared and is sent itself: %s", error.detail)
            return None

    def _remove(self, key: str) -> bool:
        """A DELETE answers alike whether there was something, so it is asked before."""
        there = self._bucket.exists(key)
        if there:
            self._bucket.delete(key)
        return there

    def _of_run(self, result_name: str) -> set[str]:
        """The names of all that one run made: each version, and what lies beside."""
        stem = beside_name(result_name, Beside.FACES).rpartition(".")[0]
        found = self._found(_RESULTS + stem, RESULT_PATTERN, BESIDE_PATTERN)
        return {file.name for file in found if _stem(file.name) == stem}

    def _found(self, start: str, *patterns: re.Pattern[str]) -> Iterator[FoundFile]:
        for found in self._bucket.iter_objects(start):
            name = found.key.partition("/")[2]
            if any(pattern.fullmatch(name) for pattern in patterns):
                yield FoundFile(name, found.modified_at)


def open_s3_storage(
    options: S3Options, upload_folder: Path, processed_folder: Path, min_free_disk_mb: int, *, reachable_by_all: bool
) -> S3Storage:
    """The storage from plain values; connects to nothing.

    `reachable_by_all` says that providers on the internet can fetch from the public endpoint.
    """
    folders = ScratchFolders(upload_folder, processed_folder, min_free_disk_mb)
    return S3Storage(Bucket(options), folders, redirect=options.redirect, reachable_by_all=reachable_by_all)


def _upload_key(photo_id: str) -> str:
    if not ID_PATTERN.fullmatch(photo_id):
        raise NotFound("photo_not_found", GONE)
    return _UPLOADS + photo_id


def _result_key(result_name: str) -> str:
    if not RESULT_PATTERN.fullmatch(result_name):
        raise NotFound("result_not_found", GONE)
    return _RESULTS + result_name


def _beside_key(result_name: str, kind: Beside) -> str:
    return _RESULTS + beside_name(result_name, kind)


def _stem(name: str) -> str:
    found = RESULT_PATTERN.fullmatch(name) or BESIDE_PATTERN.fullmatch(name)
    return found["stem"] if found else ""


@contextlib.contextmanager
def _missing_is(code: str) -> Iterator[None]:
    try:
        yield
    except KeyMissing:
        raise NotFound(code, GONE) from None
