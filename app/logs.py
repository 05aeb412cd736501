"""Logging for a service: lines of text or JSON on standard error, and no key ever in one.

Nothing is set up at import time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType

REDACTED = "[hidden]"
_NAMED_SECRET = re.compile(
    r"(?i)(x-api-key|authorization|cookie|restore_session|api_key)([\"']?\s*[:=,]\s*)(\S[^\s,;)]*)"
)
_SHORTEST_SECRET = 6
_SPARING_SECONDS = 60.0
# These say something for each broken request that anybody sends.
_NOISY = ("python_multipart", "python_multipart.multipart", "multipart", "PIL")
# What the lines of this thread or request are about: request_id, trace_id, job, attempt, owner, worker.
_facts: ContextVar[Mapping[str, str]] = ContextVar("log_facts", default=MappingProxyType({}))


@contextlib.contextmanager
def bind(**facts: str | None) -> Iterator[None]:
    """Let JSON lines carry these facts while the block runs, in this thread or task; None is left out."""
    token = _facts.set({**_facts.get(), **_known(facts)})
    try:
        yield
    finally:
        _facts.reset(token)


def add(**facts: str | None) -> None:
    """The same to the end of the block of `bind` that is open here."""
    _facts.set({**_facts.get(), **_known(facts)})


def _known(facts: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in facts.items() if value is not None}


class RedactingFormatter(logging.Formatter):
    """A formatter that redacts the given secrets, and whatever follows the name of a header that carries one."""

    def __init__(self, log_format: str, secrets: Iterable[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.converter = time.gmtime
        self._json = log_format == "json"
        self._secrets = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]

    def format(self, record: logging.LogRecord) -> str:
        """One line (a text record with a traceback has more)."""
        return self._redact(self._as_json(record) if self._json else super().format(record))

    def _as_json(self, record: logging.LogRecord) -> str:
        row = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_facts.get(),
        }
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        return json.dumps(row)

    def _redact(self, line: str) -> str:
        for secret in self._secrets:
            line = line.replace(secret, REDACTED)
        return _NAMED_SECRET.sub(rf"\1\2{REDACTED}", line)


def set_up(log_format: str, secrets: Iterable[str]) -> logging.Handler:
    """Send every logger of this process to standard error; returns the handler, so that a test can take it away."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter(log_format, secrets))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    return handler


class Sparing:
    """Says the same trouble once a minute at most, and then how often it was not said. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said_at = -float("inf")
        self._unsaid = 0
        self._lock = threading.Lock()

    def error(self, log: logging.Logger, message: str, *arguments: object) -> None:
        """Log at level ERROR, or only count."""
        with self._lock:
            if self._clock() - self._said_at < _SPARING_SECONDS:
                self._unsaid += 1
                return
            self._said_at, unsaid, self._unsaid = self._clock(), self._unsaid, 0
        log.error(f"{message} (and %d times since it was last said)", *arguments, unsaid)
