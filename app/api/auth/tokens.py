"""Bearer tokens (JWT): each is checked against a shared secret or the issuer's published keys, and gives a caller.

The algorithms follow from the settings alone, never from the token. Only this module and `key_set` know PyJWT; they are
imported where tokens are accepted.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jwt

from app.api.auth.caller import CLOCK_LEEWAY_SECONDS, Caller, Role, derive_owner
from app.api.auth.sessions import token_expired
from app.errors import Unauthorized

LONGEST_TOKEN_CHARACTERS = 8192
LABEL = "token"
_LONGEST_KEY_ID_CHARACTERS = 256
_LONGEST_NAME_CHARACTERS = 80
_LATEST_END_SECONDS = 1 << 40  # of all times that a token may name; some are larger than a float can be
_NAME_CLAIMS = ("preferred_username", "email", "name")
_NAME_DIGITS = 8  # of the owner, for a user without a name
_UNPRINTABLE = re.compile(r"[^\w .@+-]")
_REQUIRED = ["exp", "iss", "aud", "sub"]


class KeySource(Protocol):
    """Where the keys come from that tokens are signed with, and which algorithms those have."""

    @property
    def algorithms(self) -> Sequence[str]:
        """All of one kind: shared or public keys, never both."""
        ...

    @property
    def problem(self) -> str | None:
        """One sentence while keys cannot be had as they should, else None."""
        ...

    async def key(self, key_id: str | None) -> Any:
        """The key of this id. Raises `Unauthorized` `wrong_token`, or `Unavailable` when keys cannot be had now."""
        ...


class SharedSecret:
    """One secret that the issuer and this service have."""

    algorithms = ("HS256",)
    problem = None

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    async def key(self, key_id: str | None) -> bytes:
        """See `KeySource`; the id does not matter."""
        return self._secret


@dataclasses.dataclass(frozen=True)
class TokenRules:
    """What a token must say.

    Attributes:
        issuer: its `iss`, to the letter.
        audience: its `aud`, or one of them.
        admin_claim: name and value of the claim that makes an admin, None when tokens make none.
    """

    issuer: str
    audience: str
    admin_claim: tuple[str, str] | None = None


class Tokens:
    """Checks tokens by rules and keys."""

    def __init__(self, rules: TokenRules, keys: KeySource) -> None:
        self._rules, self._keys = rules, keys
        self._jwt = jwt.PyJWT({"require": _REQUIRED, "enforce_minimum_key_length": True})

    @property
    def problem(self) -> str | None:
        """One sentence while tokens cannot be checked as they should, else None."""
        return self._keys.problem

    async def check(self, token: bytes) -> Caller:
        """The caller that a token stands for.

        Raises:
            Unauthorized: `token_expired`, or `wrong_token` for every other fault.
            Unavailable: `token_keys_unavailable`, the issuer's keys could never be fetched yet.
        """
        if len(token) > LONGEST_TOKEN_CHARACTERS:
            raise wrong_token()
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            claims = self._decode(token, await self._keys.key(_checked(key_id)))
        except jwt.ExpiredSignatureError:
            raise token_expired() from None
        except (jwt.InvalidTokenError, jwt.InvalidKeyError, UnicodeError):
            raise wrong_token() from None
        return self._caller_of(claims)

    def _decode(self, token: bytes, key: Any) -> dict[str, Any]:
        return self._jwt.decode(
            token,
            key,
            algorithms=list(self._keys.algorithms),
            issuer=self._rules.issuer,
            audience=self._rules.audience,
            leeway=CLOCK_LEEWAY_SECONDS,
        )

    def _caller_of(self, claims: Mapping[str, Any]) -> Caller:
        subject = claims["sub"]
        if not subject:
            raise wrong_token()
        owner = derive_owner(b"jwt", self._rules.issuer.encode(), subject.encode(errors="surrogatepass"))
        role = Role.ADMIN if _has_claim(claims, self._rules.admin_claim) else Role.USER
        return Caller(owner, _name_in(claims, owner), role, LABEL, float(min(int(claims["exp"]), _LATEST_END_SECONDS)))


def wrong_token() -> Unauthorized:
    """The error for a token that cannot be believed; it does not say why."""
    return Unauthorized("wrong_token", "This token is not valid here; sign in again, or ask whoever runs the service.")


def _checked(key_id: object) -> str | None:
    if key_id is not None and (not isinstance(key_id, str) or len(key_id) > _LONGEST_KEY_ID_CHARACTERS):
        raise wrong_token()
    return key_id


def _name_in(claims: Mapping[str, Any], owner: str) -> str:
    """What people call the user; only plain characters, since it goes into logs."""
    for claim in _NAME_CLAIMS:
        found = claims.get(claim)
        if isinstance(found, str) and (name := _UNPRINTABLE.sub("", found)[:_LONGEST_NAME_CHARACTERS].strip()):
            return name
    return f"user-{owner[:_NAME_DIGITS]}"


def _has_claim(claims: Mapping[str, Any], wanted: tuple[str, str] | None) -> bool:
    """Whether a claim is the value or lists it. Its name is one word, or a path with dots."""
    if wanted is None:
        return False
    name, value = wanted
    found: Any = claims.get(name)
    if found is None:
        found = claims
        for word in name.split("."):
            found = found.get(word) if isinstance(found, Mapping) else None
    return found == value or (isinstance(found, list) and value in found)
