"""What distance costs, and what more workers bring: the figures of a service of several processes.

- submit: milliseconds until the 202 of an API server with PostgreSQL and S3, and of the whole service with SQLite and
  folders, one after the other in turn;
- start: milliseconds from the 202 until an idle worker has claimed the photo, by its row;
- workers: photos a second of 1, 2 and 8 workers around a stand-in that takes 100 ms for each. Eight keep two cores
  busy; `--stand-in-seconds 1` shows how the code scales where the processor is no limit.

Every part is a real server on loopback, see `benchmarks.cluster_servers`. Run: `python -m benchmarks.cluster
[--only submit|start|workers] [--stand-in-seconds 1]`. Prints one line of JSON for each.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import psutil

from app.store import SqlStore
from benchmarks.cluster_clients import blocks, png_of
from benchmarks.cluster_servers import Cluster, Server, running_cluster
from benchmarks.stand_in_service import stand_in_service
from tests.provider_stand_in import stand_in
from tests.s3_servers import CREDENTIALS

KEY = "a-key-of-the-only-owner"
SUBMITS, STARTS = 300, 100
STAND_IN_SECONDS = 0.1
MOST_PHOTOS_A_WORKER, A_JOB, WORK_SECONDS = 60, 20, 20.0
WORKERS = (8, 2, 1)
PAUSE_SECONDS = 0.1  # between two submits, so that none waits for the photo before it
END_TIMEOUT_SECONDS = 120.0


@contextlib.contextmanager
def cluster(workers: int, seconds: float) -> Iterator[tuple[Cluster, SqlStore, httpx2.Client]]:
    """A cluster of so many workers, its rows, and a client of one of its API servers."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster-")))
        provider = stack.enter_context(stand_in())
        running = stack.enter_context(
            running_cluster(folder, [KEY], provider, seconds=seconds, clocks_apart_seconds=0.0, workers=workers)
        )
        store = stack.enter_context(contextlib.closing(SqlStore(running.database_url)))
        store.open()
        url = f"http://127.0.0.1:{running.servers[0].port}"
        yield running, store, stack.enter_context(httpx2.Client(base_url=url, headers={"X-API-KEY": KEY}, timeout=60))


def submit(client: httpx2.Client, photos: int = 1) -> str:
    """Send photos that nobody has sent before; gives the job's id."""
    files = [("files", (f"{n}.png", png_of(blocks(random.getrandbits(60))))) for n in range(photos)]
    answer = client.post("/api/v1/enhance/batch", files=files, data={"scale": "2", "output_format": "png"})
    answer.raise_for_status()
    return str(answer.json()["job_id"])


def submits() -> dict[str, Any]:
    """Both services in turn; the ratio is the cluster's to the single process's."""
    times: dict[str, list[float]] = {"one process": [], "cluster": []}
    with stand_in_service(rate_limit="0") as alone, cluster(1, 0.0) as (_, _, far):
        for number in range(SUBMITS + 10):
            for name, client in (("one process", alone.client), ("cluster", far)):
                began = time.perf_counter()
                submit(client)
                if number >= 10:  # the first ones warm up
                    times[name].append(1000 * (time.perf_counter() - began))
                time.sleep(PAUSE_SECONDS)
    found = {name: _quantiles(rows) for name, rows in times.items()}
    ratios = {f"{word}_ratio": found["cluster"][word] / found["one process"][word] for word in ("p50", "p99")}
    return {"submit_ms": found, **ratios}


def starts() -> dict[str, Any]:
    """Of a cluster whose worker has nothing to do; both ends are on one clock here."""
    times = []
    with cluster(1, 0.0) as (_, _, client):
        for _ in range(STARTS):
            job_id = submit(client)
            accepted_at = time.time()
            _await_end(lambda: client.get(f"/api/v1/jobs/{job_id}").json()["status"] == "completed")  # noqa: B023
            (attempt,) = client.get(f"/api/v1/jobs/{job_id}").json()["attempts"]
            times.append(max(0.0, 1000 * (attempt["started_at"] - accepted_at)))
            time.sleep(random.uniform(0.5, 1.5) * PAUSE_SECONDS)
    return {"start_ms": _quantiles(times)}


def throughput(seconds: float = STAND_IN_SECONDS) -> dict[str, Any]:
    """The photos wait already when the workers begin, so that the clients cost nothing meanwhile.

    `processor_seconds_a_photo` is that of the workers: more of it a second than there are cores cannot be had.
    """
    rates: dict[int, float] = {}
    costs: dict[int, float] = {}
    photos = min(MOST_PHOTOS_A_WORKER, max(A_JOB, round(WORK_SECONDS / seconds / A_JOB) * A_JOB))
    with cluster(max(WORKERS), seconds) as (running, store, client):
        workers = [server for server in running.servers if server.name.startswith("worker")]
        for number in WORKERS:
            for server in workers[number:]:
                server.end()
            rates[number], costs[number] = _rate(workers[:number], store, client, photos * number)
    return {
        "stand_in_seconds": seconds,
        "cores": os.cpu_count(),
        "photos_per_s": rates,
        "ratios": {number: rates[number] / rates[1] for number in WORKERS},
        "processor_seconds_a_photo": costs,
    }


def _rate(workers: list[Server], store: SqlStore, client: httpx2.Client, photos: int) -> tuple[float, float]:
    """Photos a second, and seconds of processor time that the workers took for one."""
    processes = [process for server in workers for process in server.processes()]
    for process in processes:
        process.suspend()
    for _ in range(photos // A_JOB):
        submit(client, A_JOB)
    began, before = time.time(), _processor_seconds(processes)
    for process in processes:
        process.resume()
    _await_end(lambda: not (counts := store.counts()).queued + counts.processing, 0.5)
    took = max(attempt.ended_at or 0.0 for attempt in store.recent_completed()) - began
    return photos / took, (_processor_seconds(processes) - before) / photos


def _processor_seconds(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _await_end(condition: Callable[[], bool], pause_seconds: float = 0.02) -> None:
    deadline = time.monotonic() + END_TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("a photo did not end")
        time.sleep(pause_seconds)


def _quantiles(milliseconds: list[float]) -> dict[str, float]:
    parts = statistics.quantiles(milliseconds, n=100)
    return {"p50": parts[49], "p99": parts[98], "most": max(milliseconds)}


def main() -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    measures: dict[str, Callable[[], dict[str, Any]]] = {"submit": submits, "start": starts, "workers": throughput}
    parser.add_argument("--only", choices=tuple(measures))
    parser.add_argument("--stand-in-seconds", type=float, default=STAND_IN_SECONDS, help="of the workers' stand-in")
    asked = parser.parse_args()
    only, measures["workers"] = asked.only, functools.partial(throughput, asked.stand_in_seconds)
    os.environ.update(CREDENTIALS)  # of the S3 server of the tests
    for name, measure in measures.items():
        if only in (None, name):
            print(json.dumps(measure()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
