"""Attacks by which one client keeps others out: of connections, of threads, of the queue, of its own address."""

from __future__ import annotations

import contextlib
import functools
import random
import secrets
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from benchmarks.attacks.hostile import many_profiles, many_segments, photo
from benchmarks.attacks.responsiveness import others_while
from benchmarks.attacks.target import Seen, Target, started

_IDLE_SECONDS = 22.0
_IDLE_CONNECTIONS = 240
_FEW_DESCRIPTORS = 256
_WINDOW_SECONDS = 61.0
_MOST_LOG_LINES = 1000
# What is measured is not the limit of the queue.
_ROOM: dict[str, Any] = {"QUEUE_LIMIT": "20000", "QUEUE_LIMIT_PER_OWNER": "20000"}
_COPIED_BATCHES, _BATCH = 99, 50
_LARGE = (7680, 5200)  # 40 megapixels


def idle_connections(checkout: Path) -> Seen:
    """After a first request, an empty line ends the timer of an idle connection; photos wait meanwhile."""
    with started(checkout, descriptors=_FEW_DESCRIPTORS) as target:
        jobs = [target.submit(photo(300, 200), face_enhance="false").json()["job_id"] for _ in range(6)]
        with _held(target, _IDLE_CONNECTIONS) as held:
            time.sleep(_IDLE_SECONDS)
            alive = sum(map(_is_open, held))
        ends = [target.ended(job)["status"] for job in jobs]
        lines = target.log_lines()
    failed = ends.count("failed")
    words = f"{alive} of {_IDLE_CONNECTIONS} held after {_IDLE_SECONDS:g} s; {failed} of {len(ends)} photos failed"
    return Seen(f"{words}; {lines:,} log lines", alive > 0 or failed > 0 or lines > _MOST_LOG_LINES)


def connections_while_others_ask(checkout: Path, seconds: float) -> Seen:
    """The same connections, opened again and again."""
    with started(checkout, **_ROOM) as target:
        return others_while(target, _hold_connections, 10, seconds)


def warm_ups(checkout: Path, seconds: float) -> Seen:
    """Empty warm-ups in a loop, while photos of the same key are in work."""
    with started(checkout, **_ROOM) as target:
        for _ in range(20):
            target.submit(photo(800, 600))
        return others_while(target, _warm_up, 8, seconds)


def header_bombs(checkout: Path, seconds: float) -> Seen:
    """Headers that cost seconds to read, ten at once."""
    with started(checkout, **_ROOM) as target:
        return others_while(target, _send_header_bomb, 10, seconds)


def previews(checkout: Path, seconds: float) -> Seen:
    """Previews of a photo of 40 megapixels, thirty at once, each of another size."""
    with started(checkout, **_ROOM) as target:
        job = target.submit(photo(*_LARGE, kind="PNG"), scale="1", face_enhance="false").json()["job_id"]
        _cancel(target, job)
        return others_while(target, functools.partial(_ask_preview, job=job), 30, seconds)


def lists(checkout: Path, seconds: float) -> Seen:
    """Lists of a hundred full batches, 24 at once."""
    with started(checkout, **_ROOM) as target:
        files = [("files", (f"{number}.jpg", photo(8, 8))) for number in range(_BATCH)]
        sent = requests.post(f"{target.url}/enhance", files=files, headers=target.attacker, timeout=60)
        _cancel(target, sent.json()["job_id"])
        _copy_batches(target.folder / "jobs.sqlite3", _COPIED_BATCHES)
        return others_while(target, _ask_list, 24, seconds)


def queue_of_one(target: Target) -> Seen:
    """One key fills the queue; what does another get?"""
    taken = sum(target.status_of_submit(photo(600, 400)) == 202 for _ in range(120))
    answers = [target.status_of_submit(photo(), target.neighbour) for _ in range(5)]
    return Seen(f"{taken} of 120 taken from one key; another's five: {answers}", answers != [202] * 5)


def emptied_queue(checkout: Path) -> Seen:
    """A full queue is emptied: what does the next submit get?"""
    with started(checkout, QUEUE_LIMIT="5", QUEUE_LIMIT_PER_OWNER="5") as target:
        while target.status_of_submit(photo(800, 600)) == 202:
            pass
        time.sleep(0.5)
        full = target.status_of_submit(photo())
        for job in target.get("/api/v1/jobs").json()["jobs"]:
            _cancel(target, job["job_id"])
        time.sleep(2.0)
        answers = [target.status_of_submit(photo()) for _ in range(2)]
    return Seen(f"full: {full}; emptied, two submits: {answers}", full == 202 or answers != [202, 202])


def wrong_keys(target: Target) -> Seen:
    """Ten wrong keys, then the right one from the same address."""
    for _ in range(12):
        target.get("/api/v1/jobs", {"x-api-key": "wrong"})
    answer = target.get("/api/v1/jobs", target.neighbour)
    return Seen(f"the right key after ten wrong ones: {answer.status_code}", answer.status_code != 200)


def forwarded_addresses(target: Target) -> Seen:
    """Wrong keys, each said to come from an address of its own."""
    tries = [{"x-api-key": "wrong", "x-forwarded-for": f"203.0.113.{number}"} for number in range(30)]
    judged = sum(target.get("/api/v1/jobs", headers).status_code == 401 for headers in tries)
    return Seen(f"{judged} of {len(tries)} guesses judged by an address that was made up", judged > 10)


def foreign_page(checkout: Path) -> Seen:
    """Without a key, a page of another origin asks on and on; what is left for the user?"""
    with started(checkout, API_KEY="", RATE_LIMIT="20/minute") as target:
        time.sleep(_WINDOW_SECONDS)  # the start was waited for with the user's own requests
        foreign = {"origin": "http://evil.example", "sec-fetch-site": "cross-site"}
        for _ in range(25):
            target.get("/api/v1/jobs", foreign)
        answer = target.get("/api/v1/jobs", {"accept": "application/json"})
    return Seen(f"the user, after 25 calls of a foreign page: {answer.status_code}", answer.status_code != 200)


def _cancel(target: Target, job: str) -> None:
    requests.delete(f"{target.url}/api/v1/jobs/{job}", headers=target.attacker, timeout=60)


def _warm_up(target: Target) -> int:
    return requests.post(f"{target.url}/api/v1/models/warmup", headers=target.attacker, timeout=60).status_code


def _send_header_bomb(target: Target) -> int:
    return target.submit(random.choice((many_segments, many_profiles))()).status_code


def _ask_preview(target: Target, job: str) -> int:
    return target.get(f"/api/v1/jobs/{job}/original?preview=1&size={random.randint(16, 1000)}").status_code


def _ask_list(target: Target) -> int:
    return target.get("/api/v1/jobs?limit=100").status_code


def _hold_connections(target: Target) -> int:
    with _held(target, 25) as held:
        time.sleep(5.0)
        return 200 if held else 0


@contextlib.contextmanager
def _held(target: Target, count: int) -> Iterator[list[socket.socket]]:
    """Connections that asked once and then sent an empty line."""
    held: list[socket.socket] = []
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                connection = socket.create_connection(target.address, 5)
                held.append(connection)
                connection.settimeout(5)
                connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
                connection.recv(65536)
                connection.sendall(b"\r\n")
        yield held
    finally:
        for connection in held:
            connection.close()


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _copy_batches(database: Path, count: int) -> None:
    """Write the only job into the database so many times again, with all its photos, as any version has them."""
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        found = {}
        for table in ("photos", "jobs", "attempts"):
            cursor = connection.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in cursor.description]
            found[table] = [dict(zip(names, row, strict=True)) for row in cursor]
        ids = {row["id"] for rows in found.values() for row in rows}
        for _ in range(count):
            new = {old: secrets.token_hex(16) for old in ids}
            for table, rows in found.items():
                for row in rows:
                    values = {name: new.get(value, value) for name, value in row.items() if name != "number"}
                    into, holes = f"{table} ({', '.join(values)})", ", ".join("?" * len(values))
                    connection.execute(f"INSERT INTO {into} VALUES ({holes})", [*values.values()])
        connection.commit()
