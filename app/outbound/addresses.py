"""Which addresses may be contacted: the form of the URL, the host's name, and every address behind it.

A provider's answer or a user names the URL, so it is not to be trusted: a name must be on a list, and no name may lead
to this machine or its network. Nothing is resolved or connected here.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit

MAX_URL_CHARACTERS = 4096

# One strict form instead of a parser: no user name, no other port, no fragment, no backslash, no byte beyond ASCII, so
# that nobody can read another host in it than we do.
_URL = re.compile(
    r"https://(?P<host>[a-z0-9.-]{4,253})(?::443)?(?P<target>/[a-z0-9._~!$&'()*+,;=:@/?%-]*)", re.IGNORECASE
)
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")

_V4_CLOSED = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared between provider and customers (Alibaba's metadata service lies here)
        "127.0.0.0/8",  # this machine
        "168.63.129.16/32",  # Azure's platform address, which looks public
        "169.254.0.0/16",  # link-local (most metadata services)
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments (Oracle's metadata service)
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_V6_OPEN = ipaddress.IPv6Network("2000::/3")  # global unicast; all else is local, mapped or unassigned
_V6_CLOSED = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "3fff::/20",  # documentation
    )
)
# Endings of names that only a local network knows (RFC 2606, 6761, 6762, 8375, and what routers and clusters use).
_LOCAL_ENDINGS = frozenset(
    "arpa corp example home internal intranet invalid lan local localdomain localhost test".split()  # noqa: SIM905
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # how a host without IPv4 reaches IPv4
_ISATAP = (b"\0\0\x5e\xfe", b"\2\0\x5e\xfe")  # an IPv4 address in the lower half of any prefix


@dataclasses.dataclass(frozen=True)
class ResultAddress:
    """A URL that may be fetched: the host as named, in lower case, and path with query."""

    host: str
    target: str


def read_url(url: str, hosts: Collection[str]) -> ResultAddress | None:
    """The address in a URL, or None when it is not plain https to port 443 of a listed host.

    `hosts` are names, or `*.name` for every host below name.
    """
    found = _URL.fullmatch(url) if len(url) <= MAX_URL_CHARACTERS else None
    if found is None:
        return None
    host = found["host"].lower()
    if not _HOST.fullmatch(host) or not any(_is_listed(host, pattern) for pattern in hosts):
        return None
    return ResultAddress(host, found["target"])


def is_public(address: str) -> bool:
    """Whether an IP address, as a resolver writes it, is of the public internet and no disguise of another one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in _V4_CLOSED)
    if parsed.scope_id is not None:
        return False
    if parsed in _NAT64:
        return is_public(str(ipaddress.IPv4Address(parsed.packed[12:])))
    if parsed.packed[8:12] in _ISATAP:
        return False
    return parsed in _V6_OPEN and not any(parsed in network for network in _V6_CLOSED)


def is_public_origin(origin: str) -> bool:
    """Whether an origin such as https://s3.example.com can be one of the public internet, by its form alone.

    It must be https with a host name of several parts under a public ending, or an address that `is_public` accepts.
    """
    address = urlsplit(origin)
    host = (address.hostname or "").lower()
    if address.scheme != "https":
        return False
    if ":" in host or host.replace(".", "").isdigit():
        return is_public(host)
    return bool(_HOST.fullmatch(host)) and host.rpartition(".")[2] not in _LOCAL_ENDINGS


def _is_listed(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return host == pattern
