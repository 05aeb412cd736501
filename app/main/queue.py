"""The queue between API servers and workers, where the settings name a broker; celery is imported only then."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from app import logs
from app.errors import Conflict
from app.metrics import Metrics
from app.store import Store

if TYPE_CHECKING:
    from app.queue.celery_queue import CeleryQueue

log = logging.getLogger(__name__)

_CLIENT_PACKAGES = ("celery", "kombu", "redis")


def open_queue(broker_url: str, store: Store, metrics: Metrics) -> CeleryQueue | None:
    """Wake-ups through the broker, None without one; connects to nothing yet.

    Raises `Conflict` `package_missing` when Celery is not installed.
    """
    if not broker_url:
        return None
    try:
        from app.queue.celery_queue import CeleryQueue, make_celery
    except ModuleNotFoundError as error:
        if error.name not in _CLIENT_PACKAGES:
            raise
        raise Conflict(
            "package_missing",
            "BROKER_URL names a broker, but celery is not there; install requirements-cluster.txt.",
        ) from error

    def backend_of(attempt_id: str) -> str | None:
        attempt = store.attempt(attempt_id)
        return None if attempt is None else attempt.backend

    def lost(attempt_id: str, error: Exception) -> None:
        metrics.wake_up_lost()
        sparing.error(log, "workers find attempt %s a little later: no message was sent (%s)", attempt_id, error)

    sparing = logs.Sparing()
    return CeleryQueue(make_celery(broker_url), backend_of, lost)
