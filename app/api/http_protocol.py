"""uvicorn's HTTP protocol with limits that it lacks: on the head's time and size, on stalled writing, on connections.

Bodies are timed elsewhere (`request_body`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.api.auth.rate_limits import network_of
from app.api.connection_limits import ConnectionLimits, unread_bytes

HEAD_SECONDS = 15.0
HEAD_BYTES = 64 * 1024
REST_SECONDS = 30.0
STALL_SECONDS = 60.0
LINGER_SECONDS = 5.0
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n"
    b"Cache-Control: no-store\r\n\r\n"
)


class TimedProtocol(HttpToolsProtocol):
    """Closes a connection whose request line and headers do not come in time, or never seem to end.

    A body that goes on after its answer (a refusal, say) is dropped by uvicorn; here it also has to end in time. So has
    an answer that the client does not read. `connection_limits` counts it from first to last.
    """

    head_seconds = HEAD_SECONDS
    rest_seconds = REST_SECONDS
    stall_seconds = STALL_SECONDS
    linger_seconds = LINGER_SECONDS

    def __init__(self, *args: Any, connection_limits: ConnectionLimits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connection_limits = connection_limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._rest_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._body_comes = False
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: it has to say something, if there is a place for it."""
        super().connection_made(transport)
        address = network_of(self.client[0]) if self.client else "unknown"
        if self._connection_limits.acquire(self, address):
            self._await_head()
        else:
            self._refused = True
            transport.write(_FULL)
            self._close()

    def data_received(self, data: bytes) -> None:
        """Bytes came; while the head is not over they count against it."""
        if self._refused:
            return
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes - len(data) > HEAD_BYTES:
                self._give_up()
                return
        super().data_received(data)
        begins_none = self._is_idle() and self.transport.get_protocol() is self  # bytes such as an empty line
        if begins_none and not self.transport.is_closing():
            self._await_head()

    def on_message_begin(self) -> None:
        """A request begins: the first, or the next one on a kept connection."""
        if self._head_timer is None:
            self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is over."""
        self._stop_request_timers()
        self._body_comes = True
        self._connection_limits.mark_busy(self)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is over."""
        self._body_comes = False
        self._stop_request_timers()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is out, perhaps before the whole body was in."""
        super().on_response_complete()
        if self._body_comes:
            self._rest_timer = self.loop.call_later(self.rest_seconds, self._give_up)
        elif self._is_idle():
            self._connection_limits.mark_idle(self)
        if self.transport.is_closing():  # only what is written already still goes out
            self.loop.call_later(self.stall_seconds, self.transport.abort)

    def pause_writing(self) -> None:
        """The client does not read as fast as we send: it has to take this much in time."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(self.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read on."""
        self._stop_stall_timer()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for too long."""
        self._close()

    def handle_websocket_upgrade(self) -> None:
        """The connection goes on as a WebSocket, and keeps its place."""
        self._stop_request_timers()
        super().handle_websocket_upgrade()
        follower = self.transport.get_protocol()
        if isinstance(follower, CountedWebSocket):
            follower.counted_as = self

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self.end_counting()
        super().connection_lost(exc)

    def evict(self) -> None:
        """Make room for another connection, at once; an ordinary close lets the client see it before it asks again."""
        self._stop_request_timers()
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def has_unread_bytes(self) -> bool:
        """Whether the client's next bytes lie in the socket, to be read in the loop's next turn."""
        held = self.transport.get_extra_info("socket")
        return held is not None and unread_bytes(held.fileno()) > 0

    def end_counting(self) -> None:
        """Give the connection's place back and end its timers."""
        self._stop_request_timers()
        self._stop_stall_timer()
        self._connection_limits.release(self)

    def _is_idle(self) -> bool:
        """Whether nothing is under way that has a timer or an answer of its own."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and not self._body_comes and self._head_timer is None and self._rest_timer is None

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.head_seconds, self._give_up)

    def _give_up(self) -> None:
        self._stop_request_timers()
        self._close()

    def _close(self) -> None:
        """Close; what the client does not read soon is not waited for."""
        self.transport.close()
        self.loop.call_later(self.linger_seconds, self.transport.abort)

    def _stop_request_timers(self) -> None:
        for timer in (self._head_timer, self._rest_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._rest_timer = None

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None


class CountedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket that gives the place of its connection back when it is lost."""

    counted_as: TimedProtocol | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        if self.counted_as is not None:
            self.counted_as.end_counting()
        super().connection_lost(exc)
