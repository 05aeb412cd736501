"""The app of Modal as far as it goes without an account: `.local()` runs the enter hooks, the methods and the ASGI app.

Rows lie in a real PostgreSQL server and files in a real S3 server, as there; what Modal would do is to call.
"""

from __future__ import annotations

import importlib
import queue
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.errors import Conflict
from app.queue import LocalQueue
from app.settings import Settings
from tests.databases import IMPLEMENTATIONS, Clock, needs_postgres
from tests.harness import until
from tests.http_service import KEY, photo
from tests.s3_servers import BUCKET, S3Server
from tests.webhook_receiver import SECRET, receiving

ROOT = Path(__file__).resolve().parents[1]
HEADERS = {"X-API-KEY": KEY}
pytest.importorskip("modal", reason="modal is not installed (requirements-modal.txt), so its app is not tested")


@pytest.fixture(scope="module")
def modal_app() -> ModuleType:
    return importlib.import_module("modal_app")


@pytest.fixture
def environment(seaweedfs: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the secret would set."""
    values = {
        "API_KEY": KEY,
        "DATABASE_URL": IMPLEMENTATIONS["postgres"](tmp_path),
        "STORAGE_URL": f"s3://{BUCKET}/modal-{tmp_path.name}",
        "S3_ENDPOINT_URL": seaweedfs.url,
        "S3_ADDRESSING_STYLE": "path",
        "UPLOAD_FOLDER": str(tmp_path / "uploads"),
        "PROCESSED_FOLDER": str(tmp_path / "results"),
        "WEIGHTS_FOLDER": str(tmp_path / "weights"),
        "MIN_FREE_DISK_MB": "0",
        "DEVICE": "cpu",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def called(modal_app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> queue.Queue[tuple[str, str]]:
    """What Modal was asked to call: backend and attempt."""
    heard: queue.Queue[tuple[str, str]] = queue.Queue()
    names = ("local", "siliconflow")
    monkeypatch.setattr(
        modal_app, "calls", lambda: {name: lambda attempt_id, n=name: heard.put((n, attempt_id)) for name in names}
    )
    return heard


@pytest.fixture
def client(modal_app: ModuleType, environment: Path, called: queue.Queue[tuple[str, str]]) -> Iterator[TestClient]:
    with TestClient(modal_app.Web().serve.local(), base_url="http://localhost") as opened:
        yield opened


@needs_postgres
@pytest.mark.filterwarnings("ignore:.*will not have access to the mounted Volume")
def test_a_photo_goes_from_the_web_class_by_a_call_of_the_card_class_to_its_result(
    modal_app: ModuleType,
    client: TestClient,
    called: queue.Queue[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[Any] = []
    open_runs = modal_app.open_runs

    def open_and_note(how: Any) -> Any:
        opened.append(open_runs(how))
        return opened[-1]

    monkeypatch.setattr(modal_app, "open_runs", open_and_note)
    assert client.get("/").status_code == 200
    answer = client.post("/api/v1/enhance", files={"file": ("cat.png", photo())}, data={"scale": "2"}, headers=HEADERS)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["job_id"]
    backend, attempt_id = called.get(timeout=20)
    assert backend == "local"
    card = modal_app.Gpu()
    card.run_attempt.local(attempt_id)
    card.run_attempt.local(attempt_id)  # called twice: the second finds nothing to do
    job = client.get(f"/api/v1/jobs/{job_id}", headers=HEADERS).json()
    assert job["status"] == "completed", job
    assert client.get(f"/api/v1/jobs/{job_id}/result", headers=HEADERS).status_code == 200
    for runs in opened:
        runs.close()


@needs_postgres
def test_the_sweep_has_what_dead_containers_left_called_again(
    modal_app: ModuleType,
    client: TestClient,
    called: queue.Queue[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from app.main.attempt_runs import AttemptRuns
    from app.store import SqlStore

    client.post("/api/v1/enhance", files={"file": ("cat.png", photo())}, headers=HEADERS)
    _, attempt_id = called.get(timeout=20)
    clock = Clock()
    elsewhere = SqlStore(Settings().database_url, worker="a container that dies", lease_seconds=0.0, clock=clock)
    elsewhere.open()
    assert elsewhere.claim(attempt_id, "token", 1.0) is not None  # by a clock of long ago: it has run out
    elsewhere.close()
    sweep = AttemptRuns.sweep
    monkeypatch.setattr(AttemptRuns, "sweep", lambda self: sweep(self, pause=lambda _: None))
    told: list[AttemptRuns] = []
    monkeypatch.setattr(AttemptRuns, "tell_webhooks", lambda self: told.append(self))
    modal_app.sweep.local()
    assert called.get(timeout=20) == ("local", attempt_id)
    assert len(told) == 1


@needs_postgres
@pytest.mark.usefixtures("environment")
def test_webhooks_that_are_due_are_told_while_nothing_serves_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from app.main.attempt_runs import AttemptRuns
    from app.store import JobOrigin, NewPhoto, SqlStore

    with receiving() as receiver:
        monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
        monkeypatch.setenv("WEBHOOK_HOSTS", receiver.origin)
        store = SqlStore(Settings().database_url)
        store.open()
        for number in range(3):
            new = [NewPhoto(f"{number:032x}", "a" * 64, "old.jpg", "image/jpeg", 3, 2, 9)]
            job, _ = store.submit("me", new, "{}", "local", 99, 1.0, origin=JobOrigin(webhook_url=receiver.origin))
            store.cancel_or_remove("me", job.id, 2.0)
        runs = AttemptRuns(Settings(), LocalQueue())
        runs.connect()
        runs.tell_webhooks(most_seconds=0.0)
        assert receiver.received == []
        runs.tell_webhooks()
        assert [one.job["status"] for one in receiver.received] == ["cancelled"] * 3
        assert store.webhooks.claim_due(60.0) is None
        runs.close()
        store.close()


def test_a_call_that_fails_is_only_said_to_the_log(modal_app: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    def away(_: str) -> None:
        raise ConnectionError("no token")

    wake_ups = LocalQueue()
    modal_app.SpawnForwarder(wake_ups, lambda _: "local", {"local": away})
    wake_ups.publish("a" * 32)
    until(lambda: "could not be handed to Modal" in caplog.text)


DATABASE, BUCKET_ONLY = (
    {"database_url": "postgresql+psycopg://me@db.example.org/jobs"},
    {"storage_url": "s3://photos/x"},
)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "another machine"),
        (DATABASE, "another machine"),
        (BUCKET_ONLY, "another machine"),
        ({**DATABASE, **BUCKET_ONLY}, "set API_KEY"),
    ],
)
def test_what_does_not_fit_many_machines_is_refused(
    modal_app: ModuleType, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Conflict, match=sentence) as refused:
        modal_app.create_web(Settings.model_validate(changes), {})
    assert refused.value.code == "settings_conflict"


def test_the_light_image_lacks_the_networks_and_nothing_else(modal_app: ModuleType) -> None:
    def names(lines: list[str]) -> set[str]:
        return {re.split(r"[=\[;<> ]", line)[0] for line in lines}

    every = names(modal_app.packages("requirements.txt"))
    light = names(modal_app.packages("requirements.txt", without=modal_app.NETWORK_PACKAGES))
    assert every - light == modal_app.NETWORK_PACKAGES
    assert {"fastapi", "SQLAlchemy", "pillow"} <= light


def test_the_web_class_needs_no_networks() -> None:
    script = """
import sys
from app.main import create_app
from app.settings import Settings
import app.main.attempt_runs
create_app(Settings(database_url="postgresql+psycopg://me@127.0.0.1:1/jobs"), restores=False)
print([name for name in sys.modules if name in ("torch", "spandrel", "facexlib", "modal", "scipy", "numba")])
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert ended.stdout.strip() == "[]", ended.stdout + ended.stderr


def test_the_version_is_pinned() -> None:
    import modal

    assert f"modal=={modal.__version__}" in (ROOT / "requirements-modal.txt").read_text().splitlines()
