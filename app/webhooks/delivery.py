"""The tries of webhooks: a few threads take what is due, tell it, and put off what failed, for longer each time.

A receiver that was told twice knows it by the id: every try of one webhook has the same. Time is passed in.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from app.errors import Cancelled, NotFound, RestoreError
from app.logs import Sparing
from app.metrics import Metrics
from app.store import DueWebhook, Job, Store
from app.threads import SupervisedThread
from app.webhooks.addresses import WebhookAddress, WebhookAddresses
from app.webhooks.sender import SEND_SECONDS, NotDelivered
from app.webhooks.signing import signed_headers

log = logging.getLogger(__name__)

THREADS = 4
MOST_OF_ONE_OWNER = 2  # at once, so that receivers that hang do not hold up those of others
LOOK_SECONDS = 1.0
LEASE_SECONDS = 4 * SEND_SECONDS
# After the first try: about half an hour in all, since results are there for an hour.
RETRY_SECONDS = (5.0, 15.0, 60.0, 180.0, 600.0, 900.0)
GONE_STATUS = 410  # "do not tell me any more"


class Send(Protocol):
    """Sends one webhook (`app.webhooks.sender.WebhookSender.send`)."""

    def __call__(
        self, address: WebhookAddress, headers: Mapping[str, str], body: bytes, keep_on: Callable[[], bool]
    ) -> int:
        """The status of the answer. Raises `NotDelivered` or `Cancelled`."""
        ...


class WebhookDelivery:
    """Tells by call (`tick`) or in its own supervised threads (`start`).

    Args:
        store, metrics: whose rows, and where to count.
        addresses: looked at again before each try, since the operator's list may have changed.
        keys: what webhooks are signed with, see `signed_headers`.
        render: a job as the body.
        send: tells it.
        wall: epoch seconds.
        jitter: spreads the tries of many webhooks; gives a factor around 1.
    """

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        *,
        addresses: WebhookAddresses,
        keys: Sequence[bytes],
        render: Callable[[Job], bytes],
        send: Send,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[], float] = lambda: random.uniform(0.8, 1.2),
    ) -> None:
        self._store, self._metrics, self._addresses, self._keys = store, metrics, addresses, keys
        self._render, self._send, self._wall, self._jitter = render, send, wall, jitter
        self._sparing, self._stopping = Sparing(), threading.Event()
        self._telling: Counter[str] = Counter()  # how many of each owner are being told
        self._choosing = threading.Lock()
        names = [f"webhooks-{number}" for number in range(1, THREADS + 1)]
        self._threads = [SupervisedThread(name, self._loop, on_death=self._died) for name in names]

    def tick(self) -> bool:
        """One try of one that is due; False: there is none, or only of busy owners. Raises like the store."""
        with self._choosing:
            busy = [owner for owner, number in self._telling.items() if number >= MOST_OF_ONE_OWNER]
            due = self._store.webhooks.claim_due(LEASE_SECONDS, but=busy)
            if due is None:
                return False
            self._telling[due.owner] += 1
        try:
            self._tell(due)
        except Cancelled:
            self._store.webhooks.give_back(due)
        finally:
            with self._choosing:
                self._telling[due.owner] -= 1
                self._telling += Counter()  # drops owners at zero
        return True

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End the threads and wait for them; a try under way is put back."""
        self._stopping.set()
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            thread.join(timeout_seconds)

    def _tell(self, due: DueWebhook) -> None:
        try:
            address = self._addresses.check(due.url)
            body = self._render(self._store.job(due.owner, due.job_id))
        except NotFound:  # removed in this very moment, and the row with it
            return
        except RestoreError as error:
            self._failed(due, error.code, None, final=True)
            return
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "neural-image-restore",
            **signed_headers(self._keys, due.id, int(self._wall()), body),
        }
        try:
            status = self._send(address, headers, body, lambda: not self._stopping.is_set())
        except NotDelivered as error:
            self._failed(due, error.reason, None, final=False)
            return
        if 200 <= status <= 299:
            self._store.webhooks.delivered(due, status)
            self._metrics.webhook_tried("delivered")
        else:
            self._failed(due, "refused", status, final=status == GONE_STATUS)

    def _failed(self, due: DueWebhook, error: str, status: int | None, *, final: bool) -> None:
        final = final or due.tries > len(RETRY_SECONDS)
        retry_seconds = None if final else RETRY_SECONDS[due.tries - 1] * self._jitter()
        self._store.webhooks.failed(due, error, status, retry_seconds)
        self._metrics.webhook_tried("failed" if final else "retried")
        if final:
            log.warning("the webhook of job %s was given up after %d tries: %s", due.job_id, due.tries, error)

    def _loop(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                if self.tick():
                    continue
            except RestoreError as error:
                self._sparing.error(log, "webhooks wait: %s", error.detail)
            stop.wait(LOOK_SECONDS * self._jitter())

    def _died(self, _error: BaseException) -> None:
        self._metrics.thread_restarted("webhooks")
