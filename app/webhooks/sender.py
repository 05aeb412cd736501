"""One POST to a webhook's address over a guarded connection: no redirect is followed, no body of an answer read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import httpcore2

from app.outbound.addresses import is_public
from app.outbound.deadline import Deadline, DeadlineExceeded
from app.outbound.ssrf_safe_transport import AddressRefused, GuardedNetwork, SsrfSafeNetworkBackend
from app.webhooks.addresses import WebhookAddress

log = logging.getLogger(__name__)

SEND_SECONDS = 15.0  # for everything: resolving, connecting, sending and the answer's head
_CONNECTION_ERRORS = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol, OSError)


class NotDelivered(Exception):
    """The receiver was not reached. `reason` is one of `refused_address`, `timeout` and `unreachable`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class WebhookSender:
    """Sends, each over a connection of its own. Usable from any thread."""

    def __init__(self, network: GuardedNetwork, seconds: float = SEND_SECONDS) -> None:
        self._network, self._seconds = network, seconds

    def send(
        self, address: WebhookAddress, headers: Mapping[str, str], body: bytes, keep_on: Callable[[], bool]
    ) -> int:
        """The status of the receiver's answer. `keep_on` is asked twice a second.

        Raises:
            NotDelivered: there is none.
            Cancelled: `keep_on` said False.
        """
        may_contact = (lambda _: True) if address.trusted else is_public
        deadline = Deadline(self._seconds, keep_on)
        connections = SsrfSafeNetworkBackend(self._network, may_contact, deadline)
        url = httpcore2.URL(
            scheme=address.scheme.encode(),
            host=address.host.encode("ascii"),
            port=address.port,
            target=address.target.encode("ascii"),
        )
        sent = {"Host": _host_header(address), "Content-Length": str(len(body)), **headers}
        try:
            with (
                httpcore2.ConnectionPool(self._network.trust, max_connections=1, network_backend=connections) as pool,
                pool.stream("POST", url, headers=list(sent.items()), content=body) as response,
            ):
                return int(response.status)
        except DeadlineExceeded:
            raise NotDelivered("timeout") from None
        except AddressRefused:
            raise NotDelivered("refused_address") from None
        except _CONNECTION_ERRORS as error:  # its text may hold what was sent, so only its kind is told
            log.info("the webhook's host %s was not reached: %s", address.host, type(error).__name__)
            raise NotDelivered("unreachable") from None


def _host_header(address: WebhookAddress) -> str:
    usual = {"https": 443, "http": 80}[address.scheme]
    host = f"[{address.host}]" if ":" in address.host else address.host
    return host if address.port == usual else f"{host}:{address.port}"
