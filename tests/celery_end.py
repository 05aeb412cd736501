"""A `CeleryQueue` on a real Redis with a Celery worker of this process, whose tasks only deliver."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

from app.options import BackendName
from app.queue.celery_queue import CeleryQueue, make_celery
from app.queue.celery_receiver import CeleryReceiver
from app.queue.names import QueueName


@contextlib.contextmanager
def celery_queue(url: str, name: str = "") -> Iterator[CeleryQueue]:
    """One message at a time, so that their order is kept."""
    lost: list[str] = []
    queue = CeleryQueue(make_celery(url), lambda _: BackendName.LOCAL, lambda attempt_id, _: lost.append(attempt_id))

    def hold(attempt_id: str) -> bool:
        queue.deliver(attempt_id, BackendName.LOCAL)
        return True

    receiver = CeleryReceiver(queue.celery, name or f"{secrets.token_hex(4)}@test", [QueueName.GPU], 1, hold)
    receiver.start()
    try:
        yield queue
    finally:
        receiver.begin_stop()
        receiver.join(10)
        queue.close()
    assert not lost
