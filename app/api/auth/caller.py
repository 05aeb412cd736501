"""Who is asking: the owner of jobs behind a key or token, with a name for people and a role.

An owner is a short word that cannot be turned back into what it was derived from; rows carry it.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib

CLOCK_LEEWAY_SECONDS = 30  # by which the clock of a token's issuer may differ from ours
_OWNER_CHARACTERS = 32


class Role(enum.StrEnum):
    """What a caller may do; `admin` also loads models and sees figures over all owners."""

    USER = "user"
    ADMIN = "admin"


@dataclasses.dataclass(frozen=True)
class Caller:
    """One who may come.

    Attributes:
        owner: whose jobs these are, 32 hex characters (`local` where nobody is told apart).
        name: for logs and the page; never a key or token.
        role: what the caller may do.
        label: for metrics: the name of a key, or `token` for all users with tokens, so that there are few.
        expires_at: epoch seconds at which the token that proved this ends; None for a key.
    """

    owner: str
    name: str
    role: Role
    label: str
    expires_at: float | None = None

    @property
    def is_admin(self) -> bool:
        """Whether the caller may do everything."""
        return self.role is Role.ADMIN


OPEN_CALLER = Caller("local", "local", Role.ADMIN, "local")  # everybody, where no key and no token is asked for


def derive_owner(kind: bytes, *words: bytes) -> str:
    """The owner behind words that together name one user; `kind` keeps keys and tokens apart."""
    return hashlib.sha256(b"\0".join((kind, *words))).hexdigest()[:_OWNER_CHARACTERS]
