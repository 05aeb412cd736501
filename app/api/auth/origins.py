"""Which web pages and host names may talk to the service: the shield against other pages in a user's own browser.

A browser always says truthfully which host it thinks it talks to and which page sent it. This module reads those
headers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from app.errors import BadRequest, Forbidden

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))


class Origins:
    """The allow-lists, origins as browsers send them; `any_host` is for services with a key behind unknown names."""

    def __init__(self, allowed_hosts: Sequence[str], cors_origins: Sequence[str], any_host: bool) -> None:
        self._hosts = {host.lower() for host in allowed_hosts}
        self._origins = frozenset(cors_origins)
        self._any_host = any_host

    def check_host(self, headers: Headers) -> None:
        """Refuse a name that is not ours: another page's name may have been pointed at this machine (DNS rebinding).

        Raises `BadRequest` `host_not_allowed`.
        """
        if self._any_host:
            return
        name = _host_name(headers.get("host", ""))
        if name not in self._hosts and not _is_loopback(name):
            raise BadRequest(
                "host_not_allowed", "This host name is not served here; the operator can add it to ALLOWED_HOSTS."
            )

    def check_page(self, headers: Headers) -> None:
        """Refuse what another web page sent through the user's browser. Raises `Forbidden` `foreign_origin`."""
        if self._has_foreign_origin(headers) or (
            "origin" not in headers and headers.get("sec-fetch-site") == "cross-site"
        ):
            raise Forbidden(
                "foreign_origin",
                "Another web page may not do this here; the operator can add its origin to CORS_ORIGINS.",
            )

    def is_foreign(self, headers: Headers) -> bool:
        """Whether another web page made the browser ask, be it only for an image (which names no origin)."""
        if "origin" in headers:
            return self._has_foreign_origin(headers)
        return headers.get("sec-fetch-site") in ("cross-site", "same-site")

    def _has_foreign_origin(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None or origin in self._origins:
            return False
        return not _same_place(origin, headers.get("host", ""))


def _same_place(origin: str, host: str) -> bool:
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """The name without its port: `[::1]:8001` gives `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
