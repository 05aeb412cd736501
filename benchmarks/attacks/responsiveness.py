"""How long others wait for health and for a submit while one client does its worst from a process of its own.

Requests are due at fixed times and their wait counts from then, so that a service which stands still is seen as often
as it should have answered. The attackers run at a low priority, since real ones bring processors of their own.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import math
import multiprocessing
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import NamedTuple

import requests

from benchmarks.attacks.hostile import photo
from benchmarks.attacks.target import TIMEOUT_SECONDS, Seen, Target

MOST_HEALTH_SECONDS, MOST_SUBMIT_SECONDS = 0.2, 0.5
_QUIET_SECONDS = 5.0
_HEALTH_EVERY_SECONDS, _SUBMIT_EVERY_SECONDS = 0.05, 1.0
_ASKERS = 64
_LOW_PRIORITY = 10
_RAMP_SECONDS = 1.0

Attack = Callable[[Target], int]  # one call of the attack; its status, 0 without an answer


class Waits(NamedTuple):
    """Seconds that each request waited, and how many had which end, by words such as `health 200`."""

    health: list[float]
    submits: list[float]
    ends: Counter[str]


def others_while(target: Target, attack: Attack, threads: int, seconds: float) -> Seen:
    """Measure before and while some threads attack; broken where others wait longer than the limits allow."""
    before = measure(target, min(seconds, _QUIET_SECONDS))
    with _attacking(target, attack, threads) as load:
        waits = measure(target, seconds)
        load.send("stop")
        calls: Counter[int] = load.recv()
    made = ", ".join(f"{count} of status {status}" for status, count in sorted(calls.items())) or "none answered"
    words = [f"health {spread(waits.health)}", f"submits {spread(waits.submits)}", f"the attack's calls: {made}"]
    words += [f"before it health p99 {quantile(before.health, 0.99) * 1000:.0f} ms", *strange(waits)]
    return Seen("; ".join(words), not holds(waits))


def holds(waits: Waits) -> bool:
    """Whether all others were served, and in time."""
    late = quantile(waits.health, 0.99) >= MOST_HEALTH_SECONDS or max(waits.submits) >= MOST_SUBMIT_SECONDS
    return not late and not strange(waits)


def strange(waits: Waits) -> list[str]:
    """Ends of requests that are none of a served one."""
    return [f"{count} x {end}" for end, count in waits.ends.items() if end not in ("health 200", "submit 202")]


def measure(target: Target, seconds: float) -> Waits:
    """Ask for health and submit small photos, as somebody else; what is open at the end waited until then."""
    waits = Waits([], [], Counter())
    lock = threading.Lock()
    began = time.monotonic()
    body, content_type = _form(photo())
    requests_due = sorted(_due(began, seconds))

    def ask(due: float, kind: str) -> None:
        if kind == "health":
            status = _ask(target, "GET", "/api/v1/health", target.neighbour)
        else:
            status = _ask(target, "POST", "/enhance", target.neighbour | {"content-type": content_type}, body)
        with lock:
            (waits.health if kind == "health" else waits.submits).append(time.monotonic() - due)
            waits.ends[f"{kind} {status}"] += 1

    pool = concurrent.futures.ThreadPoolExecutor(_ASKERS)
    sent = []
    for due, kind in requests_due:
        time.sleep(max(0.0, due - time.monotonic()))
        sent.append((pool.submit(ask, due, kind), due, kind))
    concurrent.futures.wait([each for each, _, _ in sent], MOST_SUBMIT_SECONDS)
    with lock:
        found, now = Waits([*waits.health], [*waits.submits], waits.ends.copy()), time.monotonic()
        left = [(due, kind) for each, due, kind in sent if not each.done()]
    pool.shutdown(wait=False, cancel_futures=True)
    for due, kind in left:
        (found.health if kind == "health" else found.submits).append(now - due)
        found.ends[f"{kind} unanswered"] += 1
    return found


def quantile(seconds: list[float], share: float) -> float:
    """The smallest that is no smaller than this share of them."""
    return sorted(seconds)[max(0, math.ceil(share * len(seconds)) - 1)]


def spread(seconds: list[float]) -> str:
    """Median, p99 and longest in words."""
    p99, most = quantile(seconds, 0.99) * 1000, max(seconds) * 1000
    return f"median {statistics.median(seconds) * 1000:.0f} p99 {p99:.0f} max {most:.0f} ms (n={len(seconds)})"


def _due(began: float, seconds: float) -> Iterator[tuple[float, str]]:
    for number in range(int(seconds / _HEALTH_EVERY_SECONDS)):
        yield began + number * _HEALTH_EVERY_SECONDS, "health"
    for number in range(int(seconds / _SUBMIT_EVERY_SECONDS)):
        yield began + (number + 0.5) * _SUBMIT_EVERY_SECONDS, "submit"


def _form(data: bytes) -> tuple[bytes, str]:
    """A multipart body with one photo, and its content type."""
    prepared = requests.Request("POST", "http://localhost", files={"files": ("photo", data)}).prepare()
    content_type = prepared.headers["content-type"]
    assert isinstance(prepared.body, bytes)
    assert isinstance(content_type, str)
    return prepared.body, content_type


def _ask(target: Target, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> int:
    """The status of one request on a connection of its own, 0 without an answer."""
    connection = http.client.HTTPConnection(*target.address, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return 0
    else:
        return answer.status
    finally:
        connection.close()


@contextlib.contextmanager
def _attacking(target: Target, attack: Attack, threads: int) -> Iterator[Connection]:
    """A process that attacks until it is told to stop, and then tells how many of its calls had which status."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_attack, args=(target, attack, threads, its), daemon=True)
    process.start()
    try:
        ours.recv()  # it has begun
        time.sleep(_RAMP_SECONDS)
        yield ours
    finally:
        process.kill()
        process.join()


def _attack(target: Target, attack: Attack, threads: int, told: Connection) -> None:
    """The attacking process: so many threads that call one after another."""
    os.nice(_LOW_PRIORITY)
    calls: Counter[int] = Counter()

    def loop() -> None:
        while True:
            try:
                status = attack(target)
            except (requests.RequestException, OSError):
                status = 0
            calls[status] += 1

    for _ in range(threads):
        threading.Thread(target=loop, daemon=True).start()
    told.send("begun")
    told.recv()
    told.send(Counter(dict(calls)))
    os._exit(0)
