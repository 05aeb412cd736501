"""Runs attempts by their ids, one call each, for hosts that start a process when there is something to do (serverless).

What a worker has beside it is here too: the claim's lease is renewed while the call lasts, and the process reports
itself. Which attempt comes next is the caller's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from app.backends.protocol import Backend
from app.errors import Conflict, DeviceLost
from app.images import Decoder
from app.jobs.lease_keeper import LeaseTimes
from app.jobs.runner import Runner
from app.main.infrastructure import open_infrastructure
from app.main.limits import open_result_cache
from app.main.webhooks import open_webhook_delivery
from app.queue import Queue
from app.settings import Settings
from app.storage import Storage, new_id
from app.store.database import is_shared

WEBHOOK_SECONDS = 120.0  # of a scheduled function that may take 300
OpenBackends = Callable[[Settings, Decoder, Storage], Mapping[str, Backend]]


def refuse_unshared(settings: Settings) -> None:
    """Raises `Conflict` `settings_conflict` unless rows and files lie where every process reaches them."""
    if not is_shared(settings.database_url) or not settings.storage_url:
        raise Conflict(
            "settings_conflict",
            "Here every call may run on another machine: set DATABASE_URL to a PostgreSQL database "
            "and STORAGE_URL to a bucket.",
        )


class AttemptRuns:
    """Attempts by call, from any thread. `queue` hears of those that wait again because their process is gone."""

    def __init__(self, settings: Settings, queue: Queue, lease_times: LeaseTimes | None = None) -> None:
        refuse_unshared(settings)
        times = lease_times or LeaseTimes()
        self._settings, self._times = settings, times
        self._backends: dict[str, Backend] = {}
        base = self._base = open_infrastructure(settings, times, serves=False)
        self._store, self._storage = base.store, base.storage
        self._decoder = Decoder(base.limits.image)
        cache = open_result_cache(settings, base.store, base.storage, self._backends)
        self._runner = Runner(
            base.store, base.storage, self._decoder, self._backends, base.metrics, tracer=base.tracer, cache=cache
        )
        self._tokens: set[str] = set()
        self._keeper = base.make_lease_keeper(queue, self._held_tokens, self._runner.settle)

    def open(self, open_backends: OpenBackends) -> None:
        """Connect, load what restores, and begin to renew."""
        self._store.open()
        self._backends.update(open_backends(self._settings, self._decoder, self._storage))
        self._decoder.start()
        self._keeper.start()

    def run(self, attempt_id: str) -> None:
        """Restore it; does nothing when it does not wait (any more).

        Raises:
            Unavailable: the store cannot take the claim.
            DeviceLost: the card is lost for this process, which should end; the attempt waits again.
        """
        token = new_id()
        self._tokens.add(token)
        try:
            prepared = self._runner.prepare(attempt_id, token, time.time())
            finished = None if prepared is None else self._runner.restore(prepared)
            if finished is not None:
                self._runner.finish(finished)
        except DeviceLost:
            self._runner.abandon(attempt_id, token)
            raise
        finally:
            self._tokens.discard(token)

    def sweep(self, pause: Callable[[float], None] = time.sleep) -> None:
        """Renew and sweep once, as the scheduled function that runs when nothing else does, and remove what expired.

        It takes as long as the database must have been reachable before a lease is believed to have run out.
        """
        self._keeper.tick(0.0, time.time())
        pause(self._times.calm_seconds)
        self._keeper.tick(self._times.calm_seconds, time.time())
        self._base.make_janitor().sweep(time.time())

    def tell_webhooks(self, most_seconds: float = WEBHOOK_SECONDS) -> None:
        """Tell what is due, one receiver after the other, and begin none after `most_seconds`.

        Between two calls no process is there that would. Raises `Unavailable`: the store.
        """
        delivery = open_webhook_delivery(self._settings, self._store, self._base.metrics)
        give_up_at = time.monotonic() + most_seconds
        while delivery is not None and time.monotonic() < give_up_at and delivery.tick():
            pass

    def connect(self) -> None:
        """Only connect: enough for `sweep` and `backend_of`."""
        self._store.open()

    def backend_of(self, attempt_id: str) -> str | None:
        """The backend that a waiting attempt asks for; None when it is unknown. Raises `Unavailable`."""
        attempt = self._store.attempt(attempt_id)
        return None if attempt is None else attempt.backend

    def close(self) -> None:
        """End what `open` or `connect` started."""
        self._keeper.stop()
        self._decoder.close()
        self._base.tracer.close()
        self._store.close()

    def _held_tokens(self) -> set[str]:
        return self._runner.unsettled_tokens() | self._tokens.copy()
