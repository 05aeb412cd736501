"""What single values of the settings may be: keys with names and roles, addresses, hosts.

Plain checks that raise ValueError with a sentence for people; `settings` calls them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

MIN_KEY_CHARACTERS = 16
MOST_PORT = 65_535
LEAST_TILE_PIXELS = 32  # as the restoration has it, which is not imported for this
ORIGIN_PATTERN = re.compile(r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?/?", re.IGNORECASE)
_USUAL_PORT = re.compile(r"(http://.*):80|(https://.*):443")
HOST_PATTERN = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*")
# An address by its parts. What is wrong with the host or the port is found in them; other addresses have neither.
_REST = r"(?P<host>\[[^\]/?#]*\]|[^:/?#]*)(?::(?P<port>[^/?#]*))?(?:[/?#].*)?"
_ADDRESS = re.compile(rf"[^:/?#]+://(?:[^:/?#]*(?::(?P<password>[^/?#]*))?@)?{_REST}", re.DOTALL)
# SQLAlchemy takes every sign but @ in a password.
_DATABASE = re.compile(rf"[^:/?#]+://(?:[^:/]*(?::(?P<password>[^@]*))?@)?{_REST}", re.DOTALL)
_NO_ADDRESSES = frozenset(("jwt_issuer", "jwt_audience", "jwt_admin_claim"))  # words that only look like them
_KEY_PATTERN = re.compile(r"(?:(?P<name>[^:]*):)?(?:(?P<role>user|admin):)?(?P<key>[^:]*)")
_KEY_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
# Settings of one form: what they must match when they are not empty, and the sentence for what does not.
_FORMS = {
    "rate_limit": (
        r"(?i)\s*(0|[1-9][0-9]{0,8}\s*(/|per)\s*([1-9][0-9]{0,3}\s*)?(second|minute|hour|day|month|year)s?)\s*",
        "RATE_LIMIT must be like 600/minute, 10/second, or 0 for no limit",
    ),
    "jwt_admin_claim": (r"[^=]+=.+", "JWT_ADMIN_CLAIM must be claim=value, such as realm_access.roles=restore-admin"),
    "clamd_url": (
        r"tcp://(\[[0-9a-f:]+\]|[A-Za-z0-9._-]+):[1-9][0-9]{0,4}|(unix://)?/[^\s\0?#]{1,100}",
        "CLAMD_URL must be tcp://host:port, or the absolute path of clamd's socket",
    ),
    "broker_url": (
        r"rediss?://([^\s/?#]*@)?(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[^\s]*)?",
        "BROKER_URL must be the address of a Redis server, as redis://:PASSWORD@HOST:6379/0",
    ),
    "storage_url": (
        r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.\.?(/|$))[A-Za-z0-9_.-]{1,100}){0,8}/?",
        "STORAGE_URL must be s3://bucket or s3://bucket/prefix, without a key or an address",
    ),
    "webhook_secrets": (
        r"whsec_(([A-Za-z0-9+/]{4}){8,21}([A-Za-z0-9+/]{2}==)?|([A-Za-z0-9+/]{4}){8,20}[A-Za-z0-9+/]{3}=)",
        'WEBHOOK_SECRET must be whsec_ and 24 to 64 bytes in base64: echo "whsec_$(openssl rand -base64 32)"',
    ),
    "otel_exporter_otlp_endpoint": (
        r"(?i)https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?(/.*)?",
        "OTEL_EXPORTER_OTLP_ENDPOINT must be an address such as http://127.0.0.1:4318",
    ),
}


class ApiKey(NamedTuple):
    """One key of `API_KEY`; without a name and a role those are empty."""

    key: str
    name: str
    role: str


def check_form(name: str, value: str) -> None:
    """Raises ValueError unless the value of the setting `name` is empty or has its form."""
    pattern, sentence = _FORMS[name]
    if value and not re.fullmatch(pattern, value):
        raise ValueError(sentence)


def check_tile(pixels: int) -> None:
    """Raises ValueError for a side of a tile that no network of ours is cut to; 0 leaves the choice to us."""
    if 0 < pixels < LEAST_TILE_PIXELS:
        raise ValueError(f"TILE_SIZE must be 0, or at least {LEAST_TILE_PIXELS} pixels")


def check_addresses(name: str, value: object) -> None:
    """Raises ValueError for an address among the values of the setting `name` that nothing can be reached at.

    That is a port that does not exist, or brackets around what is no IPv6 address. What is no address passes.
    """
    if name in _NO_ADDRESSES:
        return
    for one in value if isinstance(value, tuple) else (value,):
        found = _parts_of(name, one) if isinstance(one, str) else None
        if found is not None:
            _check_host(name, found["host"])
            _check_port(name, found["port"])


def password_in(name: str, address: str) -> str:
    """The password in the address of the setting `name`, as it stands there; empty when there is none."""
    found = _parts_of(name, address)
    return (found["password"] or "") if found is not None else ""


def _parts_of(name: str, address: str) -> re.Match[str] | None:
    return (_DATABASE if name == "database_url" else _ADDRESS).fullmatch(address)


def _check_host(name: str, host: str) -> None:
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            sentence = f"{name.upper()} has no IPv6 address in its brackets; write one as in [::1]"
            raise ValueError(sentence) from None


def _check_port(name: str, port: str | None) -> None:
    """An empty one means the usual one."""
    if port and not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= MOST_PORT):
        raise ValueError(f"{name.upper()} has a port that does not exist; ports are 1 to {MOST_PORT}")


def web_origins(name: str, values: Sequence[str]) -> tuple[str, ...]:
    """Origins as browsers name them, in small letters and without a slash or the usual port; * for any.

    Raises ValueError for a value of the setting `name` that no page can have as its origin.
    """
    if not all(value == "*" or ORIGIN_PATTERN.fullmatch(value) for value in values):
        raise ValueError(f"{name} must be origins such as https://photos.example.org, without a path, or *")
    plain = [value.lower().rstrip("/") for value in values]
    with_usual_port = [_USUAL_PORT.fullmatch(value) for value in plain]
    return tuple(found[1] or found[2] if found else value for value, found in zip(plain, with_usual_port, strict=True))


def check_networks(name: str, values: Sequence[str]) -> None:
    """Raises ValueError unless the values of the setting `name` are addresses or networks, or * for any."""
    for value in values:
        try:
            _ = value == "*" or ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise ValueError(f"{name} must be addresses such as 127.0.0.1 or networks such as 172.18.0.0/16") from None


def split_key(entry: str) -> ApiKey:
    """`key`, `name:key` or `name:role:key`. Raises ValueError with a plain sentence."""
    found = _KEY_PATTERN.fullmatch(entry)
    name = found["name"] if found else ""
    if found is None or (name is not None and not _KEY_NAME_PATTERN.fullmatch(name)):
        raise ValueError(
            "API_KEY must be keys, name:key or name:role:key: names of letters, digits, dots and dashes (at most 32), "
            "the roles user and admin, and no colon in a key"
        )
    return ApiKey(found["key"], name or "", found["role"] or "")


def check_keys(keys: Sequence[ApiKey]) -> None:
    """Raises ValueError for a short key, for a name of two keys, and for two names of one key."""
    if any(len(entry.key) < MIN_KEY_CHARACTERS for entry in keys):
        raise ValueError(f"API_KEY must have at least {MIN_KEY_CHARACTERS} characters; make one: openssl rand -hex 32")
    names = [entry.name for entry in set(keys) if entry.name]
    if len(set(names)) < len(names):
        raise ValueError("API_KEY names two keys alike; give each a name of its own")
    if len({entry.key for entry in keys}) < len(set(keys)):
        raise ValueError("API_KEY holds one key with two names or roles; take one of them out")


def check_tokens(issuer: str, audience: str, admin_claim: str, *, by_secret: bool, by_key_set: bool) -> None:
    """Raises ValueError unless the settings of tokens go together; either a secret or a key set says who signs them."""
    if by_secret and by_key_set:
        raise ValueError("JWT_SECRET and JWT_JWKS_URL exclude each other: the issuer signs in one way; clear one")
    if (by_secret or by_key_set) and not (issuer and audience):
        raise ValueError("tokens need JWT_ISSUER and JWT_AUDIENCE, so that those for other services are refused")
    if not (by_secret or by_key_set) and (issuer or audience or admin_claim):
        raise ValueError("JWT_ISSUER, JWT_AUDIENCE and JWT_ADMIN_CLAIM need JWT_SECRET or JWT_JWKS_URL beside them")


def open_to_strangers(cors_origins: Sequence[str], is_loopback: bool) -> str | None:
    """Why a service without keys and tokens must not listen with these settings, in a sentence; None where it may."""
    if "*" in cors_origins:
        return "CORS_ORIGINS=* lets every web page in, so API_KEY must be set; or name the origins"
    if not is_loopback:
        return "HOST is not a loopback address, so API_KEY must be set; make one: openssl rand -hex 32"
    return None


def check_secure_address(name: str, value: str) -> None:
    """Raises ValueError unless the setting `name` is a whole address, https or of this machine, without a user."""
    try:
        address = urlsplit(value)
        safe = address.scheme == "https" or (address.scheme == "http" and is_loopback_host(address.hostname or ""))
    except ValueError:  # brackets that hold no IPv6 address
        safe = False
    whole = safe and bool(address.hostname) and value.isascii() and value.isprintable()
    if not whole or "@" in address.netloc:
        raise ValueError(f"{name} must be a whole address that begins with https://, without a user name")


def is_loopback_host(host: str) -> bool:
    """Whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def usual_file_megabytes(alone: bool) -> int:
    """Size limit of one upload where none is set; `alone` means that no other machine can reach the service."""
    return 100 if alone else 10
