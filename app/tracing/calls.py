"""A span around each call of an object, put around the store and the storage where traces are on.

Only within an open span: what the service does by itself every few seconds would be noise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

from app.tracing.protocol import Tracer

Wrapped = TypeVar("Wrapped")


def traced(wrapped: Wrapped, room: str, tracer: Tracer) -> Wrapped:
    """The same object, whose calls are spans named `room method`; the very object where traces are off."""
    return cast(Wrapped, _Traced(wrapped, room, tracer)) if tracer.enabled else wrapped


class _Traced:
    """Stands for an object, and times the calls of its public methods."""

    def __init__(self, wrapped: object, room: str, tracer: Tracer) -> None:
        self._wrapped, self._room, self._tracer = wrapped, room, tracer

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        return self._timed(name, found) if callable(found) else found

    def __enter__(self) -> Any:
        self._wrapped.__enter__()  # type: ignore[attr-defined]
        return self

    def __exit__(self, *error: object) -> Any:
        return self._wrapped.__exit__(*error)  # type: ignore[attr-defined]

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._tracer.traceparent() is None:
                return call(*args, **kwargs)
            with self._tracer.span(f"{self._room} {name}"):
                given = call(*args, **kwargs)
            if hasattr(given, "commit"):  # a writer, whose end is what takes long
                return _Traced(given, self._room, self._tracer)
            return _TimedEnter(given, f"{self._room} {name}", self._tracer) if _is_generated(given) else given

        return timed


class _TimedEnter(AbstractContextManager[Any]):
    """A block that lends something (a file of a bucket, say): the work is done when it is entered."""

    def __init__(self, block: AbstractContextManager[Any], name: str, tracer: Tracer) -> None:
        self._block, self._name, self._tracer = block, name, tracer

    def __enter__(self) -> Any:
        with self._tracer.span(f"{self._name} fetch"):
            return self._block.__enter__()

    def __exit__(self, *error: Any) -> bool | None:
        return self._block.__exit__(*error)


def _is_generated(given: object) -> bool:
    return isinstance(given, AbstractContextManager) and not hasattr(given, "close")
