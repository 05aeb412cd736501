"""The real service under the real supervisor: what is killed, and whose photo it counts against."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.databases import IMPLEMENTATIONS
from tests.harness import until
from tests.http_service import free_port, photo
from tests.lanczos_server import DEADLY_WIDTH

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the child by /proc")
_HOST = """
import os, sys
from app.commands.supervisor import Policy, Supervisor
policy = Policy(first_wait_seconds=0.5, longest_wait_seconds=0.5)
sys.exit(Supervisor(sys.argv[1:], dict(os.environ), print, policy, words_after_death=["--after-death"]).run())
"""


class Supervised:
    """A supervisor with the server under it, and a client."""

    def __init__(self, folder: Path, ports: tuple[int, int], seconds_per_strip: float, **settings: Any) -> None:
        words = [str(folder), *map(str, ports), str(seconds_per_strip), "5", "", json.dumps(settings)]
        command = [sys.executable, "-c", _HOST, sys.executable, "-m", "tests.lanczos_server", *words]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{ports[0]}", timeout=10)

    def children(self) -> list[int]:
        """Process ids of the supervisor's children."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(word) for word in text.split()]

    def ask(self, path: str) -> dict[str, Any]:
        """A GET; an empty answer while the server is dead."""
        try:
            found: dict[str, Any] = self.client.get(path).json()
        except httpx2.TransportError:
            return {}
        return found

    def submit(self, *photos: bytes) -> str:
        until(lambda: self.ask("/health/live"))
        files = [("files", (f"{number}.png", data)) for number, data in enumerate(photos)]
        return str(self.client.post("/enhance", files=files).json()["job_id"])

    def kill(self, *, child_first: bool) -> None:
        """What a power cut is for both: no one is left to see the other die and start it again."""
        victims: Sequence[int] = [*self.children(), self.process.pid]
        for pid in victims if child_first else reversed(victims):
            os.kill(pid, signal.SIGKILL)
        self.process.wait(20)

    def wait_for(self, job_id: str, status: str, seconds: float = 20.0) -> None:
        until(lambda: self.ask(f"/status/{job_id}").get("status") == status, seconds)

    def end(self) -> None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            self.kill(child_first=False)
        self.client.close()


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@contextlib.contextmanager
def supervised(
    folder: Path, ports: tuple[int, int], seconds_per_strip: float = 0.0, **settings: Any
) -> Iterator[Supervised]:
    service = Supervised(folder, ports, seconds_per_strip, **settings)
    try:
        yield service
    finally:
        service.end()


def test_a_photo_in_work_survives_any_number_of_power_cuts(tmp_path: Path, ports: tuple[int, int]) -> None:
    job_id = ""
    for number in range(4):
        with supervised(tmp_path, ports, seconds_per_strip=60) as service:
            job_id = job_id or service.submit(photo())
            service.wait_for(job_id, "processing")
            service.kill(child_first=bool(number % 2))
    with supervised(tmp_path, ports) as service:
        service.wait_for(job_id, "completed")


@pytest.mark.parametrize("database", IMPLEMENTATIONS)
def test_a_photo_that_kills_the_process_is_given_up_and_no_neighbour_with_it(
    tmp_path: Path, ports: tuple[int, int], database: str
) -> None:
    """Without waiting for a lease to run out: the supervisor saw it, and its next child knows whose runs these were."""
    with supervised(tmp_path, ports, database_url=IMPLEMENTATIONS[database](tmp_path)) as service:
        job_id = service.submit(photo(), photo(width=DEADLY_WIDTH), photo(), photo())
        service.wait_for(job_id, "completed", seconds=90)
        state = service.ask(f"/status/{job_id}")
        assert [error["code"] for error in state["errors"]] == ["worker_crashed"]
        assert len(state["results"]) == 3
