"""The soak: thousands of small jobs through one real service, and whether it grows meanwhile.

Run from the repository's root: `python -m benchmarks.soak --jobs 10000`. A line is laid through the samples of the last
three quarters; memory may rise by less than 1 MB in 1,000 jobs, descriptors and threads not at all, and the slowest
hundredth of submits in the last quarter may not take longer than twice that of the second. It prints one JSON line and
exits 1 where one of these does not hold or a job is not completed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import psutil

from benchmarks.stand_in_service import StandInService, stand_in_service
from tests.http_service import photo

MOST_MB_PER_THOUSAND = 1.0
MOST_P99_GROWTH = 2.0
MOST_MORE = 3  # of descriptors and threads: what a moment of work holds open
SAMPLES = 200
_SETTINGS: dict[str, Any] = {"retention_minutes": 1, "janitor_interval_minutes": 1}


class Sample(NamedTuple):
    """The server after so many jobs; its children are left out."""

    jobs: int
    rss_mb: float
    descriptors: int
    threads: int


def run(service: StandInService, jobs: int) -> tuple[list[Sample], list[float], int]:
    """Jobs one after another; gives the samples, the seconds of each submit, and how many were not completed."""
    server, data = psutil.Process(service.pid), photo(16, 16)
    every = max(1, jobs // SAMPLES)
    samples: list[Sample] = []
    submits: list[float] = []
    failed = 0
    for number in range(jobs):
        began = time.perf_counter()
        answer = service.client.post("/enhance", files=[("files", ("a.png", data))], data={"scale": "1"})
        submits.append(time.perf_counter() - began)
        answer.raise_for_status()
        failed += service.ended(f"/status/{answer.json()['job_id']}", pause_seconds=0.005)["status"] != "completed"
        if number % every == every - 1:
            memory = server.memory_info().rss / 1e6
            samples.append(Sample(number + 1, memory, server.num_fds(), server.num_threads()))
    return samples, submits, failed


def judge(samples: Sequence[Sample], submits: Sequence[float]) -> dict[str, float]:
    """The figures: growth in 1,000 jobs over the last three quarters, and the p99 of submits by quarter, seconds."""
    late = samples[len(samples) // 4 :]
    jobs = [sample.jobs / 1000 for sample in late]
    slope = statistics.linear_regression(jobs, [sample.rss_mb for sample in late]).slope
    half = len(late) // 2
    quarter = len(submits) // 4
    return {
        "mb_per_thousand_jobs": round(slope, 3),
        "more_descriptors": _more([s.descriptors for s in late], half),
        "more_threads": _more([s.threads for s in late], half),
        "p99_early_seconds": round(_p99(submits[quarter : 2 * quarter]), 4),
        "p99_late_seconds": round(_p99(submits[-quarter:]), 4),
    }


def faults_of(figures: dict[str, float], failed: int) -> list[str]:
    """What does not hold, in words."""
    checks = {
        f"{failed} jobs were not completed": failed == 0,
        "memory grows": figures["mb_per_thousand_jobs"] < MOST_MB_PER_THOUSAND,
        "descriptors grow": figures["more_descriptors"] <= MOST_MORE,
        "threads grow": figures["more_threads"] <= MOST_MORE,
        "submits get slower": figures["p99_late_seconds"] <= MOST_P99_GROWTH * figures["p99_early_seconds"],
    }
    return [words for words, holds in checks.items() if not holds]


def _more(values: Sequence[int], half: int) -> float:
    return statistics.median(values[half:]) - statistics.median(values[:half])


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


def main(words: Sequence[str] | None = None) -> int:
    """Run the soak; 1 where something grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    asked = parser.parse_args(words)
    with stand_in_service(**_SETTINGS) as service:
        samples, submits, failed = run(service, asked.jobs)
    figures = judge(samples, submits)
    faults = faults_of(figures, failed)
    ends = {"first": samples[0]._asdict(), "last": samples[-1]._asdict()}
    print(json.dumps({"jobs": asked.jobs, **figures, **ends, "faults": faults}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
