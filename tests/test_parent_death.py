"""A killed pytest leaves no server of its fixtures running."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import until

ROOT = Path(__file__).parents[1]
_PARENT = """
import subprocess, sys, time
from tests.parent_death import ends_with_us
print(subprocess.Popen(["sleep", "60"], preexec_fn=ends_with_us()).pid, flush=True)
time.sleep(60)
"""


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is told by Linux only")
def test_a_server_of_a_killed_process_ends() -> None:
    command = [sys.executable, "-c", _PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ}) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        assert not _is_gone(server)
        parent.kill()
    until(lambda: _is_gone(server), 5)


@pytest.mark.parametrize("name", ["s3_servers", "postgres_server", "nginx", "redis_server", "clamd_server"])
def test_every_server_of_the_fixtures_is_started_so(name: str) -> None:
    assert "ends_with_us(" in (ROOT / "tests" / f"{name}.py").read_text()
