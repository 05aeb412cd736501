"""Where photos and results live on disk, and the order of writing that survives a crash at any moment.

A file is written under a temporary name, synced, renamed, and its folder synced; only then may a row name it. This
module knows ids and bytes; it knows nothing of rows, HTTP or pictures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from app.errors import NotFound, Unavailable
from app.storage.names import (
    ID_PATTERN,
    LAYERS_PATTERN,
    RESULT_PATTERN,
    related_files,
)

log = logging.getLogger(__name__)

_PART_PATTERN = re.compile(r"[0-9a-f]{32}(\.[0-9a-f]{8})?\.part")
_SCRATCH = ".scratch"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_RETRY_SECONDS = 60
_MEGABYTE = 1024 * 1024


@contextlib.contextmanager
def translate_disk_full() -> Iterator[None]:
    """Turn "no space left" from inside the block into `Unavailable` `storage_full`; other errors pass through."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        log.warning("the disk is full: %s", error)
        raise Unavailable(
            "storage_full",
            "There is no free disk space left for photos; try again later or ask the operator to free some.",
            retry_after_seconds=_FULL_RETRY_SECONDS,
        ) from error


@dataclasses.dataclass(frozen=True)
class StoredUpload:
    """A committed upload: its id, the SHA-256 of its bytes in hex, and its length."""

    id: str
    sha256: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class FoundFile:
    """A file in one of our folders: its name, its place, and when it was last written (epoch seconds)."""

    name: str
    path: Path
    modified_at: float


class UploadWriter:
    """One upload on its way to disk. Not for two threads at once; leaving the `with` block uncommitted removes it."""

    def __init__(self, part: Path, final: Path) -> None:
        self._part, self._final = part, final
        self._hash = hashlib.sha256()
        self._bytes = 0
        with translate_disk_full():
            self._file: int | None = _create(part)

    @property
    def path(self) -> Path:
        """Where the bytes written so far stand (nothing is buffered), for the header check before `commit`."""
        return self._part

    @property
    def bytes_written(self) -> int:
        """How many bytes came so far."""
        return self._bytes

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append one chunk. On a full disk the part is removed and `storage_full` raised."""
        if self._file is None:
            raise ValueError("this upload has ended")
        try:
            with translate_disk_full():
                _write_all(self._file, chunk)
        except BaseException:
            self.abort()
            raise
        self._hash.update(chunk)
        self._bytes += len(chunk)

    def commit(self) -> StoredUpload:
        """Sync the file, give it its final name, sync the folder. After this the upload survives a power cut."""
        if self._file is None:
            raise ValueError("this upload has ended")
        try:
            with translate_disk_full():
                os.fsync(self._file)
                self._part.replace(self._final)
                sync_folder(self._final.parent)
        except BaseException:
            self.abort()
            self._final.unlink(missing_ok=True)  # no row names it yet
            raise
        os.close(self._file)
        self._file = None
        return StoredUpload(self._final.name, self._hash.hexdigest(), self._bytes)

    def abort(self) -> None:
        """Remove what was written. Harmless after `commit` and when called twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.abort()


class Storage:
    """The upload folder and the folder of results. Every name is checked by pattern; symbolic links are refused."""

    def __init__(self, upload_folder: Path, processed_folder: Path, min_free_disk_mb: int = 0) -> None:
        self._uploads = Path(upload_folder).absolute()
        self._results = Path(processed_folder).absolute()
        self._scratch = self._results / _SCRATCH
        self._min_free_bytes = min_free_disk_mb * _MEGABYTE
        self._make_folders()

    def open_upload(self, photo_id: str) -> UploadWriter:
        """Start an upload; write chunks into it, then `commit()` or `abort()`."""
        final = self._inside(self._uploads, photo_id, ID_PATTERN, "photo_not_found")
        part = final.with_name(f"{photo_id}.part")
        try:
            return UploadWriter(part, final)
        except FileNotFoundError:  # somebody removed the folder while we run
            self._make_folders()
            return UploadWriter(part, final)

    def upload_path(self, photo_id: str) -> Path:
        """Where an upload stands (it need not exist). Raises `NotFound` `photo_not_found` for what is no id."""
        return self._inside(self._uploads, photo_id, ID_PATTERN, "photo_not_found")

    def result_path(self, result_name: str) -> Path:
        """Where a result stands (it need not exist). Raises `NotFound` `result_not_found` for a bad name."""
        return self._inside(self._results, result_name, RESULT_PATTERN, "result_not_found")

    def layers_path(self, attempt_id: str) -> Path:
        """Where the layers of a result's faces stand (they need not exist). Raises `NotFound` for what is no id."""
        return self._inside(self._results, f"{attempt_id}.faces", LAYERS_PATTERN, "result_not_found")

    def scratch_path(self, attempt_id: str) -> Path:
        """A fresh temporary name on the results' file system; two runs of one attempt never share it."""
        self._make_folders()
        name = f"{attempt_id}.{secrets.token_hex(4)}.part"
        return self._inside(self._scratch, name, _PART_PATTERN, "result_not_found")

    def publish(self, temporary: Path, result_name: str) -> Path:
        """Sync a finished temporary file, give it its final name, sync the folder. The temporary never stays."""
        return self._publish(temporary, self.result_path(result_name))

    def publish_layers(self, temporary: Path, attempt_id: str) -> Path:
        """The same for the layers of a result's faces."""
        return self._publish(temporary, self.layers_path(attempt_id))

    def _publish(self, temporary: Path, final: Path) -> Path:
        try:
            with translate_disk_full():
                _sync_file(temporary)
                temporary.replace(final)
                sync_folder(final.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return final

    def remove_upload(self, photo_id: str) -> bool:
        """Remove an upload; False when it was not there."""
        return _remove(self._uploads / self.upload_path(photo_id).name)

    def remove_result(self, result_name: str) -> bool:
        """Remove a result, its other versions and its layers; False when it was not there itself.

        Open downloads run to their end.
        """
        there = _remove(self.result_path(result_name))
        for path in (self._results / name for name in related_files(result_name)):
            if path.is_file():
                _remove(path)
        return there

    def remove_version(self, result_name: str) -> bool:
        """Remove one version of a result and nothing else; False when it was not there."""
        return _remove(self.result_path(result_name))

    def replace_upload(self, photo_id: str, by: str) -> None:
        """Put a committed upload of the same bytes in the place of one whose file is gone."""
        final = self.upload_path(photo_id)
        self.upload_path(by).replace(final)
        sync_folder(final.parent)

    def free_disk_ok(self) -> bool:
        """Whether both folders have more free space than the mark below which uploads are refused."""
        try:
            free = min(shutil.disk_usage(folder).free for folder in (self._uploads, self._results))
        except OSError:  # a folder is gone: the next write makes it again or says why not
            return False
        return free > self._min_free_bytes

    def iter_uploads(self) -> Iterator[FoundFile]:
        """Committed uploads; files that do not bear our names are not ours and left alone."""
        return _found(self._uploads, ID_PATTERN)

    def iter_results(self) -> Iterator[FoundFile]:
        """Published results in all their versions, and the layers of their faces."""
        yield from _found(self._results, RESULT_PATTERN)
        yield from _found(self._results, LAYERS_PATTERN)

    def iter_parts(self) -> Iterator[FoundFile]:
        """Unfinished uploads and results."""
        yield from _found(self._uploads, _PART_PATTERN)
        yield from _found(self._scratch, _PART_PATTERN)

    def _make_folders(self) -> None:
        for folder in (self._uploads, self._results, self._scratch):
            folder.mkdir(parents=True, exist_ok=True)

    def _inside(self, folder: Path, name: str, pattern: re.Pattern[str], code: str) -> Path:
        """`folder/name` once the name is one of ours, is no symbolic link and resolves to inside the folder."""
        path = folder / name if pattern.fullmatch(name) else None
        if path is None or path.is_symlink() or path.resolve().parent != folder.resolve():
            raise NotFound(code, "There is no such file; it may have expired.")
        return path


def sync_folder(folder: Path) -> None:
    """Make renames in this folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _create(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)


def _write_all(handle: int, chunk: bytes | bytearray | memoryview) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _found(folder: Path, pattern: re.Pattern[str]) -> Iterator[FoundFile]:
    """Regular files of the folder whose names match; a file that vanishes while we look is passed over."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):
            facts = entry.stat(follow_symlinks=False)
            if pattern.fullmatch(entry.name) and stat.S_ISREG(facts.st_mode):
                yield FoundFile(entry.name, Path(entry.path), facts.st_mtime)
