"""One HTTP request and its answer, once: no redirect is followed, nothing sent twice, nothing read beyond a limit.

It turns everything that can go wrong on a connection into our errors.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping

import httpcore2

from app.backends.siliconflow import failures
from app.outbound.deadline import Deadline, DeadlineExceeded
from app.outbound.ssrf_safe_transport import AddressRefused, GuardedNetwork, SsrfSafeNetworkBackend

log = logging.getLogger(__name__)

_CONNECTION_ERRORS = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol, OSError)


class BodyTooLarge(Exception):
    """A body is larger than it may be."""


class Answer:
    """Status, headers and body of an answer; the body is read piece by piece, and only up to a limit."""

    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response
        self.status = response.status
        self._headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}

    def header(self, name: str) -> str:
        """A header's value, empty when it is not there."""
        return self._headers.get(name.lower().encode(), "")

    def pieces(self, limit_bytes: int) -> Iterator[bytes]:
        """The body. Raises `BodyTooLarge` before more than the limit is given out, or when a header says more."""
        announced = self.header("content-length")
        if announced.isdecimal() and int(announced[:20]) > limit_bytes:
            raise BodyTooLarge
        count = 0
        for piece in self._response.iter_stream():
            count += len(piece)
            if count > limit_bytes:
                raise BodyTooLarge
            yield piece


@contextlib.contextmanager
def exchange(
    network: GuardedNetwork,
    may_contact: Callable[[str], bool],
    deadline: Deadline,
    method: str,
    url: httpcore2.URL,
    headers: Mapping[str, str],
    content: bytes | None = None,
) -> Iterator[Answer]:
    """Send one request over a connection of its own; the answer lives as long as the block.

    Raises:
        RestoreError: `provider_timeout` or `provider_unavailable`, also from inside the block.
        AddressRefused: an address of the host may not be contacted.
        Cancelled: the deadline's caller wants no more.
    """
    connections = SsrfSafeNetworkBackend(network, may_contact, deadline)
    try:
        with (
            httpcore2.ConnectionPool(network.trust, max_connections=1, network_backend=connections) as pool,
            pool.stream(method, url, headers=list(headers.items()), content=content) as response,
        ):
            yield Answer(response)
    except DeadlineExceeded:
        raise failures.timeout() from None
    except AddressRefused:
        raise
    except _CONNECTION_ERRORS as error:  # its text may hold what was sent, so only its kind is told
        log.warning("the connection to %s failed: %s", url.host.decode("ascii"), type(error).__name__)
        raise failures.unavailable() from None
