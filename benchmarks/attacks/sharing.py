"""Attacks by which one client keeps others out: of connections, of threads, of the queue, of its own address."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import requests

from benchmarks.attacks.hostile import many_profiles, many_segments, photo
from benchmarks.attacks.target import Target

_TIMEOUT_SECONDS = 60.0
_IDLE_SECONDS = 22.0


def idle_connections(target: Target) -> str:
    """2: after a first request, an empty line ends the timer of an idle connection."""
    held = []
    for _ in range(240):
        with contextlib.suppress(OSError):
            connection = socket.create_connection(target.address, 5)
            connection.settimeout(5)
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.recv(65536)
            connection.sendall(b"\r\n")
            held.append(connection)
    time.sleep(_IDLE_SECONDS)
    alive = sum(_is_open(connection) for connection in held)
    for connection in held:
        connection.close()
    return f"{alive} of {len(held)} idle connections held after {_IDLE_SECONDS:g} s"


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while data := connection.recv(65536):
            del data
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def warm_ups(target: Target, seconds: float = 20.0) -> str:
    """3: empty warm-ups in a loop, while a photo of the same key is in work."""
    _submit(target, target.attacker, photo(800, 600))

    def attack() -> None:
        requests.post(f"{target.url}/api/v1/models/warmup", headers=target.attacker, timeout=_TIMEOUT_SECONDS)

    return _others_while(target, attack, 8, seconds)


def header_bombs(target: Target, seconds: float = 20.0) -> str:
    """4: headers that cost seconds to read."""
    files = [many_segments(), many_profiles()]

    def attack() -> None:
        for data in files:
            _submit(target, target.attacker, data)

    return _others_while(target, attack, 10, seconds)


def _others_while(target: Target, attack: Callable[[], object], threads: int, seconds: float) -> str:
    """The seconds that others wait for health and for a submit while some threads attack."""
    health: list[float] = []
    submits: list[float] = []
    with _attacking(attack, threads):
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            for _ in range(10):
                health.append(_timed(lambda: _ask_health(target)))
                time.sleep(0.02)
            submits.append(_timed(lambda: _submit(target, target.neighbour, photo())))
    return f"health {_spread(health)}; submits {_spread(submits)}"


def _ask_health(target: Target) -> None:
    requests.get(f"{target.url}/api/v1/health", headers=target.neighbour, timeout=_TIMEOUT_SECONDS)


@contextlib.contextmanager
def _attacking(attack: Callable[[], object], threads: int) -> Iterator[None]:
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            with contextlib.suppress(requests.RequestException):
                attack()

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for _ in range(threads):
            pool.submit(loop)
        time.sleep(1.0)
        try:
            yield
        finally:
            stop.set()


def queue_of_one(target: Target) -> str:
    """14, 15: one key fills the queue; what does another get?"""
    taken = 0
    for _ in range(120):
        taken += _submit(target, target.attacker, photo(600, 400)) == 202
    answers = [_submit(target, target.neighbour, photo()) for _ in range(5)]
    return f"{taken} of 120 taken from one key; another's five: {answers}"


def wrong_keys(target: Target) -> str:
    """16: ten wrong keys, then the right one from the same address."""
    for _ in range(12):
        requests.get(f"{target.url}/api/v1/jobs", headers={"x-api-key": "wrong"}, timeout=_TIMEOUT_SECONDS)
    answer = requests.get(f"{target.url}/api/v1/jobs", headers=target.neighbour, timeout=_TIMEOUT_SECONDS)
    return f"the right key: {answer.status_code}"


def _submit(target: Target, headers: dict[str, str], data: bytes) -> int:
    """The status of a submit, 0 without an answer."""
    try:
        files = {"files": ("photo", data)}
        url = f"{target.url}/enhance"
        return requests.post(url, files=files, headers=headers, timeout=_TIMEOUT_SECONDS).status_code
    except requests.RequestException:
        return 0


def _timed(ask: Callable[[], object]) -> float:
    began = time.monotonic()
    with contextlib.suppress(requests.RequestException):
        ask()
    return time.monotonic() - began


def _spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"median {statistics.median(ordered) * 1000:.0f} p99 {p99 * 1000:.0f} ms (n={len(ordered)})"
