"""Wake-ups between processes: a Celery message in Redis for each, which one worker takes.

A message only wakes: it carries the attempt's id, the row is the truth, and a lost message costs the seconds until a
worker reads the rows again. So nothing here waits for Redis on behalf of a caller, retries, or keeps results.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery

from app.queue.local import LocalConsumer, LocalQueue
from app.queue.names import queue_of
from app.queue.protocol import serves_all

TASK = "restore"
WAITING_MESSAGES = 10_000  # beyond that the workers find the rows by themselves
CONNECT_SECONDS, ANSWER_SECONDS = 2.0, 5.0
VISIBILITY_SECONDS = 24 * 3600  # longer than any photo: a message that comes back is no way to notice a dead worker
CLOSE_SECONDS = 2.0


def make_celery(broker_url: str) -> Celery:
    """The Celery application of every process; it connects to nothing yet."""
    app = Celery("neural-image-restore", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_soft_shutdown_on_idle=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=CONNECT_SECONDS,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        accept_content=["json"],
        task_serializer="json",
        # Without these a frozen Redis holds a publisher for ever, and a half-open connection a worker.
        broker_transport_options={
            "visibility_timeout": VISIBILITY_SECONDS,
            "socket_timeout": ANSWER_SECONDS,
            "socket_connect_timeout": CONNECT_SECONDS,
            "health_check_interval": 10,
            "retry_on_timeout": False,
        },
    )
    return app


class CeleryQueue:
    """Sends wake-ups through Redis, and gives those that a Celery worker of this process takes to its consumers.

    Args:
        celery: the application, as `make_celery` makes it.
        route: gives the backend of an attempt where `publish` was not told, None for one that is gone; it may read the
            store.
        on_failure: told of a wake-up that could not be sent, in the sending thread.
    """

    def __init__(
        self, celery: Celery, route: Callable[[str], str | None], on_failure: Callable[[str, Exception], None]
    ) -> None:
        self.celery, self._route, self._on_failure = celery, route, on_failure
        self.arrivals = LocalQueue()
        self._outgoing: queue.Queue[tuple[str, str | None] | None] = queue.Queue(WAITING_MESSAGES)
        self._thread = threading.Thread(target=self._send_all, name="celery-sender", daemon=True)
        self._starting = threading.Lock()
        self._is_started = False

    def publish(self, attempt_id: str, backend: str | None = None) -> None:
        """See `Queue`. Sent by a thread of its own, which never keeps a caller waiting."""
        with self._starting:
            if not self._is_started:
                self._is_started = True
                self._thread.start()
        try:
            self._outgoing.put_nowait((attempt_id, backend))
        except queue.Full as error:
            self._on_failure(attempt_id, error)

    def open_consumer(self, serves: Callable[[str], bool] = serves_all) -> LocalConsumer:
        """See `Queue`."""
        return self.arrivals.open_consumer(serves)

    def deliver(self, attempt_id: str, backend: str | None = None) -> None:
        """A message came to the Celery worker of this process: wake its consumers."""
        self.arrivals.publish(attempt_id, backend)

    def close(self) -> None:
        """Send what waits, for a moment, and end the thread. Harmless when nothing was ever sent."""
        with self._starting:
            if not self._is_started:
                return
        try:
            self._outgoing.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return  # Redis is away; the thread ends with the process
        self._thread.join(CLOSE_SECONDS)

    def _send_all(self) -> None:
        while (outgoing := self._outgoing.get()) is not None:
            attempt_id, backend = outgoing
            try:
                self._send(attempt_id, backend or self._route(attempt_id))
            except Exception as error:  # noqa: BLE001 - whatever a client of Redis raises, the row is found anyway
                self._on_failure(attempt_id, error)

    def _send(self, attempt_id: str, backend: str | None) -> None:
        if backend is not None:
            options: dict[str, Any] = {"queue": queue_of(backend).value, "retry": False}
            self.celery.send_task(TASK, args=[attempt_id], **options)
