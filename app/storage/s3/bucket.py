"""One bucket below a prefix: whole objects in and out, listed, copied, removed, and signed addresses for others.

Every call is bounded: some tries, each with a deadline for connecting and for silence. Objects appear whole or not at
all, since a PUT (and the end of a multipart upload) is one step at the server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from s3transfer.subscribers import BaseSubscriber

from app.errors import Unavailable
from app.storage.protocol import OnBytes, ignore_bytes
from app.storage.s3.failures import KeyMissing, translated, unavailable

MEGABYTE = 1024 * 1024
COPY_CHUNK_BYTES = MEGABYTE
FAILURE_REMEMBERED_SECONDS = 30.0
_SINGLE_PUT_BYTES = 64 * MEGABYTE
_AT_ONCE_BYTES = MEGABYTE
_TRANSFER = TransferConfig(
    multipart_threshold=_SINGLE_PUT_BYTES,
    multipart_chunksize=16 * MEGABYTE,
    use_threads=False,
    preferred_transfer_client="classic",
)
_EMPTY_RANGE = ("416", "InvalidRange")


@dataclasses.dataclass(frozen=True)
class S3Options:
    """Where the bucket is and how it is spoken to. Credentials come by the AWS chain alone, never from here.

    Attributes:
        bucket: its name.
        prefix: what all keys begin with; empty, or ending in a slash.
        endpoint_url: the server; None for AWS.
        public_endpoint_url: the server as everybody reaches it, for signed addresses; None where nobody else does.
        region: None leaves it to the AWS chain.
        addressing_style: whether the bucket stands in the `path` or is a `virtual` host; `auto` chooses.
        checksums: `when_supported` sends and checks CRC32 always, `when_required` is for older servers.
        redirect: whether results are handed out by signed addresses.
        connections: how many are kept open.
        attempts: how often a call is tried in all.
        connect_timeout_seconds: for one try to connect.
        read_timeout_seconds: silence after which one try ends.
    """

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    public_endpoint_url: str | None = None
    region: str | None = None
    addressing_style: str = "auto"
    checksums: str = "when_supported"
    redirect: bool = False
    connections: int = 32
    attempts: int = 3
    connect_timeout_seconds: float = 3.0
    read_timeout_seconds: float = 20.0


@dataclasses.dataclass(frozen=True)
class FoundObject:
    """One entry of a list: the key below the prefix, and when it was written (epoch seconds by the server's clock)."""

    key: str
    modified_at: float


@dataclasses.dataclass(frozen=True)
class ObjectStart:
    """An object's beginning and its facts. `etag` names exactly these bytes; `size` is of the whole object."""

    first: bytes
    size: int
    etag: str
    modified_at: float


class Bucket:
    """The bucket; usable from any thread. Keys are relative to the prefix.

    Calls raise `KeyMissing`, or `Unavailable` with `storage_unavailable` or `storage_full`.
    """

    def __init__(self, options: S3Options, clock: Callable[[], float] = time.monotonic) -> None:
        self._options, self._name, self._prefix = options, options.bucket, options.prefix
        self._clock = clock
        self._failed_at: float | None = None
        self._client = _client(options, options.endpoint_url)
        public = options.public_endpoint_url
        self._signer = self._client if public is None else _client(options, public)

    @property
    def failing(self) -> bool:
        """Whether the last call failed, a short time ago."""
        return self._failed_at is not None and self._clock() - self._failed_at < FAILURE_REMEMBERED_SECONDS

    def put_file(self, path: Path, key: str, on_bytes: OnBytes = ignore_bytes) -> None:
        """Keep a file under a key, in the place of an object that has it; large ones go in parts."""
        if path.stat().st_size <= _AT_ONCE_BYTES:  # what hands out parts costs more than such a file itself
            self.put_bytes(path.read_bytes(), key)
            return
        with self._calling(to_bucket=True), create_transfer_manager(self._client, _TRANSFER) as manager:
            manager.upload(str(path), self._name, self._prefix + key, subscribers=[_Listener(on_bytes)]).result()

    def put_bytes(self, content: bytes, key: str) -> None:
        """The same for a few bytes."""
        with self._calling(to_bucket=True):
            self._client.put_object(Bucket=self._name, Key=self._prefix + key, Body=content)

    def get_file(self, key: str, path: Path, on_bytes: OnBytes = ignore_bytes) -> None:
        """Copy an object to a local file, whole and checked; a connection that breaks begins again, boundedly."""
        with self._calling():
            for left in reversed(range(self._options.attempts)):
                try:
                    self._copy(key, path, on_bytes)
                    break
                except BotoCoreError:
                    if left == 0:
                        raise

    def start(self, key: str, most_bytes: int) -> ObjectStart:
        """The first bytes of an object with its facts, in one call."""
        with self._calling():
            try:
                answer = self._get(key, Range=f"bytes=0-{most_bytes - 1}")
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") not in _EMPTY_RANGE:
                    raise
                return self._head(key)
            with contextlib.closing(answer["Body"]) as body:
                first = body.read()
        size = int(str(answer["ContentRange"]).rpartition("/")[2])
        return ObjectStart(first, size, str(answer["ETag"]), answer["LastModified"].timestamp())

    def facts(self, key: str) -> ObjectStart:
        """The same without any bytes."""
        with self._calling():
            return self._head(key)

    def stream(self, key: str, begin: int, etag: str) -> Any:
        """A body to `read(n)` and `close()`, from a byte on; `KeyMissing` when these bytes are not there any more.

        Reading raises what the client raises.
        """
        with self._calling():
            return self._get(key, Range=f"bytes={begin}-", IfMatch=etag)["Body"]

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            with self._calling():
                self._client.head_object(Bucket=self._name, Key=self._prefix + key)
        except KeyMissing:
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove an object; harmless when there is none."""
        with self._calling(), contextlib.suppress(KeyMissing):
            self._client.delete_object(Bucket=self._name, Key=self._prefix + key)

    def copy(self, source: str, target: str) -> None:
        """Copy an object at the server."""
        origin = {"Bucket": self._name, "Key": self._prefix + source}
        with self._calling():
            self._client.copy(origin, self._name, self._prefix + target, Config=_TRANSFER)

    def iter_objects(self, start: str) -> Iterator[FoundObject]:
        """The objects whose keys begin so."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=self._prefix + start)
        for row in self._rows(pages, "Contents"):
            yield FoundObject(str(row["Key"])[len(self._prefix) :], row["LastModified"].timestamp())

    def iter_multipart(self, start: str) -> Iterator[tuple[FoundObject, str]]:
        """Multipart uploads that were begun and not ended, each with its id at the server."""
        pager = self._client.get_paginator("list_multipart_uploads")
        for row in self._rows(pager.paginate(Bucket=self._name, Prefix=self._prefix + start), "Uploads"):
            found = FoundObject(str(row["Key"])[len(self._prefix) :], row["Initiated"].timestamp())
            yield found, str(row["UploadId"])

    def abort_multipart(self, key: str, upload_id: str) -> bool:
        """Drop a multipart upload that was not ended; False when it is gone already."""
        with self._calling():
            try:
                self._client.abort_multipart_upload(Bucket=self._name, Key=self._prefix + key, UploadId=upload_id)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in ("NoSuchUpload", "404"):
                    return False
                raise
        return True

    def sign(self, key: str, seconds: int, **answer: str) -> str:
        """An address that anybody can GET for some seconds; `answer` holds headers, as `ResponseContentType`."""
        wanted = {"Bucket": self._name, "Key": self._prefix + key, **answer}
        with self._calling():
            return str(self._signer.generate_presigned_url("get_object", Params=wanted, ExpiresIn=seconds))

    def check(self) -> None:
        """Raises `Unavailable` when the bucket cannot be used or is not there."""
        with self._calling(to_bucket=True):
            self._client.head_bucket(Bucket=self._name)

    def _get(self, key: str, **wanted: str) -> Any:
        return self._client.get_object(Bucket=self._name, Key=self._prefix + key, **wanted)

    def _head(self, key: str) -> ObjectStart:
        answer = self._client.head_object(Bucket=self._name, Key=self._prefix + key)
        return ObjectStart(b"", int(answer["ContentLength"]), str(answer["ETag"]), answer["LastModified"].timestamp())

    def _copy(self, key: str, path: Path, on_bytes: OnBytes) -> None:
        """The client checks length and checksum when it comes to the end of the body."""
        with contextlib.closing(self._get(key)["Body"]) as body, path.open("wb") as file:
            while chunk := body.read(COPY_CHUNK_BYTES):
                file.write(chunk)
                on_bytes()

    def _rows(self, pages: Any, name: str) -> Iterator[Any]:
        """The rows of a paginated answer; only the asking is translated, not what the caller does meanwhile."""
        waiting = iter(pages)
        while True:
            with self._calling(to_bucket=True):
                page = next(waiting, None)
            if page is None:
                return
            yield from page.get(name, ())

    @contextlib.contextmanager
    def _calling(self, *, to_bucket: bool = False) -> Iterator[None]:
        """Translate what a call raises, and remember how it went. What misses in a call `to_bucket` is the bucket."""
        try:
            with translated():
                yield
        except Unavailable:
            self._failed_at = self._clock()
            raise
        except KeyMissing:
            if to_bucket:
                raise unavailable() from None
            raise
        self._failed_at = None


class _Listener(BaseSubscriber):  # type: ignore[misc]  # s3transfer has no types
    """Tells of every piece of an upload; a piece that is sent again is one more."""

    def __init__(self, on_bytes: OnBytes) -> None:
        self._on_bytes = on_bytes

    def on_progress(self, future: Any, bytes_transferred: int, **kwargs: Any) -> None:
        """Called by the transfer after each quarter of a megabyte."""
        self._on_bytes()


def _client(options: S3Options, endpoint_url: str | None) -> Any:
    """A client of its own for an address: the host is part of a signature. Thread-safe."""
    config = Config(
        signature_version="s3v4",
        connect_timeout=options.connect_timeout_seconds,
        read_timeout=options.read_timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": options.attempts},
        max_pool_connections=options.connections,
        tcp_keepalive=True,
        s3={"addressing_style": options.addressing_style},
        request_checksum_calculation=options.checksums,
        response_checksum_validation=options.checksums,
    )
    return boto3.session.Session().client("s3", endpoint_url=endpoint_url, region_name=options.region, config=config)
