"""Who is asking: keys compared in constant time, and signed session cookies that stand for a key.

Keys are kept only as SHA-256 digests. An owner is a short word derived from a key; rows carry it, and it cannot be
turned back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Sequence

from itsdangerous import BadSignature, TimestampSigner

OPEN_OWNER = "local"
COOKIE_NAME = "restore_session"
SESSION_SECONDS = 7 * 24 * 3600
_SESSION_ID_BYTES = 16


@dataclasses.dataclass(frozen=True)
class Session:
    """One sign-in in one browser."""

    id: str
    owner: str


class ApiKeys:
    """The keys of the service; none at all means that everybody who can connect may use it."""

    def __init__(self, keys: Sequence[str]) -> None:
        encoded = [key.encode() for key in keys]
        self._digests = [(_digest(key), _owner(key)) for key in encoded]
        self._ended: set[str] = set()
        # Each key signs its own sessions: taking a key away ends exactly the sessions that were opened with it.
        self._signers = {_owner(key): TimestampSigner(_digest(b"session\0" + key), salt="session") for key in encoded}

    @property
    def required(self) -> bool:
        """Whether a key is needed."""
        return bool(self._digests)

    def owner_of_key(self, presented: bytes) -> str | None:
        """The owner behind a key, or None. Takes the same time wherever and whether it matches."""
        digest, owner = _digest(presented), None
        for known, name in self._digests:
            if hmac.compare_digest(known, digest):
                owner = name
        return owner

    def sign_session(self, owner: str) -> str:
        """The value of a cookie for a new session of an owner of ours."""
        return self._signers[owner].sign(f"{owner}-{secrets.token_hex(_SESSION_ID_BYTES)}".encode()).decode()

    def session_of_cookie(self, value: str) -> Session | None:
        """The session behind a cookie, or None when it is forged, too old, ended, or its key is gone."""
        owner, _, session_id = value.partition(".")[0].partition("-")
        signer = self._signers.get(owner)
        if signer is None or not session_id or session_id in self._ended:
            return None
        try:
            signer.unsign(value, max_age=SESSION_SECONDS)
        except (BadSignature, UnicodeError):
            return None
        return Session(session_id, owner)

    def has_ended(self, session_id: str) -> bool:
        """Whether a session was signed out."""
        return session_id in self._ended

    def forget_sessions(self, session_ids: Iterable[str]) -> None:
        """These sessions have ended: their cookies open nothing any more."""
        self._ended.update(session_ids)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _owner(key: bytes) -> str:
    return hashlib.sha256(b"owner\0" + key).hexdigest()[:32]
