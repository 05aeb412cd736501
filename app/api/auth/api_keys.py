"""API keys: compared in constant time and kept only as SHA-256 digests. Each has an owner, a name and a role."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from collections.abc import Sequence

from app.api.auth.caller import Caller, Role, derive_owner

_NAME_DIGITS = 8  # of the owner, for a key without a name


@dataclasses.dataclass(frozen=True)
class NamedKey:
    """One key as the settings give it. Without a role it is a user's if any key has a role, else an admin's."""

    key: str
    name: str = ""
    role: Role | None = None


class ApiKeys:
    """The keys of the service; none at all means that no key opens anything."""

    def __init__(self, keys: Sequence[NamedKey]) -> None:
        default = Role.USER if any(key.role for key in keys) else Role.ADMIN
        callers = [(key.key.encode(), _caller_of(key, default)) for key in keys]
        self._known = [(_digest(key), caller) for key, caller in callers]
        self._callers = {caller.owner: caller for _, caller in callers}
        self.session_secrets = {caller.owner: _digest(b"session\0" + key) for key, caller in callers}

    def __bool__(self) -> bool:
        """Whether there is any key."""
        return bool(self._known)

    def caller_of_key(self, presented: bytes) -> Caller | None:
        """The caller behind a key, or None. Takes the same time wherever and whether it matches."""
        digest, found = _digest(presented), None
        for known, caller in self._known:
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def caller_of_owner(self, owner: str) -> Caller | None:
        """The caller whose jobs carry this owner, or None when there is no such key (any more)."""
        return self._callers.get(owner)


def _caller_of(key: NamedKey, default: Role) -> Caller:
    owner = derive_owner(b"owner", key.key.encode())
    name = key.name or f"key-{owner[:_NAME_DIGITS]}"
    return Caller(owner, name, key.role or default, name)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
