"""A stand-in of SiliconFlow over loopback: an API that answers what a test plays, and a store of results behind TLS.

The client under test keeps all its guards: results are fetched from `https://s3.siliconflow.cn`, whose name leads to a
public address, and only the dialling is bent to loopback, where every dialled address is written down. A dialled
address that the test did not plan for is never connected to.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import http.client
import io
import json
import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.backends.siliconflow.backend import SiliconFlowBackend, open_siliconflow_backend
from app.backends.siliconflow.paid_result import FetchRetries
from app.images import Picture
from app.outbound.ssrf_safe_transport import GuardedNetwork

KEY = "sk-standin-4f9c2ab87de31065"
HOST = "s3.siliconflow.cn"
PUBLIC = "93.184.215.14"
TRACE = "ti_8w2k3j4h5g"
SIGNATURE = "very-secret-signature"
MODEL = "Qwen/Qwen-Image-Edit"
_PEM = Path(__file__).with_name("provider_stand_in.pem")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_LONGEST_WAIT_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Heard:
    """One request that arrived whole."""

    where: str  # api or store
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON of the body."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def photo(self) -> Image.Image:
        """The photo that was sent as a data URL."""
        scheme, data = self.fields["image"].split(",", 1)
        assert scheme == "data:image/jpeg;base64"
        return Image.open(io.BytesIO(base64.b64decode(data)), formats=("JPEG",))


class Wire:
    """The server's end of one connection, on which a test plays its answer."""

    def __init__(self, connection: socket.socket, heard: Heard, stopping: threading.Event) -> None:
        self.connection, self.heard, self.stopping = connection, heard, stopping

    def send(self, data: bytes) -> bool:
        """Send raw bytes; False when the client has gone."""
        try:
            self.connection.sendall(data)
        except OSError:
            return False
        return True

    def head(self, status: int, length: int | None, **headers: str) -> bytes:
        reason = http.client.responses.get(status, "Odd")
        lines = [f"HTTP/1.1 {status} {reason}", "Connection: close", f"x-siliconcloud-trace-id: {TRACE}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        lines += [] if length is None else [f"Content-Length: {length}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def reply(self, status: int, body: bytes | str, **headers: str) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send(self.head(status, len(data), **headers) + data)

    def json(self, status: int, value: Any) -> None:
        self.reply(status, json.dumps(value), Content_Type="application/json")

    def drip(self, data: bytes, pause_seconds: float = 0.05, first: bytes = b"") -> None:
        """One byte after another, until the client has gone."""
        self.send(first)
        for byte in data:
            if not self.send(bytes([byte])) or self.stopping.wait(pause_seconds):
                return

    def hang(self) -> None:
        """Say nothing until the client has gone."""
        self.connection.settimeout(_LONGEST_WAIT_SECONDS)
        with contextlib.suppress(OSError):
            self.connection.recv(1)


Play = Callable[[Wire], object]


class BentNetwork:
    """How a client reaches a stand-in, also from another process: public names, dialled on loopback.

    `names` says what each name leads to, `dialled` what was dialled.
    """

    def __init__(self, api_port: int, store_port: int) -> None:
        self.names: dict[str, list[str]] = {HOST: [PUBLIC]}
        self.dialled: list[str] = []
        self.api_port, self.store_port = api_port, store_port

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}/v1/images/generations"

    @property
    def network(self) -> GuardedNetwork:
        """How the client under test reaches the world."""
        authority = _CERTIFICATE.findall(_PEM.read_text())[-1]
        return GuardedNetwork(self._resolve, self._dial, ssl.create_default_context(cadata=authority))

    def backend(self, decode: Callable[[Path], Picture], **changes: Any) -> SiliconFlowBackend:
        """A backend that asks the stand-in."""
        values: dict[str, Any] = {
            "api_key": KEY,
            "api_url": self.api_url,
            "model": MODEL,
            "timeout_seconds": 60.0,
            "result_hosts": (HOST,),
            "network": self.network,
            "retries": FetchRetries(0.0),  # one try: whoever tests retries asks for some
            **changes,
        }
        return open_siliconflow_backend(decode=decode, **values)

    def _resolve(self, host: str, port: int) -> list[str]:
        if host == "127.0.0.1":
            return [host]
        if host not in self.names:
            raise socket.gaierror("no such name")
        return self.names[host]

    def _dial(self, address: str, port: int, timeout_seconds: float) -> socket.socket:
        self.dialled.append(address)
        ports = {("127.0.0.1", self.api_port): self.api_port, (PUBLIC, 443): self.store_port}
        if (address, port) not in ports:
            raise ConnectionRefusedError  # nothing beyond loopback is ever contacted
        return socket.create_connection(("127.0.0.1", ports[address, port]), timeout_seconds)


class StandIn(BentNetwork):
    """The provider. `api` and `store` may be replaced by what a test wants to see played."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.results: dict[str, bytes] = {}
        self.stopping = threading.Event()
        self.api: Play = self.paint
        self.store: Play = self.give
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(_PEM)
        self._api, self._store = _serve(self, "api", None), _serve(self, "store", tls)
        super().__init__(self._api.server_address[1], self._store.server_address[1])

    def close(self) -> None:
        self.stopping.set()
        for server in (self._api, self._store):
            server.shutdown()
            server.server_close()

    def asked(self, where: str) -> list[Heard]:
        return [request for request in self.heard if request.where == where]

    # What it plays unless told otherwise.

    def paint(self, wire: Wire) -> None:
        """The documented 200: the photo in negative, half as large again, so that each photo's result is its own."""
        photo = wire.heard.photo
        size = (round(photo.width * 1.5), round(photo.height * 1.5))
        wire.json(200, self.made(negative(photo.resize(size))))

    def give(self, wire: Wire) -> None:
        data = self.results.get(wire.heard.target)
        wire.reply(404, "<Error><Code>NoSuchKey</Code></Error>") if data is None else wire.reply(200, data)

    def made(self, image: Image.Image, **extra: Any) -> dict[str, Any]:
        """The body of a good answer, with the picture in the store."""
        return {
            "images": [{"url": self.put(png(image))}],
            "timings": {"inference": 12.345},
            "seed": 4242,
            **extra,
        }

    def put(self, data: bytes) -> str:
        """Put bytes into the store; gives their address."""
        target = f"/temporary/{len(self.results):04d}.png?Expires=1763733600&Signature={SIGNATURE}"
        self.results[target] = data
        return f"https://{HOST}{target}"


@contextlib.contextmanager
def stand_in() -> Iterator[StandIn]:
    """A running stand-in."""
    running = StandIn()
    try:
        yield running
    finally:
        running.close()


def negative(image: Image.Image) -> Image.Image:
    return Image.fromarray(255 - np.asarray(image.convert("RGB")))


def png(image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64


def _serve(owner: StandIn, where: str, tls: ssl.SSLContext | None) -> _Server:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connection: socket.socket = self.request
            connection.settimeout(_LONGEST_WAIT_SECONDS)
            with contextlib.suppress(OSError):  # a client that goes away, or that does not like our certificate
                if tls is not None:
                    connection = tls.wrap_socket(connection, server_side=True)
                with connection:
                    heard = _hear(where, connection)
                    if heard is not None:
                        owner.heard.append(heard)
                        play = owner.api if where == "api" else owner.store
                        play(Wire(connection, heard, owner.stopping))

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def _hear(where: str, connection: socket.socket) -> Heard | None:
    """Read one request; None when the client closes before it is whole."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
    pieces, missing = [body], int(headers.get("content-length", 0)) - len(body)
    while missing > 0:
        piece = connection.recv(min(missing, 1 << 20))
        if not piece:
            return None
        pieces.append(piece)
        missing -= len(piece)
    return Heard(where, method, target, headers, b"".join(pieces))
