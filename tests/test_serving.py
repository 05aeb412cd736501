"""Real sockets and real processes: two ports, slow and greedy clients, and an orderly end on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from app.api.auth.rate_windows import MemoryWindows
from app.api.connection_limits import ConnectionLimits
from app.api.http_protocol import HEAD_BYTES, TimedProtocol
from app.errors import RestoreError
from app.main import create_app, create_dashboard, serve
from app.main.serving import _listening, _server
from tests.harness import until
from tests.http_service import KEY, GatedBackend, assert_problem, describe, free_port, photo, settings_for

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 1024 * 1024


class Ports:
    """A service on two loopback ports, and how many bytes its connections have read."""

    def __init__(self, app: FastAPI, api: int, pages: int) -> None:
        self.app, self.api_port, self.pages_port = app, api, pages
        self.limits, self.backend = ConnectionLimits(), GatedBackend()
        self.bytes_read = 0

    def client(self, port: int | None = None) -> httpx2.Client:
        return httpx2.Client(base_url=f"http://127.0.0.1:{port or self.api_port}", headers={"X-API-KEY": KEY})

    @contextlib.contextmanager
    def gated(self) -> Iterator[None]:
        """While the block runs no photo is finished."""
        self.backend.gate.clear()
        try:
            yield
        finally:
            self.backend.gate.set()

    def raw(self, head: str) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.api_port), timeout=10)
        plain.sendall(head.replace("\n", "\r\n").encode())
        return plain


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """Both servers in one event loop in a thread, as `serve` has them, save the signals."""
    settings = settings_for(tmp_path_factory.mktemp("ports"), key=KEY, max_file_size_mb=1)
    backend = GatedBackend()
    app = create_app(settings, backends={"local": backend}, describe=describe)
    sockets = [_listening("127.0.0.1", 0), _listening("127.0.0.1", 0)]
    limits = ConnectionLimits(most=40)
    servers = [_server(app, limits, ()), _server(create_dashboard(app), limits, ())]

    async def main() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.gather(*(s.serve(sockets=[p]) for s, p in zip(servers, sockets, strict=True)))

    found = Ports(app, *(port.getsockname()[1] for port in sockets))
    found.limits, found.backend = limits, backend
    data_received = TimedProtocol.data_received

    def counted(self: TimedProtocol, data: bytes) -> None:
        found.bytes_read += len(data)
        data_received(self, data)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TimedProtocol, "data_received", counted)
        thread.start()
        assert app.state.service.loaded.wait(20)
        yield found
        for server in servers:
            server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


def test_both_ports_serve_the_api_and_one_the_pages(ports: Ports) -> None:
    with ports.client() as api, ports.client(ports.pages_port) as pages:
        assert api.get("/health/live").status_code == pages.get("/health/live").status_code == 200
        assert pages.get("/").headers["content-type"].startswith("text/html")
        assert_problem(api.get("/"), 404, "not_found")
        answer = pages.post("/api/v1/enhance", files={"file": photo()}, headers={"Prefer": "wait=20"})
        assert answer.json()["status"] == "completed"
        assert api.get(answer.json()["results"][0]["url"]).status_code == 200
        assert "server" not in api.get("/health/live").headers


def answer_of(plain: socket.socket) -> bytes:
    """One answer with a JSON object as its body."""
    answer = b""
    while not answer.endswith(b"}") and (part := plain.recv(65536)):
        answer += part
    return answer


def send_until_refused(plain: socket.socket, chunk: bytes, most: int) -> bytes:
    """Send chunks until the other side closes; gives what it answered."""
    sent = 0
    with contextlib.suppress(OSError):
        while sent < most:
            plain.sendall(chunk)
            sent += len(chunk)
    answer = b""
    with contextlib.suppress(OSError):
        while part := plain.recv(65536):
            answer += part
    return answer


HEAD = "POST /api/v1/enhance HTTP/1.1\nHost: localhost\nContent-Type: multipart/form-data; boundary=b\n"


@pytest.mark.parametrize("length", ["Content-Length: 1000000000\n", "Transfer-Encoding: chunked\n"])
@pytest.mark.parametrize("key", ["", "X-API-KEY: a-wrong-key-of-some-length\n"])
def test_without_a_valid_key_no_body_is_taken_in(ports: Ports, length: str, key: str) -> None:
    ports.bytes_read = 0
    ports.app.state.context.rate_limits.windows = MemoryWindows()
    with ports.raw(HEAD + key + length + "\n") as plain:
        assert select.select([plain], [], [], 10)[0]  # the head alone is answered
        answer = send_until_refused(plain, b"ffff\r\n" + bytes(0xFFFF) + b"\r\n", 20 * MEGABYTE)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in answer.lower()
    assert ports.bytes_read <= 64 * 1024 + 1000


def test_a_body_without_end_is_cut_off_at_the_limit(ports: Ports) -> None:
    ports.bytes_read = 0
    part = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n'
    with ports.raw(HEAD + f"X-API-KEY: {KEY}\nTransfer-Encoding: chunked\n\n") as plain:
        plain.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        answer = send_until_refused(plain, b"ffff\r\n" + bytes(0xFFFF) + b"\r\n", 40 * MEGABYTE)
    assert b" 413 " in answer[:20]
    assert ports.bytes_read < 4 * MEGABYTE


def test_curls_question_before_a_large_body_is_answered_at_once(ports: Ports) -> None:
    with ports.raw(HEAD + f"X-API-KEY: {KEY}\nContent-Length: 99000000\nExpect: 100-continue\n\n") as plain:
        answer = answer_of(plain)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer


def test_an_ordinary_client_reads_why_its_large_photo_was_refused(ports: Ports) -> None:
    with ports.client() as client:
        answer = client.post("/api/v1/enhance", files={"file": ("big.png", bytes(2 * MEGABYTE))})
        assert_problem(answer, 413, "file_too_large")
        assert client.post("/api/v1/enhance", files={"file": photo()}).status_code == 202


def test_the_rest_of_a_refused_body_has_to_end_in_time(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimedProtocol, "rest_seconds", 0.2)
    part = b'--b\r\nContent-Disposition: form-data; name="x"; filename="y"\r\n\r\n'
    with ports.raw(HEAD + f"X-API-KEY: {KEY}\nContent-Length: 900000\n\n") as plain:
        plain.sendall(part + bytes(100))
        assert b"unknown_file_field" in answer_of(plain)
        assert plain.recv(100) == b""


@pytest.mark.parametrize("begun", ["", "GET /health/live HT", "GET /health/live HTTP/1.1\nHost: loc"])
def test_a_head_that_does_not_come_is_not_waited_for(ports: Ports, monkeypatch: pytest.MonkeyPatch, begun: str) -> None:
    monkeypatch.setattr(TimedProtocol, "head_seconds", 0.2)
    with ports.raw(begun) as plain:
        began = time.monotonic()
        assert plain.recv(100) == b""
        assert time.monotonic() - began < 3


def test_a_head_that_trickles_is_not_waited_for(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, the whole does not: what counts is when the head began."""
    monkeypatch.setattr(TimedProtocol, "head_seconds", 0.4)
    with ports.raw("") as plain:
        began = time.monotonic()
        assert drip(plain, b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100, began + 5)
        assert 0.3 < time.monotonic() - began < 3


def test_a_head_that_comes_whole_byte_by_byte_is_answered(ports: Ports) -> None:
    with ports.raw("") as plain:
        assert not drip(plain, b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r", time.monotonic() + 5)
        plain.settimeout(10)
        plain.sendall(b"\n")
        assert answer_of(plain).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("stray", [b"\r\n", b"\r\n\r\n", b"\n", b"G"])
def test_an_empty_line_after_a_request_resets_nothing(
    ports: Ports, monkeypatch: pytest.MonkeyPatch, stray: bytes
) -> None:
    """The server's own keep-alive timer ends with the first byte, so the head's timer has to begin with it."""
    monkeypatch.setattr(TimedProtocol, "head_seconds", 0.3)
    with ports.raw("GET /health/live HTTP/1.1\nHost: localhost\n\n") as plain:
        assert answer_of(plain).startswith(b"HTTP/1.1 200")
        plain.sendall(stray)
        began = time.monotonic()
        assert plain.recv(100) == b""
        assert time.monotonic() - began < 3


def test_a_request_after_an_empty_line_is_answered(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimedProtocol, "head_seconds", 5.0)
    ask = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ports.raw("") as plain:
        for stray in (b"", b"\r\n", b"\r\n"):
            plain.sendall(stray + ask)
            assert answer_of(plain).startswith(b"HTTP/1.1 200")


def test_a_websocket_outlives_the_timer_of_its_head(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimedProtocol, "head_seconds", 0.3)
    with ports.client() as client, ports.gated():
        job_id = client.post("/api/v1/enhance", files={"file": photo()}).json()["job_id"]
        address = f"ws://127.0.0.1:{ports.api_port}/api/v1/jobs/{job_id}/status"
        with connect(address, additional_headers={"X-API-KEY": KEY}) as live:
            json.loads(live.recv(timeout=10))
            until_silent(live)
            assert ports.limits.total >= 1
    until(lambda: ports.limits.total == 0)


def until_silent(live: ClientConnection) -> None:
    """Read messages until none comes for a second; fails when the connection is closed."""
    with contextlib.suppress(TimeoutError):
        while True:
            live.recv(timeout=1.0)


def test_idle_connections_make_room_and_never_keep_others_out(ports: Ports) -> None:
    """The attack: more connections than there are places, none of which asks for anything."""
    with contextlib.ExitStack() as held:
        for _ in range(100):
            held.enter_context(ports.raw(""))
        with ports.raw("GET /health/live HTTP/1.1\nHost: localhost\n\n") as plain:
            assert answer_of(plain).startswith(b"HTTP/1.1 200")
        assert ports.limits.total <= 40
    until(lambda: ports.limits.total == 0)


def test_a_connection_with_a_request_under_way_is_not_ended_for_others(ports: Ports) -> None:
    body = b"x" * 100
    begun = f"POST /api/v1/session HTTP/1.1\nHost: localhost\nContent-Length: {len(body)}\nExpect: 100-continue\n\n"
    with contextlib.ExitStack() as held:
        busy = [held.enter_context(ports.raw(begun)) for _ in range(40)]
        assert all(plain.recv(1000).startswith(b"HTTP/1.1 100 ") for plain in busy)  # each body is being waited for
        with ports.raw("GET /health/live HTTP/1.1\nHost: localhost\n\n") as plain, contextlib.suppress(ConnectionError):
            assert plain.recv(1000).startswith(b"HTTP/1.1 503 ")
        busy[0].sendall(body)
        assert answer_of(busy[0]).startswith(b"HTTP/1.1 400 ")
    until(lambda: ports.limits.total == 0)


def test_an_answer_that_is_not_read_is_not_waited_for(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimedProtocol, "stall_seconds", 0.5)
    with ports.client() as client:
        upload = {"file": ("a.png", photo(600, 600, "PNG") + bytes(700_000))}
        job = client.post("/api/v1/enhance", files=upload, headers={"Prefer": "wait=20"}).json()
    path = f"/api/v1/jobs/{job['job_id']}/original"
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(("127.0.0.1", ports.api_port))
        plain.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-KEY: {KEY}\r\n\r\n".encode() * 30)
        until(lambda: ports.limits.total == 1)
        until(lambda: ports.limits.total == 0)


@pytest.mark.parametrize(
    ("proxies", "seen"),
    [((), "127.0.0.1"), (("10.0.0.0/8",), "127.0.0.1"), (("127.0.0.1",), "9.9.9.9"), (("127.0.0.0/8",), "9.9.9.9")],
)
def test_a_forwarded_address_counts_only_from_a_named_proxy(proxies: tuple[str, ...], seen: str) -> None:
    told = list[str]()

    async def look(scope: Any, receive: Any, send: Any) -> None:
        told.append(scope["client"][0])

    config = _server(look, ConnectionLimits(), proxies).config
    config.load()
    headers = [(b"x-forwarded-for", b"9.9.9.9")]
    asyncio.run(config.loaded_app({"type": "http", "client": ("127.0.0.1", 1), "headers": headers}, None, None))
    assert told == [seen]


def drip(plain: socket.socket, data: bytes, deadline: float) -> bool:
    """Send byte by byte until the other side closes; whether it did before the deadline."""
    plain.settimeout(0.01)
    for byte in data:
        if time.monotonic() > deadline:
            return False
        try:
            plain.sendall(bytes([byte]))
            if plain.recv(100) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_a_head_that_never_ends_is_cut_off(ports: Ports) -> None:
    ports.bytes_read = 0
    with ports.raw("GET /health/live HTTP/1.1\nHost: localhost\n") as plain:
        answer = send_until_refused(plain, b"X-Filler: " + b"a" * 8000 + b"\r\n", 20 * MEGABYTE)
    assert b" 200 " not in answer
    assert ports.bytes_read < HEAD_BYTES + 2 * MEGABYTE


@pytest.mark.parametrize(
    "text",
    ["NONSENSE\n\n", "GET /\x00 HTTP/1.1\n\n", "GET / HTTP/9.9\n\n", "POST /enhance HTTP/1.1\nContent-Length: -5\n\n"],
)
def test_what_is_no_http_gets_a_400(ports: Ports, text: str) -> None:
    with ports.raw(text) as plain:
        assert b" 400 " in plain.recv(65536)[:20]


def test_a_connection_is_kept_for_several_requests(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimedProtocol, "head_seconds", 0.3)
    ask = "GET /health/live HTTP/1.1\nHost: localhost\n\n".replace("\n", "\r\n").encode()
    with ports.raw("") as plain:
        for pause in (0.0, 0.5):  # idle between requests is the keep-alive's matter, not the head's
            time.sleep(pause)
            plain.sendall(ask)
            assert answer_of(plain).startswith(b"HTTP/1.1 200")


def test_a_websocket_follows_a_job_and_refusals_can_be_read(ports: Ports) -> None:
    with ports.client() as client:
        job_id = client.post("/api/v1/enhance", files={"file": photo()}).json()["job_id"]
    address = f"ws://127.0.0.1:{ports.pages_port}/api/v1/jobs/{job_id}/status"
    with connect(address, additional_headers={"X-API-KEY": KEY}) as live:
        *_, state = [json.loads(message) for message in live]  # ends with the close of 1000
        assert (live.close_code, state["status"]) == (1000, "completed")
    with connect(address) as live:
        with pytest.raises(ConnectionClosed):
            live.recv(10)
        assert (live.close_code, live.close_reason) == (4401, "key_required")


# Processes.


class Server:
    """`tests.lanczos_server` in a process of its own."""

    def __init__(self, folder: Path, seconds_per_strip: float, drain_seconds: float) -> None:
        self.port, self.pages_port = free_port(), free_port()
        arguments = [folder, self.port, self.pages_port, seconds_per_strip, drain_seconds]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.lanczos_server", *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "API_KEY"},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "loaded cpu\n"
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10)

    def status(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/status/{job_id}").json()
        return found

    def wait_for(self, job_id: str, status: str) -> None:
        until(lambda: self.status(job_id)["status"] == status)

    def wait_until_restoring(self, job_id: str) -> None:
        until(lambda: self.client.get(f"/api/v1/jobs/{job_id}").json()["stage"] == "upscaling")

    def submit(self) -> str:
        return str(self.client.post("/enhance", files={"files": photo()}).json()["job_id"])

    def end(self) -> int:
        self.client.close()
        code = self.process.wait(15)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@contextlib.contextmanager
def serving(folder: Path, seconds_per_strip: float = 0.0, drain_seconds: float = 20) -> Iterator[Server]:
    server = Server(folder, seconds_per_strip, drain_seconds)
    try:
        yield server
    finally:
        server.process.kill()
        server.end()


def test_sigterm_refuses_the_new_finishes_the_running_and_keeps_the_waiting(tmp_path: Path) -> None:
    with serving(tmp_path, seconds_per_strip=0.3) as server:
        first, *others = [server.submit() for _ in range(4)]
        server.wait_until_restoring(first)
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 5
        while (refused := server.client.post("/enhance", files={"files": photo()})).status_code == 202:
            others.append(refused.json()["job_id"])
            assert time.monotonic() < deadline
        assert_problem(refused, 503, "draining")
        assert int(refused.headers["retry-after"]) > 0
        assert server.client.get("/health/live").status_code == 200
        assert server.end() == 0
    with serving(tmp_path) as server:
        assert server.status(first)["status"] == "completed"
        for job_id in others:
            server.wait_for(job_id, "completed")
        server.process.send_signal(signal.SIGINT)
        assert server.end() == 0


def test_a_second_sigterm_ends_it_at_once_and_the_photo_waits_again(tmp_path: Path) -> None:
    with serving(tmp_path, seconds_per_strip=60, drain_seconds=60) as server:
        job_id = server.submit()
        server.wait_until_restoring(job_id)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.client.post("/enhance", files={"files": photo()}).status_code == 503)
        assert server.process.poll() is None  # the first signal was handled, and it waits for the photo
        began = time.monotonic()
        while server.process.poll() is None:  # impatient to the last moment
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.005)
        assert server.end() == 0
        assert time.monotonic() - began < 8
    with serving(tmp_path) as server:
        server.wait_for(job_id, "completed")


@pytest.fixture
def own_signals() -> Iterator[None]:
    """`serve` keeps the signals; give them back to pytest."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
def test_a_second_process_on_the_same_data_is_told_so(tmp_path: Path) -> None:
    with serving(tmp_path), pytest.raises(RestoreError) as caught:
        serve(settings_for(tmp_path, port=free_port(), dashboard_port=free_port()))
    assert caught.value.code == "already_running"


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RestoreError) as caught:
            serve(settings_for(tmp_path, port=port, dashboard_port=free_port()))
    assert caught.value.code == "port_taken"
    assert f"Port {port} on 127.0.0.1 " in caught.value.detail
