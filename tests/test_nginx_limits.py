"""Whom `deploy/nginx.conf` counts as one client, and that what is open elsewhere takes no place of uploads."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2

from app.api.routes import jobs
from tests import nginx
from tests.harness import until
from tests.s3_servers import free_ports

UPLOADS_OF_A_CLIENT = 20


class HeldServer(http.server.ThreadingHTTPServer):
    """Keeps whoever asks for a held path waiting until it is released; answers all others with whom it was told of."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.release, self.held = threading.Event(), list[str]()

    def handle_error(self, *_: object) -> None:
        """Whoever was held has left by the end."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: HeldServer

    def do_GET(self) -> None:
        if self.headers["X-Held"]:
            self.server.held.append(self.command)
            self.server.release.wait(60)
        body = self.headers["X-Forwarded-For"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def proxied(folder: Path, *, behind_proxy: bool = False) -> Iterator[tuple[HeldServer, int]]:
    """A server with Nginx before it, and the port of Nginx; `behind_proxy` as the page of several machines says."""
    with HeldServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (port,), target = free_ports(1), server.server_address[1]
        configuration = nginx.render(folder, port, [target] * 2, [target] * 2)
        if behind_proxy:
            text = configuration.read_text(encoding="utf-8")
            for line in ("set_real_ip_from  10.0.0.5;", "real_ip_header ", "real_ip_recursive on;"):
                assert f"# {line}" in text
                text = text.replace(f"# {line}", line)
            configuration.write_text(text.replace("10.0.0.5", "127.0.0.1"), encoding="utf-8")
        try:
            with nginx.running(configuration, port):
                yield server, port
        finally:
            server.release.set()
            server.shutdown()


def hold(stack: contextlib.ExitStack, port: int, method: str, path: str, client: str = "") -> None:
    """A request that stays open until the stack ends."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-Held: yes\r\nX-Forwarded-For: {client}\r\n"
    plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
    plain.sendall(f"{head}Content-Length: 0\r\n\r\n".encode())


def test_open_pages_take_no_place_of_uploads(tmp_path: Path) -> None:
    with proxied(tmp_path) as (server, port), contextlib.ExitStack() as stack:
        for _ in range(UPLOADS_OF_A_CLIENT + 5):
            hold(stack, port, "GET", "/api/v1/config")
        until(lambda: len(server.held) == UPLOADS_OF_A_CLIENT + 5)
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            assert client.post(jobs.SUBMIT, content=b"photo").status_code == 200
            for _ in range(UPLOADS_OF_A_CLIENT):
                hold(stack, port, "POST", jobs.SUBMIT)
            until(lambda: server.held.count("POST") == UPLOADS_OF_A_CLIENT)
            refused = client.post(jobs.SUBMIT, content=b"photo")
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            assert client.get("/api/v1/config").status_code == 200


def test_behind_another_proxy_each_of_its_clients_is_counted_and_told_apart(tmp_path: Path) -> None:
    with proxied(tmp_path, behind_proxy=True) as (server, port), contextlib.ExitStack() as stack:
        for _ in range(UPLOADS_OF_A_CLIENT):
            hold(stack, port, "POST", jobs.SUBMIT, "10.1.2.3")
        until(lambda: len(server.held) == UPLOADS_OF_A_CLIENT)
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            codes = {}
            for address in ("10.1.2.3", "10.1.2.4"):
                answer = client.post(jobs.SUBMIT, content=b"photo", headers={"X-Forwarded-For": f"10.9.9.9, {address}"})
                codes[address] = answer.status_code
    assert codes == {"10.1.2.3": 429, "10.1.2.4": 200}
    assert answer.text == "10.1.2.4"
