"""A service whose results change without end, for the kill -9 campaign of changes; each part runs in a forked child.

Clients blend faces anew and delete, and the janitor never rests: what ended a few seconds ago expires, and what lies
around from earlier lives goes.
"""

from __future__ import annotations

import json
import os
import random
import socket
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any, NoReturn

from app.images import Picture
from app.jobs import janitor
from app.jobs.deletion import Deletion
from app.jobs.reblending import Reblender
from app.options import RestoreOptions
from app.results import RestorationResult
from app.stages import OnProgress, Stage
from app.storage import DiskStorage
from app.store import SqlStore
from tests.face_backend import FaceBackend
from tests.fault_http import call, run_server
from tests.fault_service import QUEUE_LIMIT, Point, arm
from tests.harness import photo_bytes
from tests.http_service import settings_for

RETENTION_SECONDS = 6.0
JANITOR_SECONDS = 0.1
PHOTO_SECONDS = 0.02
POINTS: dict[str, Point] = {
    "blended, not published": (Reblender, "_blend", "after"),
    "version published, no row": (SqlStore, "new_version", "before"),
    "version shown, old one there": (DiskStorage, "remove_versions_before", "before"),
    "version before it gone": (DiskStorage, "remove_versions_before", "after"),
    "job removed, files there": (Deletion, "_remove_files", "before"),
    "result of a removed job gone": (DiskStorage, "remove_result", "after"),
    "janitor expired rows": (SqlStore, "expire", "after"),
    "janitor among orphans": (janitor.Janitor, "_remove_all", "before"),
}
_FORM = "changes-boundary"


class SlowFaces(FaceBackend):
    """Two faces in every photo, after a while."""

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """See `Backend`."""
        on_progress(0.1, Stage.UPSCALING)
        time.sleep(PHOTO_SECONDS)
        return super().restore(picture, options, on_progress)


def serve_changing(
    folder: Path, database_url: str, listening: socket.socket, *, point: str | None, seed: int
) -> NoReturn:
    """The child's life; see `fault_http.serve_http`."""
    if point is not None:
        arm(point, 1 + seed % 5, POINTS)
    janitor.GRACE_SECONDS = RETENTION_SECONDS / 2
    minutes = {"retention_minutes": RETENTION_SECONDS / 60, "janitor_interval_minutes": JANITOR_SECONDS / 60}
    run_server(
        settings_for(folder, database_url=database_url, queue_limit=QUEUE_LIMIT, **minutes), SlowFaces(), listening
    )


def change(port: int, answers: int, seed: int) -> NoReturn:
    """A client's life: submit, blend and delete, telling of a job before it is deleted; never give up."""
    chance = random.Random(seed)
    while True:
        try:
            _change_one(port, answers, chance)
        except (OSError, HTTPException, ValueError):  # the service was killed under us
            time.sleep(0.01)


def submit(port: int, seed: int = 0) -> str | None:
    """Send a photo with two faces; gives the job's id when it was accepted."""
    content = photo_bytes(48, 36, seed, "PNG")
    head = f'--{_FORM}\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{_FORM}--\r\n".encode()
    status, said = call(
        port, "POST", "/api/v1/enhance", body, {"Content-Type": f"multipart/form-data; boundary={_FORM}"}
    )
    return str(json.loads(said)["job_id"]) if status == 202 else None


def blend(port: int, job_id: str, strength: float) -> int:
    """Blend the first face of a job anew; gives the status."""
    body = json.dumps({"0": strength}).encode()
    return call(port, "POST", f"/api/v1/jobs/{job_id}/faces", body, {"Content-Type": "application/json"})[0]


def jobs(port: int) -> list[dict[str, Any]]:
    """The newest jobs."""
    found: list[dict[str, Any]] = json.loads(call(port, "GET", "/api/v1/jobs", b"", {})[1])["jobs"]
    return found


def _change_one(port: int, answers: int, chance: random.Random) -> None:
    way = chance.random()
    if way < 0.3:
        job_id = submit(port, chance.randint(0, 9))
        if job_id is not None:
            os.write(answers, f"{job_id}\n".encode())
        return
    ended = [job["job_id"] for job in jobs(port) if job["status"] == "completed"]
    if not ended:
        time.sleep(0.02)
    elif way < 0.85:
        blend(port, chance.choice(ended), chance.random())
    else:
        job_id = chance.choice(ended)
        os.write(answers, f"-{job_id}\n".encode())
        call(port, "DELETE", f"/api/v1/jobs/{job_id}", b"", {})
