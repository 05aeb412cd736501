"""Which addresses may be told of a job's end: public https hosts, those of a list, and origins that the operator named.

A user names the URL, so it is not to be trusted; nothing is resolved or connected here.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from app.errors import Unprocessable
from app.outbound.addresses import MAX_URL_CHARACTERS, read_url

_TARGET = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*")


@dataclasses.dataclass(frozen=True)
class WebhookAddress:
    """Where a webhook goes. `trusted`: the operator named this very origin, so what lies behind it is not checked."""

    scheme: str
    host: str
    port: int
    target: str
    trusted: bool


class WebhookAddresses:
    """The rule for URLs of webhooks.

    `allowed` are names of hosts, `*.name` for every host below name, and whole origins (`http://hooks.lan:8080`), which
    may be plain http or lie in a private network. Empty: any public host.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._origins = tuple(one for one in allowed if "://" in one)
        self._hosts = tuple(one for one in allowed if "://" not in one)
        self._any_host = not allowed

    def check(self, url: str) -> WebhookAddress:
        """The address in a URL. Raises `Unprocessable` `webhook_refused`."""
        address = self._of_origin(url) or self._of_host(url)
        if address is None:
            raise Unprocessable(
                "webhook_refused",
                "webhook_url must be a plain https:// address of a public host that this service may tell "
                "(WEBHOOK_HOSTS), without a user name, another port or a fragment.",
            )
        return address

    def _of_origin(self, url: str) -> WebhookAddress | None:
        """One of the operator's own origins: compared letter by letter, so that nobody can read another host in it."""
        origin = next((one for one in self._origins if url == one or url.startswith(f"{one}/")), None)
        if origin is None or len(url) > MAX_URL_CHARACTERS:
            return None
        target = url[len(origin) :] or "/"
        if not _TARGET.fullmatch(target):
            return None
        parts = urlsplit(origin)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return WebhookAddress(parts.scheme, parts.hostname or "", port, target, trusted=True)

    def _of_host(self, url: str) -> WebhookAddress | None:
        if url.count("/") == 2:  # https://host without a path
            url += "/"
        if self._any_host:
            host = url.removeprefix("https://").partition("/")[0].partition(":")[0].lower()
            found = read_url(url, (host,))
        else:
            found = read_url(url, self._hosts)
        return None if found is None else WebhookAddress("https", found.host, 443, found.target, trusted=False)
