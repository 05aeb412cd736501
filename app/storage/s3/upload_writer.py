"""An upload on its way into the bucket: staged on the local disk, checked there, and put at its commit."""

from __future__ import annotations

import contextlib
from pathlib import Path

from app.errors import RestoreError
from app.storage.disk_upload import StagedUploadWriter
from app.storage.s3.bucket import Bucket
from app.storage.scratch import ScratchFolders


class S3UploadWriter(StagedUploadWriter):
    """An upload that goes to the bucket at its commit."""

    def __init__(self, part: Path, bucket: Bucket, key: str) -> None:
        super().__init__(part)
        self._bucket, self._key = bucket, key

    def _keep(self, file: int) -> None:
        self._bucket.put_file(self._part, self._key)
        self._part.unlink(missing_ok=True)

    def _forget(self) -> None:
        """A PUT without an answer may have been done; what cannot be removed now is an orphan for the janitor."""
        with contextlib.suppress(RestoreError):
            self._bucket.delete(self._key)


def staged_upload(folders: ScratchFolders, photo_id: str, bucket: Bucket, key: str) -> S3UploadWriter:
    """Begin an upload that will be put under a key."""
    part = folders.upload_part(photo_id)
    try:
        return S3UploadWriter(part, bucket, key)
    except FileNotFoundError:  # somebody removed the folder while we run
        folders.make()
        return S3UploadWriter(part, bucket, key)
