"""The whole service over HTTP, and the clients that load it, for the kill -9 campaign: each runs in a forked child.

The listening socket belongs to the campaign, so that every life of the service has the same port.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import time
from pathlib import Path
from typing import Any, NoReturn

import uvicorn

from app.backends.protocol import Backend
from app.main import create_app
from app.settings import Settings
from tests.fault_service import LEASE_TIMES, QUEUE_LIMIT, TILE_SECONDS, arm
from tests.harness import LanczosBackend, photo_bytes
from tests.http_service import describe, settings_for

_BOUNDARY = "kill9-boundary"
_CLIENT_TIMEOUT_SECONDS = 5.0


def listen() -> socket.socket:
    """A socket on a free port of the loopback address."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    return listening


def serve_http(folder: Path, database_url: str, listening: socket.socket, *, point: str | None, seed: int) -> NoReturn:
    """The child's life: the real application under a real server, until a signal ends it."""
    if point is not None:
        arm(point, countdown=1 + seed % 3)
    settings = settings_for(folder, database_url=database_url, queue_limit=QUEUE_LIMIT)
    backend = LanczosBackend(tile=4, on_tile=lambda _: time.sleep(TILE_SECONDS))
    run_server(settings, backend, listening)


def run_server(settings: Settings, backend: Backend, listening: socket.socket) -> NoReturn:
    """The real application around a backend under a real server, until a signal ends it."""
    parts: dict[str, Any] = {"backends": {"local": backend}, "describe": describe, "warm_up": lambda: "lanczos"}
    app = create_app(settings, **parts, lease_times=LEASE_TIMES)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on", timeout_graceful_shutdown=2))
    server.run(sockets=[listening])
    os._exit(0)


def load(port: int, answers: int, seed: int) -> NoReturn:
    """A client's life: submit, note every 202, cancel now and then, and never give up on a dead service."""
    chance = random.Random(seed)
    while True:
        try:
            _submit(port, answers, chance)
        except (OSError, http.client.HTTPException):  # the service was killed under us
            time.sleep(0.01)


def _submit(port: int, answers: int, chance: random.Random) -> None:
    body = b"".join(_part(chance) for _ in range(chance.randint(1, 3))) + f"--{_BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    status, said = call(port, "POST", "/enhance", body, headers)
    if status != 202:
        time.sleep(0.02)
        return
    job_id = json.loads(said)["job_id"]
    os.write(answers, f"{job_id}\n".encode())
    if chance.random() < 0.1:
        call(port, "DELETE", f"/api/v1/jobs/{job_id}", b"", {})


def _part(chance: random.Random) -> bytes:
    content = photo_bytes(24, chance.randint(4, 24), chance.randint(0, 9), chance.choice(["JPEG", "PNG"]))
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    return head.encode() + content + b"\r\n"


def call(port: int, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_CLIENT_TIMEOUT_SECONDS)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
