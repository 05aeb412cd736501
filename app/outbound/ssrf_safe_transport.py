"""Connections for the HTTP client: a host is resolved once, and only addresses that passed a check are dialled.

The resolver is not asked again between check and connection, so DNS rebinding cannot change the address; TLS still
verifies the name. How to resolve and dial are plain values, so that tests need no network.
"""

from __future__ import annotations

import dataclasses
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any, Self

import certifi
import httpcore2

from app.outbound.deadline import Deadline

CONNECT_SECONDS = 10.0
HANDSHAKE_SECONDS = 15.0
MOST_ADDRESSES_TRIED = 4
_KEEP_ALIVE_AFTER_SECONDS = 30  # a router forgets a connection that is silent while the model works

Resolve = Callable[[str, int], list[str]]
Dial = Callable[[str, int, float], socket.socket]


class AddressRefused(Exception):
    """A name leads to an address that may not be contacted."""


def resolve_by_system(host: str, port: int) -> list[str]:
    """All addresses of a host, in the system's order. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in found))


def dial_by_system(address: str, port: int, timeout_seconds: float) -> socket.socket:
    """A TCP connection to an address (no name). Raises OSError."""
    connection = socket.create_connection((address, port), timeout_seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_ALIVE_AFTER_SECONDS)
    return connection


def public_trust() -> ssl.SSLContext:
    """TLS that trusts the system's authorities and Mozilla's list (a slim container has none of its own)."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


@dataclasses.dataclass(frozen=True)
class GuardedNetwork:
    """How names are resolved, how connections are made, and which certificates are trusted."""

    resolve: Resolve = resolve_by_system
    dial: Dial = dial_by_system
    trust: ssl.SSLContext = dataclasses.field(default_factory=public_trust)


class SsrfSafeNetworkBackend(httpcore2.NetworkBackend):
    """Opens connections for one exchange; `may_contact` decides on each address that the resolver gives."""

    def __init__(self, network: GuardedNetwork, may_contact: Callable[[str], bool], deadline: Deadline) -> None:
        self._network, self._may_contact, self._deadline = network, may_contact, deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """See `httpcore2.NetworkBackend`. Raises `AddressRefused` when a single one of the addresses is not allowed."""
        addresses = self._resolved(host, port)
        if not all(self._may_contact(address) for address in addresses):
            raise AddressRefused
        for address in addresses[:MOST_ADDRESSES_TRIED]:
            self._deadline.check()
            try:
                return DeadlineStream(
                    self._network.dial(address, port, self._deadline.share(CONNECT_SECONDS)), self._deadline
                )
            except OSError:
                continue
        self._deadline.check()
        raise httpcore2.ConnectError("no address answers")

    def _resolved(self, host: str, port: int) -> list[str]:
        """Resolve in a thread of its own, since the system's resolver takes no timeout."""
        answers: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(self._network.resolve(host, port))
            except (OSError, UnicodeError):
                answers.put([])

        threading.Thread(target=ask, name="resolver", daemon=True).start()
        while True:
            self._deadline.check()
            try:
                found = answers.get(timeout=self._deadline.share())
            except queue.Empty:
                continue
            if not found:
                raise httpcore2.ConnectError("the name has no address")
            return found


class DeadlineStream(httpcore2.NetworkStream):
    """A socket that waits in slices of the deadline's time, so that slow or silent peers end with the deadline."""

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self._socket, self._deadline = connection, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """At most `max_bytes`, empty at the end; the client's own timeout counts for nothing here."""
        while True:
            self._deadline.check()
            self._socket.settimeout(self._deadline.share())
            try:
                return self._socket.recv(max_bytes)
            except TimeoutError:
                continue
            except OSError as error:
                raise httpcore2.ReadError(type(error).__name__) from None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All of the buffer."""
        left = memoryview(buffer)
        while left:
            self._deadline.check()
            self._socket.settimeout(self._deadline.share())
            try:
                left = left[self._socket.send(left) :]
            except TimeoutError:
                continue
            except OSError as error:  # the client still reads: a server may refuse before it has heard everything
                raise httpcore2.WriteError(type(error).__name__) from None

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Self:
        """Verify the certificate against the name, whatever address was dialled."""
        self._deadline.check()
        self._socket.settimeout(self._deadline.share(HANDSHAKE_SECONDS))
        try:
            self._socket = ssl_context.wrap_socket(self._socket, server_hostname=server_hostname)
        except OSError as error:  # ssl.SSLError is one
            self.close()
            self._deadline.check()
            raise httpcore2.ConnectError(type(error).__name__) from None
        return self

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        """What the client asks of a stream."""
        if info == "ssl_object" and isinstance(self._socket, ssl.SSLSocket):
            return self._socket
        return False if info == "is_readable" else None
