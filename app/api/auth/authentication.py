"""Who is asking, by whatever a request brings: a key, a token or a session cookie."""

from __future__ import annotations

from typing import Protocol

from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from app.api.auth.api_keys import ApiKeys
from app.api.auth.caller import OPEN_CALLER, Caller
from app.api.auth.rate_limits import RateLimits
from app.api.auth.sessions import COOKIE_NAME, Session, Sessions
from app.errors import BadRequest, Unauthorized

_SCHEME = b"bearer"


class TokenChecker(Protocol):
    """What checks tokens, see `tokens.Tokens`; a protocol, since that is loaded only where tokens are accepted."""

    async def check(self, token: bytes) -> Caller:
        """The caller that a token stands for. Raises `Unauthorized`, or `Unavailable` while it cannot be checked."""
        ...

    @property
    def problem(self) -> str | None:
        """One sentence while tokens cannot be checked as they should, else None."""
        ...


class Authentication:
    """Keys, tokens and sessions together. Use it from one event loop.

    Attributes:
        sessions: opens and ends the sessions of browsers.
        required: whether a key or token is needed; else everybody who can connect is the same one owner.
    """

    def __init__(
        self, keys: ApiKeys, sessions: Sessions, rate_limits: RateLimits, tokens: TokenChecker | None = None
    ) -> None:
        self._keys, self._rate_limits, self._tokens = keys, rate_limits, tokens
        self.sessions = sessions
        self.required = bool(keys) or tokens is not None

    @property
    def accepts_tokens(self) -> bool:
        """Whether a token may stand in the place of a key."""
        return self._tokens is not None

    @property
    def problem(self) -> str | None:
        """One sentence while tokens cannot be checked as they should, else None."""
        return None if self._tokens is None else self._tokens.problem

    async def identify(self, headers: Headers, address: str) -> tuple[Caller | None, str | None, bool]:
        """The caller (None: nothing was brought), the session, and whether a header proved it, as from no foreign page.

        Raises:
            BadRequest: `two_credentials`.
            RestoreError: what `check_key` and `check_token` raise.
        """
        if not self.required:
            return OPEN_CALLER, None, False
        key = next(iter(_values(headers, b"x-api-key")), None)
        tokens = self._bearer_tokens(headers)
        if len(tokens) + (key is not None) > 1:
            raise BadRequest("two_credentials", "Send either a key (X-API-KEY) or one token (Authorization), not both.")
        if key is not None:
            return await self.check_key(key, address), None, True
        if tokens:
            return await self.check_token(tokens[0], address), None, True
        session = self.session_of(headers)
        return (session.caller, session.id, False) if session else (None, None, False)

    async def check_key(self, presented: bytes, address: str) -> Caller:
        """The caller behind a key. Raises `Unauthorized` `wrong_key`, or `TooManyRequests` for a guesser.

        A right key is never refused for the wrong ones that came from its address: somebody else may have sent them.
        """
        caller = self._keys.caller_of_key(presented)
        if caller is None:
            await self._rate_limits.count_wrong_key(address)
            raise Unauthorized("wrong_key", "This key is not valid; check it for missing characters.")
        return caller

    async def check_token(self, presented: bytes, address: str) -> Caller:
        """The caller behind a token. Raises what `TokenChecker.check` does, or `TooManyRequests` for a guesser."""
        if self._tokens is None:
            raise BadRequest("bad_request", "This service takes no tokens, only keys.")
        try:
            return await self._tokens.check(presented)
        except Unauthorized as error:
            if error.code == "wrong_token":  # an expired one was right, and its user only has to fetch the next
                await self._rate_limits.count_wrong_key(address)
            raise

    def session_of(self, headers: Headers) -> Session | None:
        """The session of the request's cookie, if it has one that is good."""
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE_NAME)
        return self.sessions.find(cookie) if cookie else None

    def _bearer_tokens(self, headers: Headers) -> list[bytes]:
        """The tokens of the Authorization headers; where none are accepted, such headers are meant for a proxy."""
        if self._tokens is None:
            return []
        parts = [value.strip().partition(b" ") for value in _values(headers, b"authorization")]
        return [token.strip() for scheme, _, token in parts if scheme.lower() == _SCHEME]


def _values(headers: Headers, name: bytes) -> list[bytes]:
    """A header's values as they were sent: keys are compared as bytes."""
    return [value for key, value in headers.raw if key == name]
