"""Signed session cookies that stand for a key or a token in a browser.

A session of a key is signed with that key, so that taking the key away ends exactly its sessions. One of a token
carries who it is for, since nothing else is known of that user later, and ends with the token.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterable

from itsdangerous import BadSignature, TimestampSigner

from app.api.auth.api_keys import ApiKeys
from app.api.auth.caller import Caller, Role
from app.errors import Unauthorized

COOKIE_NAME = "restore_session"
SESSION_SECONDS = 7 * 24 * 3600
_SESSION_ID_BYTES = 16
_BY_JWT = "jwt"


@dataclasses.dataclass(frozen=True)
class Session:
    """One sign-in in one browser; `ends_at` (epoch seconds) is never put off."""

    id: str
    caller: Caller
    ends_at: float


class Sessions:
    """Opens and reads sessions.

    Args:
        keys: whose sessions there can be.
        secret: mixed into what signs, the same on all servers; may be empty where there are keys only.
        token_issuer: whose tokens are exchanged for sessions; None: nobody's. Without a secret those end with the
            process.
    """

    def __init__(self, keys: ApiKeys, secret: str = "", token_issuer: str | None = None) -> None:
        self._keys = keys
        self._ended: set[str] = set()
        self._signers = {owner: _signer(_mixed(secret, own)) for owner, own in keys.session_secrets.items()}
        if token_issuer is not None:
            issuer = hashlib.sha256(token_issuer.encode()).digest()
            self._signers[_BY_JWT] = _signer(_mixed(secret or secrets.token_hex(), issuer))

    def open(self, caller: Caller) -> tuple[str, int]:
        """The value of a cookie for a new session, and its life in seconds.

        Raises `Unauthorized` `token_expired` when the caller's token has just ended.
        """
        session_id, kind = secrets.token_hex(_SESSION_ID_BYTES), caller.owner
        content, life = session_id, SESSION_SECONDS
        if caller.expires_at is not None:
            kind, content = _BY_JWT, _encoded(session_id, caller)
            life = min(SESSION_SECONDS, int(caller.expires_at - time.time()))
            if life <= 0:
                raise token_expired()
        return self._signers[kind].sign(f"{kind}-{content}".encode()).decode(), life

    def find(self, cookie: str) -> Session | None:
        """The session behind a cookie, or None when it is forged, too old, ended, or its key is gone."""
        kind, _, content = cookie.partition(".")[0].partition("-")
        signer = self._signers.get(kind)
        if signer is None or not content:
            return None
        try:
            _, signed = signer.unsign(cookie, max_age=SESSION_SECONDS, return_timestamp=True)
        except (BadSignature, UnicodeError):
            return None
        ends_at = signed.timestamp() + SESSION_SECONDS
        session = _decoded(content, ends_at) if kind == _BY_JWT else self._of_key(kind, content, ends_at)
        return None if session is None or session.id in self._ended else session

    def has_ended(self, session_id: str) -> bool:
        """Whether a session was signed out."""
        return session_id in self._ended

    def forget(self, session_ids: Iterable[str]) -> None:
        """These sessions have ended: their cookies open nothing any more."""
        self._ended.update(session_ids)

    def _of_key(self, owner: str, session_id: str, ends_at: float) -> Session | None:
        caller = self._keys.caller_of_owner(owner)
        return None if caller is None else Session(session_id, caller, ends_at)


def token_expired() -> Unauthorized:
    """The error for a token that was good once."""
    return Unauthorized("token_expired", "This token has expired; fetch a new one where you signed in.")


def _signer(secret: bytes) -> TimestampSigner:
    return TimestampSigner(secret, salt="session")


def _mixed(secret: str, own: bytes) -> bytes:
    return hmac.digest(secret.encode(), own, "sha256") if secret else own


def _encoded(session_id: str, caller: Caller) -> str:
    """Nothing secret: the browser's user knows all of it."""
    facts = [session_id, caller.owner, caller.name, caller.role.value, caller.label, caller.expires_at]
    return base64.urlsafe_b64encode(json.dumps(facts).encode()).decode().rstrip("=")


def _decoded(content: str, ends_at: float) -> Session | None:
    """What `_encoded` wrote, as the signature proves; None after the end of the token, and for another version's."""
    padded = content + "=" * (-len(content) % 4)
    try:
        session_id, owner, name, role, label, expires_at = json.loads(base64.urlsafe_b64decode(padded))
        session = Session(session_id, Caller(owner, name, Role(role), label, expires_at), min(ends_at, expires_at))
        return session if time.time() < expires_at else None
    except (ValueError, TypeError):
        return None
