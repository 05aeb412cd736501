"""What the default mode pays for everything that is optional: this checkout against an earlier one, side by side.

The default is one process with SQLite, folders and no users. Asked of both checkouts in turn, so that whatever else the
machine does meets both alike:

- start: seconds until `/health/ready` answers, of services that are started and stopped for it;
- memory: resident megabytes of the service and its children once ready, and after the photos of this command;
- ready: requests per second of `/health/ready`, four clients;
- submit: milliseconds until the 202, median and p99.

Run: `python -m benchmarks.default_mode --before FOLDER [--weights FOLDER] [--rounds N]`. Prints one line of JSON: for
each figure the medians of both, and the median of each round's ratio of this one to the earlier one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
from PIL import Image

from benchmarks.request import invented_picture
from benchmarks.running_service import RunningService, running_service

_CLIENTS = 4
_CALLS_A_ROUND = 400
_SUBMITS_A_ROUND = 100
_SIDE = 48  # a photo whose restoration takes little, so that what is around it shows

Figures = dict[str, float]
Pair = tuple[Figures, Figures]  # before, now


def compare(weights: Path, before: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Every figure of both checkouts, by name: the medians `before` and `now`, and the median `ratio` of the rounds."""
    pairs = _in_turns(rounds, lambda root: {"start_seconds": _start_seconds(weights, root)}, before)
    with running_service(weights, root=before) as old, running_service(weights) as new:
        services = {before: old, None: new}
        pairs.append(({"ready_mb": resident_mb(old)}, {"ready_mb": resident_mb(new)}))
        pairs += _in_turns(rounds, lambda root: _speed(services[root]), before)
        pairs.append(({"worked_mb": resident_mb(old)}, {"worked_mb": resident_mb(new)}))
    return _summary(pairs)


def _in_turns(rounds: int, measure: Callable[[Path | None], Figures], before: Path) -> list[Pair]:
    """Pairs (before, now); who is first alternates, and the first round, which warms up, is left out."""
    pairs = []
    for number in range(rounds + 1):
        order = (before, None) if number % 2 else (None, before)
        found = {root: measure(root) for root in order}
        pairs.append((found[before], found[None]))
    return pairs[1:]


def _summary(pairs: list[Pair]) -> dict[str, dict[str, float]]:
    columns: dict[str, list[tuple[float, float]]] = {}
    for old, new in pairs:
        for name in old:
            columns.setdefault(name, []).append((old[name], new[name]))
    return {
        name: {
            "before": statistics.median(old for old, _ in rows),
            "now": statistics.median(new for _, new in rows),
            "ratio": statistics.median(new / old for old, new in rows),
        }
        for name, rows in columns.items()
    }


def _start_seconds(weights: Path, root: Path | None) -> float:
    with running_service(weights, root=root) as service:
        return service.seconds_to_ready


def resident_mb(service: RunningService) -> float:
    """Resident memory of the service's processes together; pages that they share count in each."""
    process = psutil.Process(service.pid)
    total = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total / 1e6


def _speed(service: RunningService) -> Figures:
    median, p99 = _submit_ms(service)
    return {"ready_per_second": _ready_per_second(service), "submit_p50_ms": median, "submit_p99_ms": p99}


def _ready_per_second(service: RunningService) -> float:
    def ask(_: int) -> None:
        with httpx2.Client(base_url=service.url, timeout=60.0) as client:
            for _ in range(_CALLS_A_ROUND // _CLIENTS):
                client.get("/health/ready").raise_for_status()

    started = time.perf_counter()
    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(ask, range(_CLIENTS)))
    return _CALLS_A_ROUND / (time.perf_counter() - started)


def _submit_ms(service: RunningService) -> tuple[float, float]:
    times, photo = [], _photo()
    with httpx2.Client(base_url=service.url, timeout=60.0) as client:
        for _ in range(_SUBMITS_A_ROUND):
            started = time.perf_counter()
            answer = client.post("/api/v1/enhance", files={"file": ("a.jpg", photo)}, data={"scale": "1"})
            times.append(time.perf_counter() - started)
            answer.raise_for_status()
            client.delete(f"/api/v1/jobs/{answer.json()['job_id']}")
    return 1000 * statistics.median(times), 1000 * statistics.quantiles(times, n=100)[98]


def _photo() -> bytes:
    data = io.BytesIO()
    Image.fromarray(invented_picture(_SIDE)).save(data, "JPEG", quality=90)
    return data.getvalue()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.default_mode", description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="checkout of an earlier version")
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    print(json.dumps(compare(asked.weights, asked.before.resolve(), asked.rounds)))


if __name__ == "__main__":
    main()
