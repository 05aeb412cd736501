"""A TCP proxy on loopback that can cut what it carries: WebSockets only, or everything, as a bad network does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

_CHUNK_BYTES = 65536


class CutProxy:
    """Forwards connections to a port of this machine; `cut_sockets` and `cut_all` may be switched at any time.

    Attributes:
        cut_sockets: WebSockets are closed and new ones refused.
        cut_all: every new connection is closed at once.
        sockets_cut: how many WebSockets were cut or refused.
    """

    def __init__(self, target_port: int) -> None:
        self.cut_sockets = self.cut_all = False
        self.sockets_cut = 0
        self._target = target_port
        self._open: set[socket.socket] = set()
        self._live: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """Where the browser goes."""
        return f"http://127.0.0.1:{self.port}"

    def cut_now(self, *, only_sockets: bool) -> None:
        """Cut what is open, and from now on the same kind."""
        self.cut_sockets, self.cut_all = True, not only_sockets
        for connection in list(self._live if only_sockets else self._open):
            self.sockets_cut += connection in self._live
            _close(connection)

    def mend(self) -> None:
        """Carry everything again."""
        self.cut_sockets = self.cut_all = False

    def close(self) -> None:
        """Stop listening and cut everything."""
        self._listener.close()
        for connection in list(self._open):
            _close(connection)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.cut_all:
            return _close(client)
        with contextlib.suppress(OSError):
            server = socket.create_connection(("127.0.0.1", self._target))
            self._open |= {client, server}
            threading.Thread(target=self._carry, args=(server, client), daemon=True).start()
            self._carry(client, server)
        return None

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                if b"Upgrade: websocket" in data:
                    if self.cut_sockets:
                        self.sockets_cut += 1
                        break
                    self._live |= {source, sink}
                sink.sendall(data)
        for connection in (source, sink):
            self._open.discard(connection)
            self._live.discard(connection)
            _close(connection)


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextlib.contextmanager
def cut_proxy(target_port: int) -> Iterator[CutProxy]:
    """A proxy in front of a port."""
    proxy = CutProxy(target_port)
    try:
        yield proxy
    finally:
        proxy.close()
