"""The campaign in a small container, in small: a real service with real networks below a real memory limit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import small_container
from benchmarks.control_group import NoControlGroup, control_group

MEGABYTE = 1 << 20
GOOD = {"kills": 0, "photos": [{"end": "completed"}], "over": {"end": "memory_too_small"}}
weights = os.environ.get("NIR_TEST_WEIGHTS", "")


def test_a_group_counts_and_kills_what_takes_too_much() -> None:
    try:
        with control_group(64 * MEGABYTE) as group:
            used = "import sys; x = b'x' * (int(sys.argv[1]) << 20); print(len(x))"
            small, large = (
                subprocess.run(group.inside([sys.executable, "-c", used, mb]), capture_output=True).returncode
                for mb in ("20", "200")
            )
            assert (small, large) == (0, -9)
            assert group.kills() == 1
            assert group.peak_bytes() > 60 * MEGABYTE
    except NoControlGroup as error:
        pytest.skip(str(error))


@pytest.mark.skipif(not Path(weights, "realesr-general-x4v3.pth").is_file(), reason="NIR_TEST_WEIGHTS has no networks")
def test_no_photo_is_killed_in_two_gigabytes_and_what_cannot_fit_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        code = small_container.main(["--weights", weights, "--quick"])
    except NoControlGroup as error:
        pytest.skip(str(error))
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (code, found["faults"]) == (0, [])
    assert found["peak_mb"] <= found["limit_mb"]
    assert len(found["photos"]) > 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"kills": 2}, ["the kernel killed 2 processes"]),
        ({"photos": [{"end": "worker_crashed"}]}, ["not completed: {'end': 'worker_crashed'}"]),
        ({"over": {"end": "completed"}}, ["not refused: {'end': 'completed'}"]),
    ],
)
def test_the_campaign_sees_what_it_looks_for(change: dict[str, Any], words: list[str]) -> None:
    assert small_container.faults_of({**GOOD, **change}) == words
