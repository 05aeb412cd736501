"""A whole service for tests: the real app, store, decoder and worker, with a small real backend that enlarges.

The backend is Pillow's Lanczos in tiles with progress, so results are true images of the right size; tests can hold it.
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from app.api.auth.rate_windows import MemoryWindows
from app.backends.protocol import Backend
from app.errors import Cancelled, Unprocessable
from app.images import Picture
from app.main import create_app
from app.options import RestoreOptions
from app.results import RestorationResult
from app.settings import Settings
from app.stages import OnProgress, Stage
from tests.harness import until

KEY = "correct-horse-battery-staple"
OTHER_KEY = "another-key-of-somebody-else"
BASE_URL = "http://localhost:8001"
TILES = 4


class GatedBackend:
    """Enlarges by Lanczos, strip by strip. `gate` holds it before each strip while cleared."""

    name = "local"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.calls = 0

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """See `app.backends.protocol.Backend`. A prompt of `fail` makes it fail, as a model may."""
        self.calls += 1
        started = time.perf_counter()
        if options.prompt == "fail":
            raise Unprocessable("undecodable_image", "This photo was asked to fail.")
        for tile in range(TILES):
            while not self.gate.wait(0.02):
                if not on_progress(tile / TILES, Stage.UPSCALING):
                    raise Cancelled
            if not on_progress(tile / TILES, Stage.UPSCALING):
                raise Cancelled
        size = (round(picture.width * options.scale), round(picture.height * options.scale))
        rgb = np.asarray(Image.fromarray(picture.rgb.astype(np.uint8)).resize(size, Image.Resampling.LANCZOS))
        restored = Picture(rgb, source_format=picture.source_format)
        return RestorationResult(restored, "lanczos", time.perf_counter() - started, {"device": "cpu"})


def describe() -> dict[str, Any]:
    """What main would say of the Lanczos backend."""
    return {
        "engine": "test",
        "device": "cpu",
        "device_reason": "tests need no other",
        "precision": "fp32",
        "precision_reason": "exact",
        "default_quality": "fast",
        "default_model": "lanczos",
        "qualities": [
            {"quality": quality, "model": "lanczos", "stands_in_for": None} for quality in ("fast", "balanced", "best")
        ],
        "warm_run": {"model": "lanczos", "pixels": 40_000, "seconds": 0.004},
        "loaded_models": [("lanczos", "fp32")],
        "models": [
            {
                "name": "lanczos",
                "file": "none",
                "bytes": 0,
                "licence": "MIT",
                "installed": True,
                "note": None,
                "architecture": "compact",
                "megamacs_per_pixel": 0.001,
            },
            {"name": "absent", "file": "absent.pth", "bytes": 9, "licence": "MIT", "installed": False, "note": None},
        ],
        "backends": [
            {"name": "local", "available": True, "reason": None},
            {"name": "siliconflow", "available": False, "reason": "no SILICONFLOW_API_KEY is set"},
        ],
        "problems": [],
    }


def settings_for(folder: Path, **changes: Any) -> Settings:
    """Settings that keep everything inside one folder; given values win over the environment."""
    values: dict[str, Any] = {
        "upload_folder": folder / "uploads",
        "processed_folder": folder / "results",
        "database_url": f"sqlite:///{folder / 'jobs.sqlite3'}",
        "weights_folder": folder / "weights",
        "min_free_disk_mb": 0,
        "rate_limit": "0",
        "drain_seconds": 2,
        **changes,
    }
    key = values.pop("key", "")
    return Settings.model_validate({"API_KEY": key, **values})


class Service:
    """A running service and a client to talk to it."""

    def __init__(self, client: TestClient, app: FastAPI, backend: GatedBackend, folder: Path) -> None:
        self.client, self.app, self.backend, self.folder = client, app, backend, folder
        self.context, self.restoring = app.state.context, app.state.service.restoring

    def submit(self, data: bytes | None = None, name: str = "cat.png", **fields: str) -> str:
        """Send one photo; gives the job's id."""
        answer = self.client.post("/api/v1/enhance", files={"file": (name, data or photo())}, data=fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def finish(self, job_id: str, seconds: float = 10) -> dict[str, Any]:
        """Wait for the end of a job; gives its full state."""

        def state() -> dict[str, Any]:
            found: dict[str, Any] = self.client.get(f"/api/v1/jobs/{job_id}").json()
            return found

        until(lambda: state()["status"] in ("completed", "failed", "cancelled"), seconds)
        return state()

    def wait_for(self, job_id: str, status: str, seconds: float = 10) -> None:
        """Wait until a job has a status."""
        until(lambda: self.client.get(f"/status/{job_id}").json()["status"] == status, seconds)

    def forget_rates(self) -> None:
        """Begin every window of requests and wrong keys anew."""
        self.context.rate_limits.windows = MemoryWindows()

    def uploads(self) -> list[str]:
        """Names of the files in the upload folder."""
        return sorted(path.name for path in (self.folder / "uploads").iterdir())


@contextlib.contextmanager
def running(
    folder: Path,
    *,
    describe: Any = describe,
    backend: Backend | None = None,
    others: Mapping[str, Backend] | None = None,
    **changes: Any,
) -> Iterator[Service]:
    """A service behind a client that calls it without sockets. With a key set the client sends it."""
    settings = settings_for(folder, **changes)
    lanczos = GatedBackend()
    backends = {"local": backend or lanczos, **(others or {})}
    app = create_app(settings, backends=backends, describe=describe, warm_up=lambda: "lanczos")
    headers = {"X-API-KEY": settings.keys[0].key} if settings.keys else {}
    with TestClient(app, base_url=BASE_URL, headers=headers) as client:
        app.state.service.loaded.wait(20)
        try:
            yield Service(client, app, lanczos, folder)
        finally:
            lanczos.gate.set()


def photo(width: int = 40, height: int = 30, kind: str = "PNG") -> bytes:
    """A small gradient photo, encoded."""
    ramp = np.linspace(0, 255, width, dtype=np.uint8)
    pixels = np.stack([np.tile(ramp, (height, 1))] * 3, axis=2)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def free_port() -> int:
    """A loopback port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def assert_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The answer is a problem of this status and code, in the agreed form; gives its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    assert len(body["detail"]) > 10
    return body
