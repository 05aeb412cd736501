"""Traces: spans of the work, from the request to the result, on whatever host; see `protocol`, and `otlp` where on."""

from app.tracing.protocol import NO_TRACER, Span, Tracer, trace_id_of

__all__ = ["NO_TRACER", "Span", "Tracer", "trace_id_of"]
