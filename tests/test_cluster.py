"""Two servers on one PostgreSQL: one restores, the other only serves and knows of models and jobs what the first says.

Both run as real applications; only the network is Pillow's Lanczos.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from app.api.dependencies import AppContext
from app.jobs import worker_reports
from app.main import create_app
from tests.databases import IMPLEMENTATIONS, needs_postgres
from tests.harness import until
from tests.http_service import BASE_URL, KEY, GatedBackend, assert_problem, describe, photo, settings_for

pytestmark = needs_postgres


class Pair:
    """A server that only serves (`api`) and one that restores (`worker`), each with a client, on the same files."""

    def __init__(self, api: TestClient, worker: TestClient, backend: GatedBackend) -> None:
        self.api, self.worker, self.backend = api, worker, backend

    def submit(self) -> str:
        answer = self.api.post("/api/v1/enhance", files={"file": ("cat.png", photo())})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def context(self, client: TestClient) -> AppContext:
        found: AppContext = client.app.state.context  # type: ignore[attr-defined]
        return found

    def ready(self) -> bool:
        return self.api.get("/health/ready").status_code == 200


def open_app(folder: Path, url: str, **more: Any) -> FastAPI:
    settings = settings_for(folder, database_url=url, key=KEY)
    return create_app(settings, describe=describe, warm_up=lambda: "lanczos", **more)


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=BASE_URL, headers={"X-API-KEY": KEY}) as client:
        assert app.state.service.loaded.wait(20)
        yield client


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    url = IMPLEMENTATIONS["postgres"](folder)
    backend = GatedBackend()
    with (
        pytest.MonkeyPatch.context() as patch,
        serving(open_app(folder, url, restores=False)) as api,
    ):
        patch.setattr(worker_reports, "REPORT_SECONDS", 0.1)
        with serving(open_app(folder, url, backends={"local": backend})) as worker:
            made = Pair(api, worker, backend)
            until(made.ready)
            yield made
            backend.gate.set()


@pytest.fixture(autouse=True)
def quick_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_reports, "REPORT_SECONDS", 0.1)


def test_a_job_is_followed_on_a_server_that_does_not_run_it_within_a_second(pair: Pair) -> None:
    pair.backend.gate.clear()
    job_id = pair.submit()
    states, seen_at = [], 0.0
    with (
        pair.api.websocket_connect(f"/api/v1/jobs/{job_id}/status", headers={"X-API-KEY": KEY}) as socket,
        contextlib.suppress(WebSocketDisconnect),
    ):
        while True:
            states.append(json.loads(socket.receive_text()))
            seen_at = time.time()
            if states[-1]["status"] == "processing":
                pair.backend.gate.set()
    attempt_id = pair.worker.get(f"/api/v1/jobs/{job_id}").json()["attempts"][0]["id"]
    assert [state["status"] for state in (states[0], states[-1])] == ["queued", "completed"]
    assert "processing" in {state["status"] for state in states}
    ended = pair.context(pair.worker).store.attempt(attempt_id)
    assert ended is not None
    assert ended.ended_at is not None
    assert seen_at - ended.ended_at < 1.0


def test_a_request_may_wait_on_a_server_that_does_not_run_the_job(pair: Pair) -> None:
    answer = pair.api.post("/api/v1/enhance", files={"file": ("cat.png", photo())}, headers={"Prefer": "wait=20"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "completed"
    assert pair.api.get(f"/api/v1/jobs/{answer.json()['job_id']}/result").status_code == 200


def test_the_server_that_serves_knows_what_the_worker_reports(pair: Pair) -> None:
    ours, theirs = (client.get("/api/v1/config").json() for client in (pair.api, pair.worker))
    for name in ("models", "default_model", "default_quality", "backends", "options"):
        assert ours[name] == theirs[name], name
    status = pair.api.get("/api/v1/status").json()
    assert status["device"] == {"name": "cpu", "reason": "tests need no other"}
    (row,) = status["workers"]
    assert (row["backends"], row["lanes"]) == (["local"], {"local": 3})
    until(lambda: pair.api.get("/api/v1/status").json()["workers"][0]["status"] == "idle")
    assert_problem(
        pair.api.post("/api/v1/enhance", files={"file": ("cat.png", photo())}, data={"model": "absent"}),
        409,
        "model_not_installed",
    )
    assert "restore_live_workers 1.0" in pair.api.get("/metrics").text


def test_the_depth_of_the_queue_is_that_of_the_database(pair: Pair) -> None:
    pair.backend.gate.clear()
    jobs = [pair.submit() for _ in range(5)]
    until(lambda: "restore_queued_attempts 3.0" in pair.api.get("/metrics").text)  # one is restored, one decoded
    assert pair.api.get("/api/v1/status").json()["queue"]["queued"] == 3
    pair.backend.gate.set()
    until(lambda: all(pair.api.get(f"/status/{job}").json()["status"] == "completed" for job in jobs))


def test_a_warm_up_reaches_the_worker_by_its_row(pair: Pair) -> None:
    answer = pair.api.post("/api/v1/models/warmup")
    assert (answer.status_code, answer.json()["model"]) == (200, "lanczos")


def test_a_sign_out_holds_on_the_other_server(pair: Pair) -> None:
    signed_in = pair.api.post("/api/v1/session")
    cookie = signed_in.headers["set-cookie"].partition(";")[0]
    for client in (pair.api, pair.worker):
        client.headers.pop("X-API-KEY")
        client.cookies.clear()
    try:
        headers = {"cookie": cookie}
        assert pair.worker.get("/api/v1/jobs", headers=headers).status_code == 200
        pair.api.delete("/api/v1/session", headers={**headers, "origin": BASE_URL})
        until(lambda: pair.worker.get("/api/v1/jobs", headers=headers).status_code == 401)
    finally:
        for client in (pair.api, pair.worker):
            client.headers["X-API-KEY"] = KEY


def test_without_its_worker_it_is_not_ready_and_still_takes_jobs(tmp_path: Path) -> None:
    url = IMPLEMENTATIONS["postgres"](tmp_path)
    with serving(open_app(tmp_path, url, restores=False)) as api:
        health = api.get("/health/ready")
        assert (health.status_code, health.json()["status"]) == (503, "failing")
        assert health.json()["reasons"] == [
            "No worker is running, so photos wait until whoever runs the service starts one: python3 run.py worker"
        ]
        job = api.post("/api/v1/enhance", files={"file": ("cat.png", photo())})
        assert job.status_code == 202
        assert_problem(api.post("/api/v1/models/warmup"), 503, "no_worker")
        with serving(open_app(tmp_path, url, backends={"local": GatedBackend()})):
            until(lambda: api.get(f"/status/{job.json()['job_id']}").json()["status"] == "completed")
            until(lambda: api.get("/health/ready").status_code == 200)
        until(lambda: api.get("/health/ready").status_code == 503)  # it took itself off the list


def test_a_server_that_only_serves_starts_no_thread_that_restores(tmp_path: Path) -> None:
    url = IMPLEMENTATIONS["postgres"](tmp_path)
    before = set(threading.enumerate())
    with serving(open_app(tmp_path, url, restores=False)):
        names = {thread.name for thread in set(threading.enumerate()) - before}
    assert not {name for name in names if name.startswith("worker-")}
    assert "change-watch" in names
