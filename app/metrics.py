"""Counters and timings of one service, in the Prometheus text format.

Everything hangs on one `Metrics` object with its own registry, so two services in one process do not mix. It knows
words and numbers only: labels are end states, stages, thread names, route templates and names of keys, never a path, a
file or a key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    start_http_server,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST

_STAGE_BUCKETS_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
_REQUEST_BUCKETS_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


ENDS = ("completed", "failed", "cancelled", "given_back", "crashed", "lapsed")


class Metrics:
    """What the service counts. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"namespace": "restore", "registry": self._registry}
        self._ended = Counter("attempts_ended", "restorations by how they ended", ["status"], **own)
        for status in ENDS:  # a rate needs to have seen the zero before the first one
            self._ended.labels(status)
        self._stage = Histogram(
            "stage_seconds", "seconds of one photo in a stage", ["stage"], buckets=_STAGE_BUCKETS_SECONDS, **own
        )
        self._megapixels = Counter("result_megapixels", "megapixels of finished results", **own)
        self._queued = Gauge("queued_attempts", "photos that wait", **own)
        self._processing = Gauge("processing_attempts", "photos in work", **own)
        self._provider_open = Gauge("provider_breaker_open", "1 while the provider is not asked", **own)
        self._requests = Counter("http_requests", "requests answered", ["method", "route", "status"], **own)
        self._request_seconds = Histogram(
            "http_request_seconds",
            "seconds until the answer was sent",
            ["method", "route"],
            buckets=_REQUEST_BUCKETS_SECONDS,
            **own,
        )
        self._caller_requests = Counter(
            "caller_requests", "requests of each key, or of all tokens, by status", ["caller", "status"], **own
        )
        self._caller_photos = Counter(
            "caller_photos", "photos accepted from each key, or all tokens", ["caller"], **own
        )
        self._restarts = Counter("thread_restarts", "threads that died and were started again", ["thread"], **own)
        self._wake_ups_lost = Counter("wake_ups_lost", "messages to workers that could not be sent", **own)
        self._webhooks = Counter("webhook_tries", "tries of webhooks by what came of them", ["outcome"], **own)
        self._removed = Counter("janitor_removed", "what the janitor removed", ["kind"], **own)

    def attempt_ended(self, status: str) -> None:
        """One run ended; `status` is one of `ENDS`."""
        self._ended.labels(status).inc()

    def wake_up_lost(self) -> None:
        """No message could be sent to the workers; they find the attempt as they read the rows."""
        self._wake_ups_lost.inc()

    def observe_stage(self, stage: str, seconds: float) -> None:
        """One photo spent `seconds` in decode, restore, encode or reblend."""
        self._stage.labels(stage).observe(seconds)

    def add_result(self, width: int, height: int) -> None:
        """A result of this many pixels was finished."""
        self._megapixels.inc(width * height / 1_000_000)

    def follow_queue(self, queued: Callable[[], float], processing: Callable[[], float]) -> None:
        """Ask these two whenever the queue's depth is wanted."""
        self._queued.set_function(queued)
        self._processing.set_function(processing)

    def follow_workers(self, live: Callable[[], float]) -> None:
        """Ask this whenever the number of live workers is wanted; without it there is no such figure."""
        gauge = Gauge("live_workers", "processes that restore", namespace="restore", registry=self._registry)
        gauge.set_function(live)

    def follow_provider(self, is_open: Callable[[], bool]) -> None:
        """Ask this whenever somebody wants to know whether the provider is left alone."""
        self._provider_open.set_function(is_open)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered; `route` is the template (`/status/{job_id}`), never the path itself."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    def count_caller_request(self, caller: str, status: int) -> None:
        """One request of somebody with a key or token was answered; `caller` is the key's name, or `token`."""
        self._caller_requests.labels(caller, str(status)).inc()

    def count_caller_photos(self, caller: str, number: int) -> None:
        """So many photos were accepted from somebody with a key or token."""
        self._caller_photos.labels(caller).inc(number)

    def thread_restarted(self, name: str) -> None:
        """A supervised thread died and will be started again."""
        self._restarts.labels(name).inc()

    def webhook_tried(self, outcome: str) -> None:
        """One try of a webhook: delivered, retried (it failed, and is tried again) or failed (it was the last)."""
        self._webhooks.labels(outcome).inc()

    def janitor_removed(self, kind: str, number: int) -> None:
        """The janitor removed `number` of jobs, uploads, results or orphans."""
        self._removed.labels(kind).inc(number)

    def serve(self, host: str, port: int) -> Callable[[], None]:
        """Serve them over HTTP at every path, in a thread of its own, for a process that serves nothing else.

        Returns what ends it. Raises `OSError` when the port cannot be listened on.
        """
        server, thread = start_http_server(port, host, self._registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop

    def render(self) -> bytes:
        """All of it in the text format that `CONTENT_TYPE` names."""
        return bytes(generate_latest(self._registry))
