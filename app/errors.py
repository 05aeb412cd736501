"""Every error a user can meet: a stable code, an HTTP status and one plain sentence that says what to do.

The classes are families to catch; the status of an error stands in the table of `error_codes`, under its code.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from app.error_codes import facts_of

_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN))
_LONGEST_CAUSE_CHAIN = 10


class RestoreError(Exception):
    """An expected failure.

    Attributes:
        code: stable machine word, for example ``image_too_large``. Never renamed once released.
        status: the HTTP status a client sees, by the table of `error_codes`; a family has that of its members.
        detail: one plain sentence, what happened and what to do. Never a path, a version or a trace.
        retry_after_seconds: when the same request may work again, or None.
        members: further facts for whoever shows the error, JSON-ready.
    """

    status = 500
    members: Mapping[str, Any] = {}

    def __init__(self, code: str, detail: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.status = facts_of(code).status
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class BadRequest(RestoreError):
    """400: the request itself cannot be read."""

    status = 400


class Unauthorized(RestoreError):
    """401: the key is missing or wrong."""

    status = 401


class Forbidden(RestoreError):
    """403: understood, and refused."""

    status = 403


class NotFound(RestoreError):
    """404: unknown, expired, or somebody else's."""

    status = 404


class Conflict(RestoreError):
    """409: not possible in the present state."""

    status = 409


class TooLarge(RestoreError):
    """413: a file, picture or batch over a limit."""

    status = 413


class UnsupportedFormat(RestoreError):
    """415: not a picture format that we open."""

    status = 415


class Unprocessable(RestoreError):
    """422: a broken picture, or an option out of bounds."""

    status = 422


class TooManyRequests(RestoreError):
    """429: this client's share is used up."""

    status = 429


class Internal(RestoreError):
    """500: our fault; the log says more under the request id."""

    status = 500


class Unavailable(RestoreError):
    """503: full, draining or not ready; the same request may work later."""

    status = 503


class BadGateway(RestoreError):
    """502: a provider that we asked gave an answer that cannot be used."""

    status = 502


class GatewayTimeout(RestoreError):
    """504: a provider that we asked did not answer in time."""

    status = 504


class InsufficientStorage(RestoreError):
    """507: the owner's share of what may be kept is used up."""

    status = 507


class OutOfMemory(Unavailable):
    """503: the smallest tile does not fit the device's memory."""


class DeviceLost(Exception):
    """The graphics card computes no more in this process: the photo goes back to the queue, and the process ends."""


class Cancelled(Exception):
    """Not an error: whoever listens to the progress asked to stop."""


def file_error(error: OSError) -> Internal:
    """`file_error`: what the commands say when a photo or its result fails on the disk; without its path."""
    return Internal("file_error", f"The file could not be read or written: {error.strerror}")


def is_exhaustion(error: BaseException) -> bool:
    """Whether it, or what caused it, is this process running out of descriptors, threads or the kernel's memory.

    Such an error says nothing about the photo or request at which it happened.
    """
    seen: BaseException | None = error
    for _ in range(_LONGEST_CAUSE_CHAIN):
        if seen is None:
            return False
        if isinstance(seen, OSError) and seen.errno in _EXHAUSTED:
            return True
        if isinstance(seen, RuntimeError) and str(seen).startswith("can't start new thread"):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
