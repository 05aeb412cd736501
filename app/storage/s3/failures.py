"""What the S3 client raises, as errors of ours: missing, full, or not to be had just now."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from app.errors import Unavailable

log = logging.getLogger(__name__)

RETRY_SECONDS = 10
_FULL_RETRY_SECONDS = 60
_MISSING = frozenset(("404", "NoSuchKey", "NotFound", "412", "PreconditionFailed"))
_FULL = frozenset(("507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XAmzStorageFull"))


class KeyMissing(Exception):
    """The bucket has no such object (any more), or another one in its place."""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what the client raises inside the block into `KeyMissing`, or `Unavailable` with a code of ours."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _MISSING:
            raise KeyMissing from error
        log.warning("the S3 server refused: %s", error)
        raise full() if code in _FULL else unavailable() from error
    except (BotoCoreError, Boto3Error) as error:
        log.warning("the S3 server could not be asked: %s", error)
        raise unavailable() from error


def unavailable() -> Unavailable:
    """`storage_unavailable`."""
    return Unavailable(
        "storage_unavailable",
        "The server that keeps the photos cannot be used just now; try again in a moment.",
        retry_after_seconds=RETRY_SECONDS,
    )


def full() -> Unavailable:
    """`storage_full`."""
    return Unavailable(
        "storage_full",
        "The server that keeps the photos takes no more; try again later or ask the operator to free some space.",
        retry_after_seconds=_FULL_RETRY_SECONDS,
    )
