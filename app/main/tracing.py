"""Traces as the settings describe them: to a collector where one is named, else none, and nothing is loaded."""

from __future__ import annotations

from fastapi.telemetry import TelemetryConfig

from app import __version__
from app.errors import Conflict
from app.process_names import own_process_name
from app.settings import Settings
from app.tracing import NO_TRACER, Tracer

# Asked every few seconds by machines: their spans would bury those of people.
_NOT_TRACED = frozenset(("/health/live", "/health/ready", "/metrics"))


def open_tracer(settings: Settings) -> Tracer:
    """What makes the spans of this process.

    Raises `Conflict` `package_missing` when the packages are not installed.
    """
    if not settings.otel_exporter_otlp_endpoint:
        return NO_TRACER
    try:
        from app.tracing.otlp import OtlpTracer
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise Conflict(
            "package_missing",
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not there; install requirements-tracing.txt.",
        ) from error
    return OtlpTracer(settings.otel_exporter_otlp_endpoint, str(own_process_name()), __version__)


def telemetry_of(tracer: Tracer) -> TelemetryConfig:
    """The web framework's own switch. Its logs and spans of operations stay off: they hold texts of exceptions."""
    return {
        "tracing": tracer.enabled,
        "tracer_provider": getattr(tracer, "provider", None),
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": lambda scope: scope.get("path") in _NOT_TRACED,
    }
