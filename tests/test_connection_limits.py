"""Which connection goes when there is no place for another, and that a process short of descriptors goes on working."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from app.api import connection_limits
from app.api.connection_limits import (
    FILES_OF_ARCHIVE,
    ConnectionLimits,
    archives_within,
    connections_within,
    descriptor_limit,
    raise_descriptor_limit,
    unread_bytes,
)
from tests.harness import until
from tests.http_service import free_port, photo

ROOT = Path(__file__).resolve().parents[1]
DESCRIPTORS = 120


class Connection:
    """A connection that notes its end."""

    def __init__(self) -> None:
        self.ended = False
        self.unread = False

    def has_unread_bytes(self) -> bool:
        return self.unread

    def evict(self) -> None:
        self.ended = True


def acquire(limits: ConnectionLimits, address: str, count: int) -> list[Connection]:
    connections = [Connection() for _ in range(count)]
    assert all(limits.acquire(connection, address) for connection in connections)
    return connections


def test_the_connection_that_is_idle_longest_makes_room() -> None:
    limits = ConnectionLimits(most=3)
    first, second, third = acquire(limits, "a", 3)
    limits.mark_busy(first)
    limits.mark_busy(second)
    limits.mark_idle(second)
    acquire(limits, "b", 1)
    assert (first.ended, second.ended, third.ended) == (False, False, True)
    limits.mark_idle(first)
    acquire(limits, "b", 1)
    assert (first.ended, second.ended) == (False, True)
    assert limits.total == 3


def test_without_an_idle_connection_the_newcomer_is_refused() -> None:
    limits = ConnectionLimits(most=2)
    held = acquire(limits, "a", 2)
    for connection in held:
        limits.mark_busy(connection)
    assert not limits.acquire(Connection(), "b")
    limits.release(held[0])
    limits.release(held[0])
    acquire(limits, "b", 1)
    assert not any(connection.ended for connection in held)


def test_a_connection_whose_request_has_come_is_not_ended() -> None:
    limits = ConnectionLimits(most=2)
    first, second = acquire(limits, "a", 2)
    first.unread = True
    (third,) = acquire(limits, "b", 1)
    assert (first.ended, second.ended) == (False, True)
    third.unread = True
    acquire(limits, "b", 1)
    assert (first.ended, third.ended) == (True, False)


def test_unread_bytes_of_a_socket_are_counted() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            assert unread_bytes(ours.fileno()) == 0
            theirs.sendall(b"GET")
            assert unread_bytes(ours.fileno()) == 3
        assert ours.recv(10) == b"GET"
        assert unread_bytes(ours.fileno()) == 0  # the end of a connection is no request
    assert unread_bytes(ours.fileno()) == 0


def test_an_address_takes_places_only_from_itself() -> None:
    limits = ConnectionLimits(most=100, most_of_one=2)
    other = acquire(limits, "b", 1)
    first, _ = acquire(limits, "a", 2)
    acquire(limits, "a", 1)
    assert (first.ended, other[0].ended, limits.total) == (True, False, 3)


@pytest.mark.parametrize(("proxies", "held"), [((), 2), (("10.0.0.0/8",), 9), (("10.1.1.1",), 9), (("*",), 9)])
def test_a_named_proxy_has_no_limit_of_its_own(proxies: tuple[str, ...], held: int) -> None:
    limits = ConnectionLimits(most=100, most_of_one=2, proxies=proxies)
    acquire(limits, "10.1.1.1", 9)
    assert limits.total == held


def test_descriptors_are_left_for_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [connections_within(number) for number in (64, 256, 1024, 20_000)] == [16, 16, 316, 1024]
    assert [archives_within(number) for number in (64, 256, 1024, 4096, 20_000)] == [1, 1, 1, 5, 16]
    for number in (1024, 4096, 20_000):  # each connection may send a file of its own, besides those of archives
        held = 2 * connections_within(number) + FILES_OF_ARCHIVE * archives_within(number)
        assert held <= number - connection_limits.DESCRIPTORS_KEPT_FOR_WORK
    limit = [256, 1024]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limit))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limit.__setitem__(slice(None), both))
    assert descriptor_limit() == 256
    assert raise_descriptor_limit() == descriptor_limit() == 1024
    assert limit == [1024, 1024]
    limit[:] = [resource.RLIM_INFINITY, resource.RLIM_INFINITY]
    assert raise_descriptor_limit() == descriptor_limit() == connection_limits.WANTED_DESCRIPTORS


_SERVE = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = ["lanczos_server", *sys.argv[2:]]
runpy.run_module("tests.lanczos_server", run_name="__main__")
"""


@contextlib.contextmanager
def short_of_descriptors(folder: Path, log: Path) -> Iterator[int]:
    """The service with few descriptors; gives its port."""
    port = free_port()
    words = [str(DESCRIPTORS), str(folder), str(port), str(free_port()), "0.05", "2"]
    with log.open("w") as said:
        command = [sys.executable, "-c", _SERVE, *words]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=said, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "loaded cpu\n"
        try:
            yield port
        finally:
            process.kill()
            process.wait(20)
            process.stdout.close()


def test_a_flood_of_connections_costs_no_photo_and_says_little(tmp_path: Path) -> None:
    """The attack: more idle connections than descriptors, held open by the client, while photos are sent.

    Each photo has its own connection: a kept one is idle longest and may be ended in the moment in which it is used.
    """
    log = tmp_path / "log"
    with short_of_descriptors(tmp_path, log) as port, contextlib.ExitStack() as held:
        client = held.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=10))
        jobs = []
        for _ in range(6):
            for _ in range(60):
                plain = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
                with contextlib.suppress(OSError):
                    plain.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n\r\n")
            sent = httpx2.post(f"{client.base_url}/enhance", files={"files": photo()}, timeout=10)
            jobs.append(sent.json()["job_id"])
        for job_id in jobs:
            until(lambda job_id=job_id: client.get(f"/status/{job_id}").json()["status"] == "completed")  # type: ignore[misc]
        began = time.monotonic()
        assert client.get("/api/v1/health").status_code == 200
        assert time.monotonic() - began < 2
    assert len(log.read_text().splitlines()) < 200
