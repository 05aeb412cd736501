"""uvicorn's HTTP protocol with two limits that it lacks: how long and how large the head of a request may be.

Bodies are timed elsewhere (`body`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 15.0
HEAD_BYTES = 64 * 1024
REST_SECONDS = 30.0


class TimedProtocol(HttpToolsProtocol):
    """Closes a connection whose request line and headers do not come in time, or never seem to end.

    A body that goes on after its answer (a refusal, say) is dropped by uvicorn; here it also has to end in time.
    """

    head_seconds = HEAD_SECONDS
    rest_seconds = REST_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._rest_timer: asyncio.TimerHandle | None = None
        self._body_comes = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: it has to say something."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Bytes came; while the head is not over they count against it."""
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes - len(data) > HEAD_BYTES:
                self._give_up()
                return
        super().data_received(data)
        if self._is_idle() and not self.transport.is_closing():  # bytes that begin no request, such as an empty line
            self._await_head()

    def on_message_begin(self) -> None:
        """A request begins: the first, or the next one on a kept connection."""
        if self._head_timer is None:
            self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is over."""
        self._stop_timers()
        self._body_comes = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is over."""
        self._body_comes = False
        self._stop_timers()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is out, perhaps before the whole body was in."""
        super().on_response_complete()
        if self._body_comes:
            self._rest_timer = self.loop.call_later(self.rest_seconds, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_timers()
        super().connection_lost(exc)

    def _is_idle(self) -> bool:
        """Whether nothing is under way that has a timer or an answer of its own."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and not self._body_comes and self._head_timer is None and self._rest_timer is None

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.head_seconds, self._give_up)

    def _give_up(self) -> None:
        self._stop_timers()
        self.transport.close()

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._rest_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._rest_timer = None
