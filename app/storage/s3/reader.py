"""An object as an open file: its beginning is here at once, the rest comes as it is read.

A connection that breaks is opened again at the byte where it broke, for exactly the same bytes or not at all. So an
object has to stay for a while after the row that named it is gone, for those who are reading it.
"""

from __future__ import annotations

import io
from typing import Any

from botocore.exceptions import BotoCoreError

from app.storage.protocol import OpenedFile
from app.storage.s3.bucket import MEGABYTE, Bucket, ObjectStart
from app.storage.s3.failures import KeyMissing, unavailable

FIRST_BYTES = MEGABYTE  # a removal does not touch what is here already
READING_GRACE_SECONDS = 3600.0  # a long download over a slow line, with room to spare
_BUFFER_BYTES = 256 * 1024
_BUFFER_BYTES_OF_MANY = 8 * 1024  # of hundreds that are open at once; larger reads pass it by
_TRIES = 3


class ObjectReader(io.RawIOBase):
    """Reads one object, from any place on. Not for two threads at once."""

    def __init__(self, bucket: Bucket, key: str, start: ObjectStart) -> None:
        super().__init__()
        self._bucket, self._key, self._etag, self._size = bucket, key, start.etag, start.size
        self._first = start.first
        self._at = 0
        self._body: Any = None

    def readable(self) -> bool:
        """It is only read."""
        return True

    def seekable(self) -> bool:
        """A jump opens a new connection at the next read."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; see `io.IOBase`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset != self._at:
            self._drop()
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as one read reaches; 0 at the end. Raises `Unavailable` or `OSError`."""
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        found = self._first[self._at : self._at + wanted] or self._fetch(wanted)
        buffer[: len(found)] = found
        self._at += len(found)
        if self._at >= len(self._first):  # a slow download holds no megabyte that it has sent already
            self._first = b""
        return len(found)

    def close(self) -> None:
        """Give the connection up."""
        self._drop()
        self._first = b""
        super().close()

    def _fetch(self, wanted: int) -> bytes:
        for _ in range(_TRIES):
            try:
                if self._body is None:
                    self._body = self._bucket.stream(self._key, self._at, self._etag)
                found = bytes(self._body.read(wanted))
            except KeyMissing:
                raise OSError("the object was removed while it was read") from None
            except BotoCoreError:  # the connection broke
                found = b""
            if found:
                return found
            self._drop()
        raise unavailable()

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


def open_object(bucket: Bucket, key: str, *, prefetch: bool = True) -> OpenedFile:
    """Open an object for reading; see `Storage.open_result`. Raises `KeyMissing` or `Unavailable`."""
    start = bucket.start(key, FIRST_BYTES) if prefetch else bucket.facts(key)
    reader = ObjectReader(bucket, key, start)
    file = io.BufferedReader(reader, _BUFFER_BYTES if prefetch else _BUFFER_BYTES_OF_MANY)
    return OpenedFile(file, start.size, start.modified_at)
