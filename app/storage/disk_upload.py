"""One upload on its way in: written under a temporary name, hashed on the way, synced and renamed at the end.

A full disk becomes an error of its own here, for every write of photos and results.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from app import atomic_files
from app.errors import Unavailable
from app.storage.part_lock import create_locked
from app.storage.protocol import StoredUpload

log = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_RETRY_SECONDS = 60


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


class StagedUploadWriter(abc.ABC):
    """One upload in a local file until its commit; see `UploadWriter`. A child class says what keeping it means."""

    def __init__(self, part: Path) -> None:
        self._part = part
        self._hash = hashlib.sha256()
        self._bytes = 0
        with translate_disk_full():
            self._file: int | None = create_locked(part)

    @property
    def path(self) -> Path:
        """See `UploadWriter`."""
        return self._part

    @property
    def bytes_written(self) -> int:
        """See `UploadWriter`."""
        return self._bytes

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """See `UploadWriter`."""
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
        """See `UploadWriter`."""
        if self._file is None:
            raise ValueError("this upload has ended")
        try:
            with translate_disk_full():
                self._keep(self._file)
        except BaseException:
            self.abort()
            self._forget()  # no row names it yet
            raise
        os.close(self._file)
        self._file = None
        return StoredUpload(self._part.stem, self._hash.hexdigest(), self._bytes)

    def abort(self) -> None:
        """See `UploadWriter`."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.abort()

    @abc.abstractmethod
    def _keep(self, file: int) -> None:
        """Make the whole upload, open as `file`, durable under its final name; the part is gone after that."""

    @abc.abstractmethod
    def _forget(self) -> None:
        """Remove what a failed `_keep` may have left under the final name."""


class DiskUploadWriter(StagedUploadWriter):
    """An upload that stays on this disk."""

    def __init__(self, part: Path, final: Path) -> None:
        super().__init__(part)
        self._final = final

    def _keep(self, file: int) -> None:
        """Sync the file, give it its final name, sync the folder."""
        os.fsync(file)
        atomic_files.rename(self._part, self._final)

    def _forget(self) -> None:
        self._final.unlink(missing_ok=True)


def _write_all(handle: int, chunk: bytes | bytearray | memoryview) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(handle, rest) :]
