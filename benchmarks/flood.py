"""How long one owner's photos wait while another owner keeps the queue full, with the limits that are on by default.

The quiet owner sends a photo when the last one has ended. `started_at` of a row is its claim, which comes before the
photo is decoded; the start that counts here is when a network begins to run over the photo, since before it the photo
may still wait for the device. The flooder keeps as many photos waiting as he may have, and sends again when
he is told to.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
from PIL import Image

from benchmarks.request import invented_picture
from benchmarks.running_service import RunningService, running_service

_FLOODERS = 6
_LONGEST_PAUSE_SECONDS = 1.0  # of a flooder who was refused; he does not wait for as long as he is told
_SIDE_PIXELS = 256
_KEYS = {"quiet": "a-key-of-the-quiet-owner", "loud": "a-key-of-the-loud-owner"}
_NOT_RESTORING = ("waiting", "decoding", "loading")
_ENDED = ("completed", "failed", "cancelled")


class Waits(NamedTuple):
    """Seconds from the acceptance of one photo: to its claim, to its start, to its end; and its restoration alone."""

    to_claim: float
    to_start: float
    to_end: float
    restoring: float


def flood(weights: Path, submits: int) -> dict[str, Any]:
    """The quiet owner's photos alone and beside a flood: medians and longest, seconds, and how they compare.

    `photos_waited_for` says how many of the flooder's restorations the median start waits for beyond the idle one.
    """
    photo = invented_photo(_SIDE_PIXELS)
    keys = ",".join(f"{name}:{key}" for name, key in _KEYS.items())
    settings: dict[str, Any] = {"API_KEY": keys, "RATE_LIMIT": "600/minute"}
    with running_service(weights, headers={"X-API-KEY": _KEYS["quiet"]}, **settings) as service:
        _waits(service, photo, 2)
        alone = _waits(service, photo, submits)
        with _flooding(service, photo) as told:
            beside = _waits(service, photo, submits)
    medians = [{name: _median(waits, name) for name in Waits._fields} for waits in (alone, beside)]
    ratios = {name: medians[1][name] / medians[0][name] for name in Waits._fields}
    return {
        "alone": medians[0],
        "beside_a_flood": medians[1],
        "ratio": ratios,
        "longest_to_start": [max(each.to_start for each in waits) for waits in (alone, beside)],
        "photos_waited_for": (medians[1]["to_start"] - medians[0]["to_start"]) / medians[1]["restoring"],
        "flood": dict(told),
    }


def _median(waits: list[Waits], name: str) -> float:
    return float(statistics.median(getattr(each, name) for each in waits))


def invented_photo(side: int) -> bytes:
    """A square JPEG of so many pixels a side."""
    data = io.BytesIO()
    Image.fromarray(invented_picture(side)).save(data, "JPEG", quality=90)
    return data.getvalue()


def _waits(service: RunningService, photo: bytes, submits: int) -> list[Waits]:
    with httpx2.Client(base_url=service.url, timeout=60.0, headers={"X-API-KEY": _KEYS["quiet"]}) as client:
        return [_one(client, photo) for _ in range(submits)]


def _one(client: httpx2.Client, photo: bytes) -> Waits:
    """One photo, followed by its events to the end."""
    job_id = client.post("/api/v1/enhance", files={"file": ("a.jpg", photo)}).raise_for_status().json()["job_id"]
    started_at: float | None = None
    with client.stream("GET", f"/api/v1/jobs/{job_id}/events") as events:
        for line in events.iter_lines():
            state = json.loads(line.removeprefix("data: ")) if line.startswith("data: {") else {}
            if state.get("status") in _ENDED:
                break
            if started_at is None and state.get("status") == "processing" and state["stage"] not in _NOT_RESTORING:
                started_at = time.time()
    (attempt,) = client.get(f"/api/v1/jobs/{job_id}").raise_for_status().json()["attempts"]
    created_at, claimed_at, ended_at = attempt["created_at"], attempt["started_at"], attempt["ended_at"]
    restoring = attempt["result"]["seconds"]
    begun_at = started_at or ended_at - restoring  # without a message in between it was as quick as that
    return Waits(claimed_at - created_at, begun_at - created_at, ended_at - created_at, restoring)


@contextlib.contextmanager
def _flooding(service: RunningService, photo: bytes) -> Iterator[Counter[int]]:
    """Submits of another owner from several clients; tells how many had which status."""
    told: Counter[int] = Counter()
    stop = threading.Event()

    def send(_: int) -> None:
        with httpx2.Client(base_url=service.url, timeout=60.0, headers={"X-API-KEY": _KEYS["loud"]}) as client:
            while not stop.is_set():
                answer = client.post("/enhance", files={"file": ("a.jpg", photo)})
                told[answer.status_code] += 1
                if answer.status_code != HTTPStatus.ACCEPTED:
                    stop.wait(min(_LONGEST_PAUSE_SECONDS, float(answer.headers.get("retry-after", 1))))

    with ThreadPoolExecutor(_FLOODERS) as pool:
        sending = [pool.submit(send, number) for number in range(_FLOODERS)]
        try:
            time.sleep(2.0)
            yield told
        finally:
            stop.set()
            for one in sending:
                one.result()
