"""Attacks on what is kept and handed out: hidden places, files that go while they are read or written, results."""

from __future__ import annotations

import http.client
import io
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import requests
from PIL import Image

from benchmarks.attacks.hostile import black_png, noise, odd_exif, photo
from benchmarks.attacks.target import TIMEOUT_SECONDS, Seen, Target, started
from tests.hidden_places import PLACES, TRACES, inflated

_PLAIN: dict[str, Any] = {"scale": "1", "face_enhance": "false"}
_RACES, _DOWNLOADERS = 45, 8
_LONGEST_HEAD_START_SECONDS = 0.3  # of the downloads before the deletion
_LONG_NAME = "\N{GRINNING FACE}" * 116 + ".jpg"  # 120 characters, 468 bytes
_LONGEST_NAME_BYTES = 255
_DPI_CLOSENESS, _MOST_JPEG_DPI = 0.01, 65_535.0
_JANITOR: dict[str, Any] = {"JANITOR_INTERVAL_MINUTES": "0.02", "RETENTION_MINUTES": "1"}
_PREVIEWS = """
import sys
from pathlib import Path
from typing import Any
from app.images import Decoder, ImageLimits
decoder = Decoder(ImageLimits())
for name in sys.argv[1:]:
    try:
        print("made" if decoder.preview(Path(name), 400, max_megapixels=400) else "empty")
    except Exception as error:
        print(getattr(error, "code", repr(error)))
decoder.close()
"""
_DEEP_TIFF = """
import sys
from pathlib import Path
from typing import Any
import numpy as np
from app.images import Picture, encode
ramp = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21
encode(Picture(np.repeat(ramp[..., None], 3, axis=2), ramp, grey=True), Path(sys.argv[1]), "tiff", 95, "keep")
"""


def hidden_places(checkout: Path) -> Seen:
    """`strip_gps` on photos that hide the place where they were taken, each somewhere else."""
    with started(checkout, QUEUE_LIMIT="500", QUEUE_LIMIT_PER_OWNER="500") as target:
        jobs = {name: target.submit(make(), metadata="strip_gps", **_PLAIN).json() for name, make in PLACES.items()}
        told, failed = [], []
        for name, job in jobs.items():
            if "job_id" not in job or target.ended(job["job_id"])["status"] != "completed":
                failed.append(name)
                continue
            data = inflated(target.get(f"/api/v1/jobs/{job['job_id']}/result").content)
            told += [name] if any(trace in data for trace in TRACES) else []
    shown = f" ({', '.join(told[:4])} ...)" if told else ""
    words = f"{len(told)} of {len(PLACES)} results tell the place{shown}; {len(failed)} failed"
    return Seen(words, bool(told or failed))


def downloads_while_deleting(checkout: Path) -> Seen:
    """Downloads of every route beside the deletion of their job."""
    ends: Counter[str] = Counter()
    with started(checkout, QUEUE_LIMIT="500", QUEUE_LIMIT_PER_OWNER="500") as target:
        jobs = [target.submit(photo(), **_PLAIN).json()["job_id"] for _ in range(_RACES)]
        for job in jobs:
            url = target.ended(job)["results"][0]["url"]
            paths = [url, *(f"/api/v1/{path}" for path in (f"jobs/{job}/result", f"jobs/{job}/original"))]
            ends += _race(target, job, [*paths, f"/api/v1/batch/{job}/results"])
    began, cut = ends["whole"] + ends["cut"], ends["cut"]
    return Seen(f"{cut} of {began} downloads cut, {ends['refused']} refused before they began", cut > 0)


def part_of_a_slow_upload(checkout: Path) -> Seen:
    """The janitor passes while an upload is written whose part is an hour old by its clock."""
    data = noise(500, 400)
    with started(checkout, **_JANITOR) as target:
        asked = requests.Request("POST", target.url, files={"files": ("slow.png", data)}).prepare()
        body, half = asked.body, len(data) * 2 // 3
        assert isinstance(body, bytes)
        connection = http.client.HTTPConnection(*target.address, timeout=TIMEOUT_SECONDS)
        connection.putrequest("POST", "/enhance")
        for name, value in {**target.attacker, **asked.headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(body[:half])
        part = _await_part(target.folder)
        os.utime(part, (time.time() - 3600,) * 2)
        time.sleep(4.0)
        stays = part.exists()
        connection.send(body[half:])
        status = connection.getresponse().status
    return Seen(f"the part {'stays' if stays else 'is GONE'} under its writer; submit {status}", status != 202)


def odd_exif_tags(checkout: Path) -> Seen:
    """EXIF tags of types that no camera writes, into the formats that have EXIF of their own kind."""
    wrong = []
    with started(checkout, QUEUE_LIMIT="500", QUEUE_LIMIT_PER_OWNER="500") as target:
        kinds = [(what, form, data) for what, data in odd_exif().items() for form in ("jpg", "tiff", "avif")]
        jobs = [target.submit(data, output_format=form, **_PLAIN).json()["job_id"] for _, form, data in kinds]
        for job, (what, form, data) in zip(jobs, kinds, strict=True):
            state = target.ended(job)
            if state["status"] != "completed":
                wrong.append(f"{what} as {form}: {state['errors'][0]['code']}")
            elif fault := _fault_of(target.get(f"/api/v1/jobs/{job}/result").content, data):
                wrong.append(f"{what} as {form}: {fault}")
    shown = f" ({'; '.join(wrong[:3])} ...)" if wrong else ""
    return Seen(f"{len(wrong)} of {len(kinds)} failed, do not open or say other dots an inch{shown}", bool(wrong))


def large_previews(checkout: Path) -> Seen:
    """Previews of the largest results, and a TIFF of 16-bit grey with alpha."""
    with tempfile.TemporaryDirectory() as name:
        colours, greys, deep = (Path(name) / file for file in ("rgba.png", "grey16.png", "deep.tif"))
        black_png(colours, 19_600, 19_600, 6, 8)
        black_png(greys, 16_000, 16_063, 0, 16)
        made = _in_checkout(checkout, _PREVIEWS, colours, greys).split()
        _in_checkout(checkout, _DEEP_TIFF, deep)
        opens = _opens(deep.read_bytes())
    words = f"preview of RGBA 384 MP: {made[0]}, of 16-bit grey 257 MP: {made[1]}"
    broken = made != ["made", "made"] or not opens
    return Seen(f"{words}; a 16-bit grey TIFF with alpha {'opens' if opens else 'does NOT open'} in Pillow", broken)


def long_zip_names(target: Target) -> Seen:
    """A name of 120 characters with four bytes each, then the ZIP."""
    job = target.submit(photo(), name=_LONG_NAME, **_PLAIN).json()["job_id"]
    target.ended(job)
    with zipfile.ZipFile(io.BytesIO(target.get(f"/api/v1/batch/{job}/results").content)) as archive:
        longest = max(len(name.encode()) for name in archive.namelist())
    return Seen(f"the longest entry's name has {longest} bytes", longest > _LONGEST_NAME_BYTES)


def _race(target: Target, job: str, paths: list[str]) -> Counter[str]:
    """Several threads download all paths in turn while the job is deleted; how many came whole, cut, or not at all."""
    ends: Counter[str] = Counter()
    together = threading.Barrier(_DOWNLOADERS + 1)

    def download(first: int) -> None:
        together.wait()
        for number in range(len(paths)):
            end = _download(target, paths[(first + number) % len(paths)])
            ends[end] += 1

    threads = [threading.Thread(target=download, args=(number,)) for number in range(_DOWNLOADERS)]
    for thread in threads:
        thread.start()
    together.wait()
    time.sleep(random.uniform(0.0, _LONGEST_HEAD_START_SECONDS))
    requests.delete(f"{target.url}/api/v1/jobs/{job}", headers=target.attacker, timeout=TIMEOUT_SECONDS)
    for thread in threads:
        thread.join()
    return ends


def _download(target: Target, path: str) -> str:
    try:
        answer = target.get(path, stream=True)
    except requests.RequestException:
        return "cut"
    try:
        whole = len(answer.content) == int(answer.headers["content-length"])
    except requests.RequestException:
        return "cut"
    return "refused" if answer.status_code != 200 else "whole" if whole else "cut"


def _await_part(folder: Path) -> Path:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        found = next(folder.rglob("*.part"), None)
        if found is not None:
            return found
        time.sleep(0.02)
    raise TimeoutError("the upload has no part on the disk")


def _fault_of(result: bytes, source: bytes) -> str:
    """What is wrong with a result: it does not open, or has another resolution than its photo."""
    if not _opens(result):
        return "opens nowhere"
    with Image.open(io.BytesIO(result)) as image, Image.open(io.BytesIO(source)) as original:
        told, meant = image.info.get("dpi"), original.info.get("dpi")
        if isinstance(told, tuple) and isinstance(meant, tuple) and original.format == "PNG":
            wanted = min(float(meant[0]), _MOST_JPEG_DPI if image.format == "JPEG" else float(meant[0]))
            far = abs(float(told[0]) - wanted) > _DPI_CLOSENESS * wanted
            return f"{float(told[0]):.0f} dots an inch" if far else ""
    return ""


def _opens(data: bytes) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            image.load()
            image.getexif().get_ifd(0x8769)
    except Exception:  # noqa: BLE001 - readers raise nearly every class there is
        return False
    return True


def _in_checkout(checkout: Path, code: str, *files: Path) -> str:
    """What a program prints that runs in the checkout."""
    command = [sys.executable, "-c", code, *map(str, files)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return done.stdout
