"""Two servers in processes of their own on one PostgreSQL database: what two tabs do at once is done once."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.databases import IMPLEMENTATIONS, needs_postgres
from tests.harness import until
from tests.http_service import free_port, photo

ROOT = Path(__file__).resolve().parents[1]
QUEUE_LIMIT = 20
pytestmark = needs_postgres


@contextlib.contextmanager
def server(folder: Path, database_url: str) -> Iterator[httpx2.Client]:
    """A server of its own whose photos take very long; the folders are shared."""
    port = free_port()
    settings = {"database_url": database_url, "queue_limit": QUEUE_LIMIT}
    words = [str(folder), str(port), str(free_port()), "60", "0", "", json.dumps(settings)]
    command = [sys.executable, "-m", "tests.lanczos_server", *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def answers() -> bool:
        with contextlib.suppress(httpx2.TransportError):
            return client.get("/health/live").status_code == 200
        return False

    try:
        until(answers, 60)
        yield client
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def tabs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[httpx2.Client]]:
    folder = tmp_path_factory.mktemp("shared")
    url = IMPLEMENTATIONS["postgres"](folder)
    with server(folder, url) as one, server(folder, url) as other:
        yield [one, other]


def test_of_two_tabs_that_restore_one_photo_one_gets_202_and_the_other_409(tabs: list[httpx2.Client]) -> None:
    kept = tabs[0].post("/api/v1/photos", files={"file": ("a.png", photo())}).json()["id"]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            answers = list(pool.map(lambda tab: tab.post(f"/api/v1/photos/{kept}/restore"), tabs))
            won, lost = sorted(answers, key=lambda answer: answer.status_code)
            assert (won.status_code, lost.status_code) == (202, 409), [answer.text for answer in answers]
            assert lost.json()["code"] == "photo_busy"
            assert tabs[1].delete(f"/api/v1/jobs/{won.json()['job_id']}").status_code < 300


def test_of_100_submits_at_once_as_many_wait_as_the_queue_holds(tabs: list[httpx2.Client]) -> None:
    def submit(number: int) -> tuple[int, str]:
        answer = tabs[number % 2].post("/api/v1/enhance", files={"file": ("a.png", photo())})
        return answer.status_code, answer.json().get("code", "")

    with ThreadPoolExecutor(25) as pool:
        told = Counter(pool.map(submit, range(100)))
    waiting = tabs[0].get("/metrics").text.split("\nrestore_queued_attempts ")[1].split()[0]
    running = told[202, ""] - int(float(waiting))
    assert float(waiting) == QUEUE_LIMIT
    assert 0 <= running <= 4  # what the two workers have taken meanwhile, decoded ones included
    assert told == {(202, ""): QUEUE_LIMIT + running, (503, "queue_full"): 100 - QUEUE_LIMIT - running}
