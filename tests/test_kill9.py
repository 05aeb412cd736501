"""Kill -9 at any moment: no accepted job lost, no half result. A slice of the campaign in `benchmarks/kill9.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.databases import needs_postgres
from tests.fault_service import points_of

ROOT = Path(__file__).parent.parent


def campaign(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the campaign in its own process (it forks, so it must have one thread)."""
    command = [sys.executable, "-m", "benchmarks.kill9", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.stdout, ended.stderr
    return ended.returncode, json.loads(ended.stdout)


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgres", marks=needs_postgres)])
def test_nothing_is_lost_at_random_moments_and_at_every_named_point(database: str) -> None:
    points = points_of(database)
    where = ["--postgres"] if database == "postgres" else []
    code, said = campaign("--http", "--kills", "12", "--points", "all", *where)
    assert said["faults"] == []
    assert code == 0
    assert said["points"] == len(points) >= 12
    assert said["kills"] == 12 + len(points)
    # Each life but those killed in their start took work before it died, however busy this machine is.
    assert said["working_lives"] >= 6
    assert said["accepted_jobs"] >= said["working_lives"] + len(points) // 2
    assert said["attempts"]["completed"] > said["accepted_jobs"] // 2


def test_the_campaign_sees_a_row_that_is_written_before_its_file() -> None:
    code, said = campaign("--kills", "0", "--points", "completed", "--wrong-order")
    assert code == 1
    assert any(fault.startswith("half result") for fault in said["faults"])
