"""The receiving end of the broker: a Celery worker with a pool of threads, whose tasks only hold their messages.

It runs in a thread, so that signals, drain and everything that restores belong to the process and not to Celery. When
it dies or the broker is away the rows are still read, only a little later.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from typing import Any

from celery import Celery
from celery.exceptions import Reject
from celery.worker import WorkController, state

from app.exit_codes import EXIT_OK
from app.queue.celery_queue import TASK
from app.queue.names import QueueName

log = logging.getLogger(__name__)

AGAIN_SECONDS = 5.0


class CeleryReceiver:
    """One for a process, since Celery keeps the state of its worker in a module.

    Args:
        celery: the application, as `make_celery` makes it.
        name: of the worker, as Flower and `celery inspect` show it: `PROCESS@HOST`.
        queues: which queues it takes messages from.
        most: how many messages are held at once.
        hold: blocks while a message must be held; False puts it back into its queue.
    """

    def __init__(
        self, celery: Celery, name: str, queues: Collection[QueueName], most: int, hold: Callable[[str], bool]
    ) -> None:
        self._celery, self._name, self._queues, self._most = celery, name, list(queues), most
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="celery-receiver", daemon=True)

        def task(attempt_id: str) -> None:
            if not hold(attempt_id):
                raise Reject("the process ends", requeue=True)

        celery.task(task, name=TASK, shared=False)

    def start(self) -> None:
        """Begin to take messages, as soon as the broker answers."""
        state.should_stop = state.should_terminate = None
        self._celery.set_default()  # the threads of the pool look for the task in the process's default application
        self._thread.start()

    def begin_stop(self) -> None:
        """Take no more messages; those in hand are held until `hold` returns."""
        self._stopping.set()
        state.should_stop = EXIT_OK

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the end, once `hold` has let go of every message; False when it did not come in time."""
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():  # the broker is away or frozen; what was held comes back when it is there
            log.warning("the connection to the broker could not be ended in good order")
        return not self._thread.is_alive()

    def _receive(self) -> None:
        while not self._stopping.is_set():
            try:
                self._make_controller().start()
            except Exception:
                log.exception("the Celery worker failed; it is started again, and the rows are read meanwhile")
            self._stopping.wait(AGAIN_SECONDS)

    def _make_controller(self) -> Any:
        return WorkController(
            app=self._celery,
            hostname=self._name,
            pool="threads",
            concurrency=self._most,
            queues=[name.value for name in self._queues],
            without_gossip=True,
            without_mingle=True,
            loglevel=logging.WARNING,
        )
