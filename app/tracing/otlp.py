"""Traces by OpenTelemetry, sent as OTLP over HTTP to a collector by a thread of the SDK. Loaded only where it is on.

The SDK's own environment variables (headers, certificates, sampler, OTEL_SERVICE_NAME) hold here as everywhere.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from opentelemetry import context as open_spans
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.tracing.protocol import Fact, Span

SERVICE_NAME = "neural-image-restore"
TRACES_PATH = "/v1/traces"
CLOSE_SECONDS = 3.0
_NANOSECONDS = 1_000_000_000
# What a client may have written into its request, and the web framework notes.
_WRITTEN_BY_CLIENTS = ("url.path", "url.query", "server.address", "http.request.method_original")
_HIDDEN = "[hidden]"


class OtlpTracer:
    """Spans of this process; see `Tracer`. `worker` is host and process.

    Attributes:
        provider: for the web framework, which makes the spans of requests.
    """

    enabled = True

    def __init__(self, endpoint: str, worker: str, version: str) -> None:
        own = Resource({"service.name": SERVICE_NAME, "service.version": version, "service.instance.id": worker})
        self.provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self.provider.add_span_processor(_HidesClientTexts())
        exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + TRACES_PATH)
        self.provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self.provider.get_tracer("app")
        self._format = TraceContextTextMapPropagator()

    def traceparent(self) -> str | None:
        """See `Tracer`."""
        carrier: dict[str, str] = {}
        self._format.inject(carrier)
        return carrier.get("traceparent")

    def span(self, name: str, *, parent: str | None = None, **facts: Fact | None) -> Span:
        """See `Tracer`."""
        around = self._format.extract({"traceparent": parent}) if parent is not None else None
        return _OtlpSpan(self._tracer.start_span(name, around, attributes=_known(facts)))

    def record(self, name: str, began: float, ended: float, *, parent: str | None = None, **facts: Fact | None) -> None:
        """See `Tracer`."""
        around = self._format.extract({"traceparent": parent}) if parent is not None else None
        start = int(began * _NANOSECONDS)
        span = self._tracer.start_span(name, around, attributes=_known(facts), start_time=start)
        span.end(max(start, int(ended * _NANOSECONDS)))

    def fail(self, code: str) -> None:
        """See `Tracer`."""
        _mark_failed(trace.get_current_span(), code)

    def close(self) -> None:
        """See `Tracer`. A collector that does not answer is not waited for."""
        closing = threading.Thread(target=self.provider.shutdown, name="traces-close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


class _OtlpSpan:
    """One span of the SDK; see `Span`."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._token: object | None = None

    def set(self, **facts: Fact | None) -> None:
        """See `Span`."""
        self._span.set_attributes(_known(facts))

    def end(self) -> None:
        """See `Span`."""
        if self._span.is_recording():
            self._span.end()

    def __enter__(self) -> Self:
        self._token = open_spans.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """See `Span`."""
        open_spans.detach(self._token)  # type: ignore[arg-type]
        if kind is not None:
            _mark_failed(self._span, str(getattr(error, "code", kind.__name__)))
        self.end()


class _HidesClientTexts(SpanProcessor):
    """Takes what clients wrote themselves out of the spans of requests; the route's template says which it was."""

    def on_start(self, span: SdkSpan, parent_context: open_spans.Context | None = None) -> None:
        """Before anything is sent."""
        for name in _WRITTEN_BY_CLIENTS:
            if span.attributes is not None and name in span.attributes:
                span.set_attribute(name, _HIDDEN)


def _mark_failed(span: trace.Span, code: str) -> None:
    span.set_attribute("error.type", code)
    span.set_status(trace.StatusCode.ERROR)


def _known(facts: dict[str, Fact | None]) -> dict[str, Fact]:
    return {name: value for name, value in facts.items() if value is not None}
