"""Fetching the provider's result: one GET to a listed public host, bounded in time and size, decoded like an upload.

The file is opened in the decoder's child process only.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import BinaryIO

import httpcore2

from app.backends.siliconflow import failures
from app.backends.siliconflow.exchange import Answer, BodyTooLarge, exchange
from app.errors import Internal, RestoreError, Unavailable
from app.images import Picture
from app.outbound.addresses import ResultAddress, is_public, read_url
from app.outbound.deadline import Deadline
from app.outbound.ssrf_safe_transport import AddressRefused, GuardedNetwork

log = logging.getLogger(__name__)

MAX_RESULT_BYTES = 64 * 1024 * 1024
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "neural-image-restore"}
_RETRYABLE = (429, 500, 502, 503)  # the store's trouble, not a missing file

Decode = Callable[[Path], Picture]


def fetch_result(
    url: str,
    hosts: Collection[str],
    network: GuardedNetwork,
    deadline: Deadline,
    decode: Decode,
    scratch: Path,
) -> Picture:
    """The picture behind the URL; `scratch` is a fresh file name, removed by the caller.

    Raises:
        RestoreError: `provider_result_refused`, `provider_result_missing`, `provider_unavailable`,
            `provider_timeout`, or the decoder's `shutting_down` when the service stops.
        Cancelled: the deadline's caller wants no more.
    """
    address = read_url(url, hosts)
    if address is None:
        log.warning("a result was not fetched: its address is not https to a host of SILICONFLOW_RESULT_HOSTS")
        raise failures.result_refused()
    _fetch(address, network, deadline, scratch)
    return _decoded(scratch, decode)


def _fetch(address: ResultAddress, network: GuardedNetwork, deadline: Deadline, scratch: Path) -> None:
    target = httpcore2.URL(
        scheme=b"https", host=address.host.encode("ascii"), port=None, target=address.target.encode("ascii")
    )
    try:
        with exchange(network, is_public, deadline, "GET", target, _HEADERS) as answer:
            if answer.status != 200:
                log.warning("the result at %s answered %d", address.host, answer.status)
                raise _refusal(answer.status)
            _write(answer, scratch)
    except AddressRefused:
        log.warning("a result was not fetched: %s does not lead to public addresses only", address.host)
        raise failures.result_refused() from None
    except BodyTooLarge:
        log.warning("the result at %s is larger than %d bytes", address.host, MAX_RESULT_BYTES)
        raise failures.result_refused() from None


def _refusal(status: int) -> RestoreError:
    if 300 <= status <= 399:
        return failures.result_refused()
    if status in (408, 504):
        return failures.timeout()
    return failures.unavailable() if status in _RETRYABLE else failures.result_missing()


def _write(answer: Answer, scratch: Path) -> None:
    with _translate_disk_error():
        handle = os.open(scratch, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb", buffering=0) as file:
        for piece in answer.pieces(MAX_RESULT_BYTES):
            with _translate_disk_error():
                _write_whole(file, piece)


def _write_whole(file: BinaryIO, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[file.write(left) :]


@contextlib.contextmanager
def _translate_disk_error() -> Iterator[None]:
    """A full disk as `storage_full`, so that the connection, read in the same block, is not blamed for it."""
    try:
        yield
    except OSError as error:
        log.error("the result could not be written: %s", error.strerror)
        raise Unavailable(
            "storage_full",
            "There was no room for the provider's result, which may have been charged; ask the operator to free some.",
        ) from None


def _decoded(scratch: Path, decode: Decode) -> Picture:
    """Decode with the limits of an upload, whose sentences speak of the user's own photo, so ours replace them."""
    try:
        return decode(scratch)
    except (Internal, Unavailable):  # of ours, not of the picture
        raise
    except RestoreError as error:
        log.warning("the provider's result cannot be opened: %s", error.code)
        raise failures.result_refused() from None
