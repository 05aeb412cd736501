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
_KEY_PATTERN = re.compile(r"(?:(?P<name>[^:]*):)?(?:(?P<role>user|admin):)?(?P<key>[^:]*)")
_KEY_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


class ApiKey(NamedTuple):
    """One key of `API_KEY`; without a name and a role those are empty."""

    key: str
    name: str
    role: str


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


def check_secure_address(name: str, value: str) -> None:
    """Raises ValueError unless the setting `name` is a whole address, https or of this machine, without a user."""
    address = urlsplit(value)
    safe = address.scheme == "https" or (address.scheme == "http" and is_loopback_host(address.hostname or ""))
    try:
        whole = bool(address.hostname) and address.port != 0 and value.isascii() and value.isprintable()
    except ValueError:  # a port that is no number
        whole = False
    if not (safe and whole) or "@" in address.netloc:
        raise ValueError(f"{name} must be a whole address that begins with https://, without a user name")


def is_loopback_host(host: str) -> bool:
    """Whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
