"""Fetches a result that was paid for again and again: what may pass is waited out, and fetching costs nothing.

The provider keeps a result for an hour at its address. It is never asked to make it a second time, also not after a
crash: the address is kept as a receipt beside the attempt.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from app.backends.siliconflow.request import GeneratedImage
from app.errors import Cancelled, RestoreError, is_exhaustion
from app.images import Picture

log = logging.getLogger(__name__)

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 30.0
_BEAT_SECONDS = 0.5
# The store's trouble, a full disk, a decoder that cannot be started: not what is wrong with the result itself.
_DECODER = ("decoder_unavailable", "decoder_out_of_memory")
_MAY_PASS = ("provider_unavailable", "provider_timeout", "storage_full", "no_space", *_DECODER)


@dataclasses.dataclass(frozen=True)
class Paid:
    """A call that was paid for and answered: what was made, how long the answer took, and the provider's trace id."""

    made: GeneratedImage
    waited_seconds: float
    trace: str

    def as_receipt(self) -> dict[str, Any]:
        """JSON-ready; see `Receipts`."""
        return {**dataclasses.asdict(self.made), "waited_seconds": self.waited_seconds, "trace": self.trace}

    @classmethod
    def of_receipt(cls, receipt: Mapping[str, Any]) -> Paid:
        """What `as_receipt` gave. Its address is checked before it is fetched, like one that just came."""
        made = GeneratedImage(str(receipt["url"]), receipt["inference_seconds"], receipt["seed"])
        return cls(made, float(receipt["waited_seconds"]), str(receipt["trace"]))


@dataclasses.dataclass(frozen=True)
class FetchRetries:
    """How long a result is tried for, from the provider's answer on; `clock` counts monotonic seconds."""

    seconds: float = 15 * 60.0
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep

    def fetch(self, fetch: Callable[[], Picture], keep_on: Callable[[], bool]) -> Picture:
        """What `fetch` gives; after a failure that may pass it is called again, with waits that double.

        Raises:
            Cancelled: `keep_on`, asked twice a second while waiting, says no.
            RestoreError: a failure that will not pass, or the last one.
        """
        ends_at, wait = self.clock() + self.seconds, FIRST_WAIT_SECONDS
        while True:
            try:
                return fetch()
            except Exception as error:
                if not _may_pass(error) or self.clock() + wait > ends_at:
                    raise
                log.warning("a result that was paid for is fetched again in %g s: %s", wait, _words_of(error))
            self._wait(wait, keep_on)
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _wait(self, seconds: float, keep_on: Callable[[], bool]) -> None:
        until = self.clock() + seconds
        while (left := until - self.clock()) > 0:
            if not keep_on():
                raise Cancelled
            self.pause(min(_BEAT_SECONDS, left))


def _may_pass(error: Exception) -> bool:
    if isinstance(error, RestoreError):
        return error.code in _MAY_PASS
    return isinstance(error, MemoryError) or is_exhaustion(error)


def _words_of(error: Exception) -> str:
    """No text of a failure whose words are not ours: addresses of results stay out of the log."""
    return error.code if isinstance(error, RestoreError) else type(error).__name__
