"""What the service adds to the bare restoration: start, throughput, and the answer time of a submit under load.

- start: seconds from the start of the process until ready, weights in place;
- throughput: ten photos submitted one after another, first submit to last result, against the bare restorations of
  the same ten (no decoding, no encoding, no HTTP), in interleaved rounds;
- submit: answer times of 100 parallel clients while the worker saturates the processor, and whether anything is lost.

Run: `python -m benchmarks.service --weights FOLDER --photos FOLDER`. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image
from websockets.sync.client import connect

from benchmarks.request import Request, Row
from benchmarks.running_service import RunningService, running_service

_PHOTOS, _SIDE = 10, 320
_CLIENTS = 100


def make_photos(folder: Path) -> list[bytes]:
    """Ten JPEGs of about 320x320 made from the folder's photos."""
    sources = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    return as_jpegs([Image.open(path, formats=["JPEG", "PNG"]).convert("RGB") for path in sources[:_PHOTOS]])


def as_jpegs(images: Sequence[Image.Image]) -> list[bytes]:
    """Ten JPEGs of about 320x320, each of its own width, from the images in turn."""
    photos = []
    for number in range(_PHOTOS):
        image = images[number % len(images)].resize((_SIDE + number, _SIDE), Image.Resampling.BICUBIC)
        data = io.BytesIO()
        image.save(data, "JPEG", quality=90)
        photos.append(data.getvalue())
    return photos


def measure(request: Request) -> list[Row]:
    """Ten photos through the service, against the bare engine with and without files, in interleaved rounds."""
    found = throughput(request.weights, as_jpegs([Image.fromarray(request.picture)]), request.rounds, request.device)
    rows = []
    for name, seconds in found["median_seconds"].items():
        times = seconds / found["median_seconds"]["bare"]
        rows.append(Row("service", f"ten photos of 320x320, {name}", {"median_seconds": seconds, "times_bare": times}))
    return rows


class Bare:
    """The bare restoration in this process: networks loaded, pictures already decoded."""

    def __init__(self, weights: Path, photos: Sequence[bytes], device: str) -> None:
        from app.backends.local import open_local_backend
        from app.images import Picture

        self._backend = open_local_backend(weights, device=device, allow_unverified=True)
        self._backend.load()
        images = [Image.open(io.BytesIO(data), formats=["JPEG"]).convert("RGB") for data in photos]
        self._pictures = [Picture(np.asarray(image)) for image in images]

    def run(self) -> float:
        """Seconds for all photos, one after another."""
        from app.options import RestoreOptions

        options = RestoreOptions(face_enhance=False)
        started = time.perf_counter()
        for picture in self._pictures:
            self._backend.restore(picture, options, lambda fraction, stage: True)
        return time.perf_counter() - started

    def run_files(self, photos: Sequence[bytes], output_format: str) -> float:
        """Seconds for all photos from file bytes to a result on disk, one after another, as a plain script would."""
        from app.images import Picture, encode
        from app.options import RestoreOptions

        options = RestoreOptions(face_enhance=False)
        with tempfile.TemporaryDirectory() as name:
            started = time.perf_counter()
            for number, data in enumerate(photos):
                image = Image.open(io.BytesIO(data), formats=["JPEG"]).convert("RGB")
                restored = self._backend.restore(Picture(np.asarray(image)), options, lambda fraction, stage: True)
                encode(restored.picture, Path(name) / f"{number}", output_format, 95, "keep")
            return time.perf_counter() - started


def served(service: RunningService, photos: Sequence[bytes], output_format: str) -> float:
    """Seconds from the first submit until the last job is completed."""
    with httpx2.Client(base_url=service.url, timeout=30.0) as client:
        started = time.perf_counter()
        jobs = []
        for number, data in enumerate(photos):
            fields = {"face_enhance": "false", "output_format": output_format}
            answer = client.post("/api/v1/enhance", files={"file": (f"{number}.jpg", data)}, data=fields)
            answer.raise_for_status()
            jobs.append(answer.json()["job_id"])
        _await_end(service, jobs[-1])
        seconds = time.perf_counter() - started
        states = {client.get(f"/api/v1/jobs/{job}").json()["status"] for job in jobs}
    if states != {"completed"}:
        raise RuntimeError(f"jobs ended as {states}")
    return seconds


def _await_end(service: RunningService, job: str) -> None:
    """Listen to the job's socket until it closes: polling would take the processor from what is measured."""
    address = f"ws{service.url.removeprefix('http')}/api/v1/jobs/{job}/status"
    with connect(address, max_size=2**20) as socket:
        for _ in socket:
            pass


def throughput(weights: Path, photos: Sequence[bytes], rounds: int, device: str = "auto") -> dict[str, Any]:
    """Medians of interleaved rounds: bare, with files, and served, as JPEG and as PNG."""
    bare = Bare(weights, photos, device)
    seconds: dict[str, list[float]] = {}
    with running_service(weights, DEVICE=device) as service:
        for number in range(rounds + 1):
            row = {"bare": bare.run()}
            for name in ("jpg", "png"):
                row[f"bare, {name} files"] = bare.run_files(photos, name)
                row[f"served, {name}"] = served(service, photos, name)
            for name, value in row.items() if number else ():  # the first round warms both up
                seconds.setdefault(name, []).append(value)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "median_seconds": medians,
        "more_than_bare": {name: medians[f"served, {name}"] / medians["bare"] - 1.0 for name in ("jpg", "png")},
        "more_than_bare_files": {
            name: medians[f"served, {name}"] / medians[f"bare, {name} files"] - 1.0 for name in ("jpg", "png")
        },
    }


def _raw_submit(photo: bytes) -> bytes:
    """One whole HTTP request, made once: the clients share the processor with the service and should cost little."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    body = head + photo + b"\r\n--x--\r\n"
    lines = ("POST /api/v1/enhance HTTP/1.1", "Host: 127.0.0.1", "Content-Type: multipart/form-data; boundary=x")
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def _client(
    port: int, request: bytes, submits: int, think_seconds: float, times: list[float], jobs: list[str]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(submits):
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        times.append(time.perf_counter() - started)
        if not head.startswith(b"HTTP/1.1 202"):
            raise RuntimeError(f"a submit was refused: {head[:20]!r} {body!r}")
        jobs.append(json.loads(body)["job_id"])
        if number < submits - 1:
            await asyncio.sleep(think_seconds)
    writer.close()


async def _flood(port: int, request: bytes, submits: int, think_seconds: float) -> tuple[list[float], list[str]]:
    """All clients at once; each starts at its own moment within the pause between two submits of a client."""
    times: list[float] = []
    jobs: list[str] = []

    async def later(number: int) -> None:
        await asyncio.sleep(think_seconds * number / _CLIENTS)
        await _client(port, request, submits, think_seconds, times, jobs)

    await asyncio.gather(*(later(number) for number in range(_CLIENTS)))
    return times, jobs


def submit_times(weights: Path, photos: Sequence[bytes], submits: int, think_seconds: float) -> dict[str, Any]:
    """Answer times of submits while the worker is busy, and how many accepted jobs the service then knows."""
    with running_service(weights, QUEUE_LIMIT="100000") as service:
        busy = photos[0]
        for _ in range(3):
            files = {"file": ("busy.jpg", busy)}
            httpx2.post(f"{service.url}/api/v1/enhance", files=files, data={"scale": "8"}).raise_for_status()
        times, jobs = asyncio.run(
            _flood(int(service.url.rsplit(":", 1)[1]), _raw_submit(photos[1]), submits, think_seconds)
        )
        with httpx2.Client(base_url=service.url, timeout=30.0) as client:
            lost = sum(client.get(f"/api/v1/jobs/{job}").status_code != 200 for job in jobs)
    times.sort()
    return {
        "clients": _CLIENTS,
        "submits": len(times),
        "think_seconds": think_seconds,
        "median_ms": statistics.median(times) * 1000,
        "p99_ms": times[int(len(times) * 0.99) - 1] * 1000,
        "worst_ms": times[-1] * 1000,
        "lost": lost,
    }


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["start", "throughput", "submit"])
    asked = parser.parse_args()
    photos = make_photos(asked.photos)
    report: dict[str, Any] = {}
    if asked.only in (None, "start"):
        report["seconds_to_ready"] = []
        for _ in range(3):
            with running_service(asked.weights) as service:
                report["seconds_to_ready"].append(service.seconds_to_ready)
    if asked.only in (None, "throughput"):
        report["throughput"] = throughput(asked.weights, photos, asked.rounds)
    if asked.only in (None, "submit"):
        for think_seconds in (2.0, 1.0, 0.0):
            name = f"submit, {think_seconds:g} s between two of a client"
            report[name] = submit_times(asked.weights, photos, submits=10, think_seconds=think_seconds)
    for name, value in report.items():
        print(f"{name}: {value}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
