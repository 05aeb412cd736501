"""Who may use the service, by the settings: keys, tokens and sessions, with the threads that these need."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from app.api.auth.api_keys import ApiKeys, NamedKey
from app.api.auth.authentication import Authentication
from app.api.auth.caller import Role
from app.api.auth.rate_limits import RateLimits
from app.api.auth.sessions import Sessions
from app.api.connections import Connections
from app.api.dependencies import Limits
from app.errors import Conflict
from app.metrics import Metrics
from app.settings import Settings
from app.store import Store

if TYPE_CHECKING:
    from app.api.auth.key_set import KeySet
    from app.api.auth.tokens import Tokens

_TOKEN_PACKAGES = ("jwt", "cryptography")


class Users:
    """The authentication of a service, and what runs beside it."""

    def __init__(self, settings: Settings, rate_limits: RateLimits, metrics: Metrics) -> None:
        self._metrics = metrics
        self._key_set: KeySet | None = None
        keys = ApiKeys([NamedKey(one.key, one.name, Role(one.role) if one.role else None) for one in settings.keys])
        secret = settings.session_secret.get_secret_value() or settings.jwt_secret.get_secret_value()
        tokens = self._open_tokens(settings) if settings.accepts_tokens else None
        issuer = None if tokens is None else f"{settings.jwt_issuer}\n{settings.jwt_audience}"
        self.authentication = Authentication(keys, Sessions(keys, secret, issuer), rate_limits, tokens)

    def start(self, store: Store) -> None:
        """Learn which sessions have ended, and begin to fetch the issuer's keys. The store is open."""
        self.authentication.sessions.forget(store.accounts.ended_sessions(time.time()))
        if self._key_set is not None:
            self._key_set.start()

    def stop(self) -> None:
        """End the fetching; a fetch under way is not waited for."""
        if self._key_set is not None:
            self._key_set.stop()

    def _open_tokens(self, settings: Settings) -> Tokens:
        """What checks tokens; its packages are loaded here. Raises `Conflict` `package_missing`."""
        try:
            from app.api.auth.key_set import KeySet
            from app.api.auth.tokens import SharedSecret, TokenRules, Tokens
        except ModuleNotFoundError as error:
            if error.name not in _TOKEN_PACKAGES:
                raise
            raise Conflict(
                "package_missing",
                "JWT_SECRET or JWT_JWKS_URL is set, but PyJWT is not there; install requirements-users.txt.",
            ) from error
        claim, _, value = settings.jwt_admin_claim.rpartition("=")
        rules = TokenRules(settings.jwt_issuer, settings.jwt_audience, (claim, value) if claim else None)
        if settings.jwt_secret:
            return Tokens(rules, SharedSecret(settings.jwt_secret.get_secret_value()))
        self._key_set = KeySet(settings.jwt_jwks_url, on_death=lambda _: self._metrics.thread_restarted("key-set"))
        return Tokens(rules, self._key_set)


def upload_places(limits: Limits) -> Connections:
    """Places for uploads under way: so many for each caller, any number where there is no limit."""
    return Connections(most=sys.maxsize, most_of_one=limits.uploads_limit or sys.maxsize)
