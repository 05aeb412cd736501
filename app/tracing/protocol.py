"""The tracing border: spans with plain facts. Off, every call costs nothing and no package of OpenTelemetry is asked.

Facts are ids, sizes, counts and words of ours: never a text or file name of a user, and never a key.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

Fact = str | int | float | bool


class Span(Protocol):
    """A piece of work with its begin and end. Used as a context manager it is what new spans of the thread lie in."""

    def set(self, **facts: Fact | None) -> None:
        """Note facts; None is left out."""
        ...

    def end(self) -> None:
        """It is over; harmless twice. For a span that was begun without `with`."""
        ...

    def __enter__(self) -> Self:
        """Begin to lie around what comes."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; with an exception the span says its kind, not its text."""
        ...


class Tracer(Protocol):
    """Makes spans. Usable from any thread."""

    @property
    def enabled(self) -> bool:
        """Whether anybody hears of them; where False, facts need not be worked out."""
        ...

    def traceparent(self) -> str | None:
        """The span that is open here, as W3C trace context writes it (55 characters); None when there is none."""
        ...

    def span(self, name: str, *, parent: str | None = None, **facts: Fact | None) -> Span:
        """Begin a span, below the one that is open here, or below the given `traceparent` of another thread or host."""
        ...

    def record(self, name: str, began: float, ended: float, *, parent: str | None = None, **facts: Fact | None) -> None:
        """A span of the past; times are epoch seconds."""
        ...

    def fail(self, code: str) -> None:
        """The span that is open here did not work, for the reason with this code of ours."""
        ...

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        ...


class _NoSpan:
    """A span that nobody hears of."""

    def set(self, **facts: Fact | None) -> None:
        """See `Span`."""

    def end(self) -> None:
        """See `Span`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `Span`."""


class _NoTracer:
    """The tracer of a service without traces."""

    enabled = False

    def traceparent(self) -> str | None:
        """See `Tracer`."""
        return None

    def span(self, name: str, *, parent: str | None = None, **facts: Fact | None) -> Span:
        """See `Tracer`."""
        return _NO_SPAN

    def record(self, name: str, began: float, ended: float, *, parent: str | None = None, **facts: Fact | None) -> None:
        """See `Tracer`."""

    def fail(self, code: str) -> None:
        """See `Tracer`."""

    def close(self) -> None:
        """See `Tracer`."""


_NO_SPAN = _NoSpan()
NO_TRACER: Tracer = _NoTracer()


def trace_id_of(traceparent: str | None) -> str | None:
    """The id of the trace in a `traceparent`: 32 hex characters; None where there is none."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else None
