"""A slice of the campaign in `benchmarks/kill9.py`, and what must be true after it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.fault_service import points_of

ROOT = Path(__file__).parent.parent
RANDOM_KILLS = 4


def campaign(*arguments: str, module: str = "benchmarks.kill9") -> tuple[int, dict[str, Any]]:
    """Run the campaign in its own process (it forks, so it must have one thread)."""
    command = [sys.executable, "-m", module, *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.stdout, ended.stderr
    return ended.returncode, json.loads(ended.stdout)


def assert_nothing_is_lost(database: str) -> None:
    """At random moments and at every named point of the code."""
    points = points_of(database)
    where = ["--postgres"] if database == "postgres" else []
    code, said = campaign("--http", "--kills", str(RANDOM_KILLS), "--points", "all", *where)
    assert said["faults"] == []
    assert code == 0
    assert said["points"] == len(points) >= 12
    assert said["kills"] == RANDOM_KILLS + len(points)
    # Each life but those killed in their start took work before it died, however busy this machine is.
    assert said["working_lives"] >= RANDOM_KILLS // 2
    assert said["accepted_jobs"] >= said["working_lives"] + len(points) // 2
    assert said["attempts"]["completed"] > said["accepted_jobs"] // 2
