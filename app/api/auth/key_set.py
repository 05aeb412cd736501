"""The public keys of an issuer (JWKS): fetched in a thread at start and from time to time, the last good set kept.

So an outage of the issuer locks nobody out whose token was signed with a known key. A token can only ask for one fetch
in a while, whatever key it names, and never says where to fetch from.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import ssl
import threading
import time
from collections.abc import Callable

import certifi
import httpcore2
import jwt

from app.api.auth.tokens import wrong_token
from app.api.shared_calls import SharedCalls
from app.errors import Unavailable
from app.health_reasons import HealthReason
from app.notices import say
from app.threads import SupervisedThread

log = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "ES256")
REFRESH_SECONDS = 300.0
AGAIN_SECONDS = 10.0  # after a failure
COOLDOWN_SECONDS = 30.0  # between two fetches that unknown key ids cause
FETCH_SECONDS = 5.0
LARGEST_SET_BYTES = 256 * 1024
MOST_KEYS = 64

_CONNECTION_ERRORS = (
    OSError,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.TimeoutException,
    httpcore2.UnsupportedProtocol,
)

Keys = dict[str | None, jwt.PyJWK]


class KeySetUnreadable(Exception):
    """The answer of an issuer is not a set of usable keys; the text says why, for the log."""


class KeySet:
    """The keys behind one address; see `tokens.KeySource`. `clock` is monotonic seconds.

    `fetch` gives the body at an address; it raises `OSError`, `httpcore2` errors or `KeySetUnreadable`.
    """

    algorithms = ALGORITHMS

    def __init__(
        self,
        address: str,
        *,
        fetch: Callable[[str], bytes] | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_death: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._address, self._clock = address, clock
        self._fetch = fetch or fetch_key_set
        self._keys: Keys | None = None
        self._failed = False
        self._asked_at = float("-inf")
        self._fetching = threading.Lock()
        self._shared: SharedCalls[None] = SharedCalls()
        self._thread = SupervisedThread("key-set", self.loop, on_death=on_death)

    async def key(self, key_id: str | None) -> jwt.PyJWK:
        """The key of this id (without one: the only key), fetched now if it is unknown and the last fetch is old.

        Raises `Unauthorized` `wrong_token`, or `Unavailable` `token_keys_unavailable` while the issuer is away.
        """
        found = self._find(key_id)
        is_due = self._clock() - self._asked_at >= COOLDOWN_SECONDS
        if found is None and (is_due or self._fetching.locked()):
            await self._shared.run("keys", self._refresh_once)
            found = self._find(key_id)
        if found is not None:
            return found
        if self._keys is None or self._failed:
            raise Unavailable(
                "token_keys_unavailable",
                "The keys that tokens are checked with cannot be fetched just now; try again in a moment.",
                retry_after_seconds=math.ceil(AGAIN_SECONDS),
            )
        raise wrong_token()

    @property
    def problem(self) -> str | None:
        """One sentence while the issuer cannot be reached, else None."""
        if not self._failed:
            return None
        words = "The issuer's keys for tokens cannot be fetched (JWT_JWKS_URL); the log says why."
        return say(HealthReason.TOKEN_KEYS_AWAY, words)

    def refresh(self) -> bool:
        """Fetch the keys now; the set that is there stays when that fails. Waits for the network."""
        with self._fetching:
            self._asked_at = self._clock()
            try:
                self._keys = read_key_set(self._fetch(self._address))
                self._failed = False
            except _CONNECTION_ERRORS as error:
                self._fail(type(error).__name__)
            except KeySetUnreadable as error:
                self._fail(str(error))
        return not self._failed

    def loop(self, stop: threading.Event) -> None:
        """Fetch at once and then from time to time, until `stop`."""
        while not stop.is_set():
            stop.wait(REFRESH_SECONDS if self.refresh() else AGAIN_SECONDS)

    def start(self) -> None:
        """Start the thread; no request waits for it."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._thread.stop()

    async def _refresh_once(self) -> None:
        """One fetch for all who wait; if the thread is just fetching, its answer will do."""
        asked_before = self._asked_at
        await asyncio.to_thread(self._refresh_unless_fetched, asked_before)

    def _refresh_unless_fetched(self, asked_before: float) -> None:
        with self._fetching:
            fetched_meanwhile = self._asked_at != asked_before
        if not fetched_meanwhile and self._clock() - asked_before >= COOLDOWN_SECONDS:
            self.refresh()

    def _find(self, key_id: str | None) -> jwt.PyJWK | None:
        keys = self._keys or {}
        if key_id is None:
            return next(iter(keys.values())) if len(keys) == 1 else None
        return keys.get(key_id)

    def _fail(self, reason: str) -> None:
        self._failed = True
        log.warning("the keys of the issuer of tokens could not be fetched: %s", reason)


def read_key_set(body: bytes) -> Keys:
    """The usable keys of a set by id: for signatures, RSA or the curve P-256. Raises `KeySetUnreadable`."""
    try:
        rows = json.loads(body)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeySetUnreadable("the answer is not a set of keys") from None
    keys: Keys = {}
    for row in rows[:MOST_KEYS] if isinstance(rows, list) else ():
        key = _usable(row)
        if key is not None:
            keys.setdefault(key.key_id, key)
    if not keys:
        raise KeySetUnreadable("no key of the set can be used; RS256 or ES256 is needed")
    return keys


def _usable(row: object) -> jwt.PyJWK | None:
    """A key, or None for one that is not for signatures of ours."""
    if not isinstance(row, dict) or row.get("use", "sig") != "sig" or row.get("kty") not in ("RSA", "EC"):
        return None
    try:
        key = jwt.PyJWK(row)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    is_named = key.key_id is None or isinstance(key.key_id, str)
    return key if is_named and key.algorithm_name in ALGORITHMS else None


def fetch_key_set(address: str) -> bytes:
    """The body at an address: no redirect is followed, and neither time nor size is without a bound.

    Raises `OSError` or `httpcore2` errors of the connection, `KeySetUnreadable` for an answer that is no set.
    """
    trust = ssl.create_default_context()
    trust.load_verify_locations(certifi.where())  # a slim container has no authorities of its own
    give_up_at = time.monotonic() + FETCH_SECONDS
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), FETCH_SECONDS)
    with (
        httpcore2.ConnectionPool(trust, max_connections=1) as pool,
        pool.stream("GET", address, headers={"Accept": "application/json"}, extensions={"timeout": timeouts}) as answer,
    ):
        if answer.status != 200:
            raise KeySetUnreadable(f"the issuer answered with status {answer.status}")
        body = b""
        for piece in answer.iter_stream():
            body += piece
            if len(body) > LARGEST_SET_BYTES or time.monotonic() > give_up_at:
                raise KeySetUnreadable("the answer is too long or came too slowly")
        return body
