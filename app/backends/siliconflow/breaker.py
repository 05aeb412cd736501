"""Stops asking a provider in trouble: after several failures in a row nobody calls it for a while, then one call does.

The states are pybreaker's. It holds its lock through the call that it guards, so here only the outcomes of calls are
told to it, and calls run beside each other; and it reads the wall clock, so the time without calls is counted here.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from pybreaker import STATE_CLOSED, STATE_OPEN, CircuitBreaker

from app.errors import RestoreError

log = logging.getLogger(__name__)

MOST_FAILURES = 3
PAUSE_SECONDS = 30.0
TRIAL_SECONDS = 5.0  # when to come back while one call is tried
_OF_PROVIDER = "provider_"
TROUBLES = frozenset(("provider_unavailable", "provider_timeout"))  # the provider's own; a refusal is an answer


class ProviderBreaker:
    """One provider's breaker. Usable from any thread. `clock` is monotonic seconds."""

    def __init__(
        self,
        most_failures: int = MOST_FAILURES,
        pause_seconds: float = PAUSE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._breaker = CircuitBreaker(fail_max=most_failures, throw_new_error_on_trip=False)
        self._pause_seconds, self._clock = pause_seconds, clock
        self._lock = threading.Lock()
        self._opened_at = 0.0
        self._is_trying = False

    def admit(self) -> bool:
        """Whether a call may be made now; after the pause one alone, until its outcome is known.

        A call that was admitted goes through `call`.
        """
        with self._lock:
            if self._breaker.current_state == STATE_CLOSED:
                return True
            if self._is_trying or self._seconds_left() > 0:
                return False
            self._breaker.half_open()
            self._is_trying = True
            return True

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """The block is one admitted call of the provider; its error, or that it has none, counts."""
        try:
            yield
        except RestoreError as error:
            if error.code.startswith(_OF_PROVIDER):
                self._tell(error if error.code in TROUBLES else None)
            raise
        else:
            self._tell(None)
        finally:  # also when nothing was learned: cancelled, or refused by a store of ours
            with self._lock:
                self._is_trying = False

    def retry_after_seconds(self) -> float | None:
        """None while new calls are welcome: all of them, or after the pause the one that tries. Else when to come back.

        The trial needs somebody who makes it, so that after the pause nobody may be sent away until it runs.
        """
        with self._lock:
            if self._is_trying:
                return TRIAL_SECONDS
            is_closed = self._breaker.current_state == STATE_CLOSED
            return None if is_closed or self._seconds_left() <= 0 else self._seconds_left()

    def _seconds_left(self) -> float:
        return self._opened_at + self._pause_seconds - self._clock()

    def _tell(self, trouble: RestoreError | None) -> None:
        """One call's outcome. One that began before the breaker opened says nothing new."""
        with self._lock:
            before = self._breaker.current_state
            if before == STATE_OPEN:
                return
            with contextlib.suppress(RestoreError):
                self._breaker.call(_raise_if, trouble)
            after = self._breaker.current_state
            if after == STATE_OPEN:
                self._opened_at = self._clock()
                log.warning("the provider is in trouble; it is not asked for %.0f s", self._pause_seconds)
            elif after != before:
                log.info("the provider answers again")


def _raise_if(error: RestoreError | None) -> None:
    if error is not None:
        raise error
