"""Whether the service lives in a small container: real networks and photos of many sizes below a memory limit.

The service runs in a control group of its own (root is needed), as a container runs it. Two owners, whose photos share
the device, send it small photos side by side, faces, alpha, 16 bits, the ensemble, the largest result that its own
admission takes, and one that is over it.
Exit status 1 when the kernel killed a process, when an accepted photo does not end as completed, or when the one over
is not refused with `memory_too_small`.

Run: `python -m benchmarks.small_container --weights FOLDER [--limit-mb 2048] [--quick]`. Prints lines and JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2

from app.errors import TooLarge
from app.jobs.memory_need import check_memory
from benchmarks.control_group import control_group
from benchmarks.memory_needs import mime_of, suffix_of, write_photo
from benchmarks.running_service import RunningService, running_service

MEGABYTE = 1 << 20
_SIDE_BY_SIDE = 4
_LONGEST_SECONDS = 3600.0
_KEYS = ("a-key-of-the-first-owner", "a-key-of-the-second-owner")
_FAST = {"model": "realesr-general-x4v3", "face_enhance": "false"}


def largest_side(kind: str, scale: float, budget_bytes: int) -> int:
    """The side of the largest square photo of a kind that admission takes at a scale."""
    mime = mime_of(kind)
    low, high = 1, 20_000
    while high - low > 1:
        side = (low + high) // 2
        try:
            check_memory(side * side, scale, mime, budget_bytes)
        except TooLarge:
            high = side
        else:
            low = side
    return low


def groups(budget_bytes: int, *, quick: bool) -> Iterator[list[dict[str, Any]]]:
    """Photos that are sent side by side, one group after the other."""
    small = [64, 96, 160, 200]
    yield [{"side": side, "kind": "rgb8", "form": {**_FAST, "face_enhance": "true"}} for side in small]
    if quick:
        yield [{"side": 40, "kind": "rgb8", "form": {"model": "RealESRGAN_x4plus"}}]
        return
    yield [{"side": 350, "kind": kind, "form": dict(_FAST)} for kind in ("rgb8", "rgba8", "rgb16", "grey8")]
    yield [{"side": side, "kind": "rgb8", "form": {"model": "RealESRGAN_x4plus"}} for side in (100, 250)]
    yield [{"side": 100, "kind": "rgb8", "form": {"quality": "best"}}]
    third = int(largest_side("rgb16", 8.0, budget_bytes) / math.sqrt(3))
    yield [{"side": third, "kind": "rgb16", "form": {**_FAST, "scale": "8"}} for _ in range(3)]
    yield [{"side": 256, "kind": "rgb8", "form": {"model": "RealESRGAN_x4plus"}} for _ in range(2)]
    for kind in ("jpeg", "rgba16"):
        yield [{"side": largest_side(kind, 8.0, budget_bytes), "kind": kind, "form": {**_FAST, "scale": "8"}}]
    yield [{"side": 1600, "kind": "rgb8", "form": {**_FAST, "scale": "1"}}]


def run(weights: Path, limit_mb: int, *, quick: bool) -> dict[str, Any]:
    """Send everything; what became of each photo, and the kernel's word."""
    budget = limit_mb * MEGABYTE
    settings: dict[str, Any] = {"API_KEY": ",".join(_KEYS), "MAX_OUTPUT_MEGAPIXELS": "400"}
    with (
        tempfile.TemporaryDirectory() as folder,
        control_group(budget) as group,
        running_service(weights, headers={"X-API-KEY": _KEYS[0]}, inside=group.inside, **settings) as service,
    ):
        loaded = group.unreclaimable_bytes()
        rows: list[dict[str, Any]] = []
        for photos in groups(budget, quick=quick):
            with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
                keys = itertools.cycle(_KEYS)
                rows += pool.map(lambda photo, key: _send(service, Path(folder), photo, key), photos, keys)
            print(rows[-len(photos) :], f"kills {group.kills()}", flush=True)
        over = {"side": largest_side("grey8", 8.0, budget) + 1, "kind": "grey8", "form": {**_FAST, "scale": "8"}}
        return {
            "limit_mb": limit_mb,
            "loaded_mb": loaded // MEGABYTE,
            "peak_mb": group.peak_bytes() // MEGABYTE,
            "kills": group.kills(),
            "photos": rows,
            "over": _send(service, Path(folder), over, _KEYS[0]),
        }


def faults_of(found: dict[str, Any]) -> list[str]:
    """What is wrong with a run, in words."""
    faults = [f"the kernel killed {found['kills']} processes"] if found["kills"] else []
    faults += [f"not completed: {row}" for row in found["photos"] if row["end"] != "completed"]
    if found["over"]["end"] != "memory_too_small":
        faults.append(f"not refused: {found['over']}")
    return faults


def _send(service: RunningService, folder: Path, photo: dict[str, Any], key: str) -> dict[str, Any]:
    """Send one photo and wait for its end: `completed`, or the code of what went wrong."""
    path = folder / f"{photo['side']}-{photo['kind']}.{suffix_of(photo['kind'])}"
    if not path.exists():
        write_photo(path, photo["side"], photo["kind"])
    with httpx2.Client(base_url=service.url, timeout=_LONGEST_SECONDS, headers={"X-API-KEY": key}) as client:
        answer = client.post("/api/v1/enhance", files={"file": (path.name, path.read_bytes())}, data=photo["form"])
        if answer.status_code != 202:
            return {**photo, "end": answer.json()["code"]}
        job_id = answer.json()["job_id"]
        while True:
            waited = client.get(f"/api/v1/jobs/{job_id}").json()
            if waited["status"] not in ("queued", "processing"):
                break
            time.sleep(0.2)
    (attempt,) = waited["attempts"]
    if attempt["status"] != "completed":
        return {**photo, "end": (attempt.get("error") or {}).get("code", attempt["status"])}
    return {**photo, "end": "completed", "seconds": round(attempt["ended_at"] - attempt["started_at"], 1)}


def main(words: list[str] | None = None) -> int:
    """Run and judge; 0 or 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_container", description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--limit-mb", type=int, default=2048)
    parser.add_argument("--quick", action="store_true", help="small photos, and the one over")
    asked = parser.parse_args(words)
    found = run(asked.weights.resolve(), asked.limit_mb, quick=asked.quick)
    faults = faults_of(found)
    print(json.dumps({**found, "faults": faults}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
