"""Health, resources, options, metrics and the dashboard's pages."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app import logs
from app.api import schemas
from app.commands.serve import banner
from app.errors import DeviceLost, Unavailable
from app.main import create_app, create_dashboard, local_backend
from app.main import restoring as restoring_module
from app.options import CARD_FAILED, FIELDS
from app.settings import Settings
from tests.harness import until
from tests.http_service import BASE_URL, KEY, Service, assert_problem, describe, photo, running, settings_for


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("system")) as found:
        yield found


def word(service: Service) -> str:
    health = service.client.get("/api/v1/health").json()
    schemas.HealthShape.model_validate(health)
    ready = service.client.get("/health/ready")
    assert ready.json() == health
    assert (ready.status_code == 200) == (health["status"] in ("ready", "busy", "degraded"))
    assert bool(health["reasons"]) == (health["status"] not in ("ready", "busy"))
    assert [cause["message"] for cause in health["causes"]] == health["reasons"]
    return str(health["status"])


def test_health_is_a_word_that_follows_the_work(service: Service) -> None:
    assert word(service) == "ready"
    service.backend.gate.clear()
    job_id = service.submit()
    service.wait_for(job_id, "processing")
    assert word(service) == "busy"
    service.backend.gate.set()
    service.finish(job_id)


def test_health_is_degraded_by_a_problem_and_failing_without_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = describe()
    with running(tmp_path, describe=lambda: table) as service:
        table["problems"] = ["RealESRGAN_x4plus is not installed."]
        service.context.catalog._looked_at -= 60
        assert word(service) == "degraded"
        monkeypatch.setattr(service.context.storage, "free_disk_ok", lambda: False)
        assert word(service) == "failing"


def test_health_is_failing_when_the_store_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path) as service:

        def busy() -> None:
            raise Unavailable("database_busy", "The database is busy.")

        monkeypatch.setattr(service.context.store, "counts", busy)
        assert word(service) == "failing"
        assert service.client.get("/health/live").json() == {"status": "alive"}


def test_the_service_answers_while_it_still_loads_and_takes_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = threading.Event()
    monkeypatch.setattr("app.main.restoring.Restoring._open_local", lambda self: loading.wait(20) and None)
    app = create_app(settings_for(tmp_path), describe=describe)
    with TestClient(app, base_url=BASE_URL) as client:
        assert client.get("/health/live").status_code == 200
        assert client.get("/api/v1/health").json()["status"] == "starting"
        assert client.get("/health/ready").status_code == 503
        assert_problem(client.post("/api/v1/models/warmup"), 503, "starting")
        assert client.get("/api/v1/config").json()["models"] == []
        job = client.post("/enhance", files={"file": photo()}).json()
        assert client.get(f"/status/{job['job_id']}").json()["status"] == "queued"
        loading.set()
        assert app.state.service.loaded.wait(10)


def test_a_backend_that_cannot_be_opened_is_told_in_health(tmp_path: Path) -> None:
    """A device that is not there: the real local backend says so."""
    app = create_app(settings_for(tmp_path, device="cuda:97"))
    with TestClient(app, base_url=BASE_URL) as client:
        assert app.state.service.loaded.wait(60)
        health = client.get("/api/v1/health").json()
        assert health["status"] == "failing"
        assert_problem(client.post("/enhance", files={"file": photo()}), 503, "backend_failed")
        assert app.state.service.load_error is not None


def test_a_backend_that_fails_to_open_is_told_in_health_and_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a driver raises: the service answers, says so, tries again, and then restores what waited."""
    opened, may_open = local_backend.open_backend, threading.Event()

    def open_backend(settings: Settings) -> Any:
        if not may_open.is_set():
            raise OSError("libcudart.so.13: cannot open shared object file")
        return opened(settings)

    monkeypatch.setattr(restoring_module, "open_backend", open_backend)
    monkeypatch.setattr(restoring_module, "OPEN_AGAIN_SECONDS", 0.05)
    app = create_app(settings_for(tmp_path, device="cpu"))
    with TestClient(app, base_url=BASE_URL) as client:
        assert app.state.service.loaded.wait(60)
        health = client.get("/api/v1/health").json()
        assert (health["status"], app.state.service.load_error) == ("failing", None)
        assert "tried again" in " ".join(health["reasons"])
        may_open.set()
        until(lambda: client.get("/api/v1/health").json()["status"] in ("ready", "degraded"), 60)
        done = client.post("/api/v1/enhance", files={"file": photo()}, headers={"Prefer": "wait=60"})
        assert done.status_code == 200


def test_a_card_that_failed_twice_is_told_in_health_config_and_the_start_text(tmp_path: Path) -> None:
    """What the supervisor's words lead to: the CPU restores, whatever DEVICE says."""
    settings = settings_for(tmp_path).model_copy(update={"device": CARD_FAILED})
    app = create_app(settings)
    with TestClient(app, base_url=BASE_URL) as client:
        assert app.state.service.loaded.wait(60)
        health, config = client.get("/api/v1/health").json(), client.get("/api/v1/config").json()
        assert health["status"] == "degraded"
        assert any("lost its card twice" in reason for reason in health["reasons"])
        assert "cpu_instead" in [cause["code"] for cause in health["causes"]]
        assert any("lost its card twice" in problem for problem in config["problems"])
        assert client.get("/api/v1/status").json()["device"]["name"] == "cpu"
        start = "\n".join(banner(settings, app.state.service.context.catalog.description()))
        assert "Device      cpu (the service lost its card twice" in start


def test_status_tells_queue_speed_device_and_resources(service: Service) -> None:
    service.finish(service.submit())
    found = service.client.get("/api/v1/status").json()
    assert found["queue"]["completed"] >= 1
    assert found["queue"]["limit"] == 100
    assert found["seconds_per_megapixel"] > 0
    assert found["device"] == {"name": "cpu", "reason": "tests need no other"}
    assert found["resources"]["memory_available_bytes"] > 0
    assert found["uptime_seconds"] > 0


def test_config_names_every_option_with_its_bounds(service: Service) -> None:
    found = service.client.get("/api/v1/config").json()
    assert set(found["options"]) == set(FIELDS)
    assert found["options"]["scale"] == {
        "type": "float",
        "help": FIELDS["scale"].help,
        "minimum": 1.0,
        "maximum": 8.0,
        "choices": None,
        "default": 4.0,
    }
    assert {"JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF"} <= set(found["formats"])
    assert found["result_formats"]["webp"] == {"max_side_pixels": 16_383, "max_pixels": None}
    assert {"auto", *found["result_formats"]} == set(found["options"]["output_format"]["choices"])
    assert found["limits"]["max_file_bytes"] == 100 * 1024 * 1024
    assert [row["licence"] for row in found["models"]] == ["MIT", "MIT"]
    assert found["backends"][1]["available"] is False
    assert found["key_required"] is False


def test_warm_up_runs_the_default_model_and_says_how_long_it_took(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter((100.0, 102.5))
    monkeypatch.setattr(service.context, "clock", lambda: next(times))
    assert service.client.post("/api/v1/models/warmup").json() == {"model": "lanczos", "seconds": 2.5}


def test_a_card_lost_at_a_warm_up_ends_the_process(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def lose() -> None:
        raise DeviceLost("cuda:0 is lost")

    monkeypatch.setattr(service.context.catalog, "warm_up", lose)
    monkeypatch.setattr(service.context, "end_without_card", ended.set)
    assert_problem(service.client.post("/api/v1/models/warmup"), 503, "device_lost")
    assert ended.wait(10)


def test_metrics_are_in_the_prometheus_format(service: Service) -> None:
    answer = service.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "restore_queued_attempts" in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("PUT", "/enhance", 405, "method_not_allowed"),
        ("GET", "/enhance", 405, "method_not_allowed"),
        ("POST", "/health/live", 405, "method_not_allowed"),
        ("PATCH", "/api/v1/jobs", 405, "method_not_allowed"),
    ],
)
def test_wrong_addresses_and_methods_are_problems_too(
    service: Service, method: str, path: str, status: int, code: str
) -> None:
    answer = service.client.request(method, path)
    assert_problem(answer, status, code)
    if status == 405:
        assert answer.headers["allow"]


def test_without_a_key_signing_in_needs_nothing(service: Service) -> None:
    assert service.client.post("/api/v1/session").json() == {"signed_in": True, "key_required": False}


# The dashboard's port.


@pytest.fixture(scope="module")
def pages(service: Service) -> TestClient:
    return TestClient(create_dashboard(service.app), base_url=BASE_URL)


def test_the_dashboard_serves_its_page_with_a_strict_policy(pages: TestClient) -> None:
    answer = pages.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    for name, kind in (("js/main.js", "javascript"), ("style/base.css", "css")):
        assert kind in pages.get(f"/{name}").headers["content-type"]


def test_the_dashboard_answers_the_api_on_the_same_origin(pages: TestClient, service: Service) -> None:
    assert pages.get("/health/live").json() == {"status": "alive"}
    job_id = pages.post("/enhance", files={"files": photo()}, headers={"origin": BASE_URL}).json()["job_id"]
    url = service.finish(job_id)["results"][0]["url"]
    assert pages.get(url).headers["content-type"] == "image/png"
    assert pages.get("/metrics").status_code == 200


@pytest.mark.parametrize(
    "path", ["/nothing.js", "/../app/main/__init__.py", "/%2e%2e/pyproject.toml", "/..%2fREADME.md"]
)
def test_the_dashboard_serves_only_its_folder(pages: TestClient, path: str) -> None:
    answer = pages.get(path)
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"
    assert pages.post("/js/main.js").json()["code"] == "method_not_allowed"


# Logs.


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_key_is_ever_in_a_log_line(log_format: str) -> None:
    formatter = logs.RedactingFormatter(log_format, [KEY, ""])
    said: list[Any] = [
        f"got {KEY}",
        "header X-API-Key: abcdef123456 sent",
        "{'x-api-key': 'abcdef123456'}",
        "authorization=Bearer_abcdef123456",
        "Cookie: restore_session=abcdef123456",
    ]
    for text in said:
        try:
            raise ValueError(f"inside {KEY}")
        except ValueError as error:
            record = logging.LogRecord("a", logging.INFO, "f", 1, text, None, (type(error), error, error.__traceback__))
        line = formatter.format(record)
        assert KEY not in line
        assert "abcdef123456" not in line
        assert logs.REDACTED in line


def test_logging_is_set_up_once_and_quiets_what_strangers_can_flood(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logs.set_up("json", [KEY])
    try:
        logging.getLogger("anything").warning("the key is %s", KEY)
        logging.getLogger("python_multipart").warning("bad header")
    finally:
        logging.getLogger().removeHandler(handler)
    said = capsys.readouterr().err
    assert '"level": "warning"' in said
    assert KEY not in said
    assert "bad header" not in said


def test_a_damaged_default_model_neither_stops_the_service_nor_a_photo(tmp_path: Path) -> None:
    """Bytes under an official name, trusted by setting: another model restores, and health says why."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "realesr-general-x4v3.pth").write_bytes(b"no weights at all")
    app = create_app(settings_for(tmp_path, allow_unverified_weights=True))
    with TestClient(app, base_url=BASE_URL) as client:
        assert app.state.service.loaded.wait(60)
        assert app.state.service.load_error is None
        answer = client.post("/api/v1/enhance", files={"file": photo()}, headers={"Prefer": "wait=30"})
        assert answer.status_code == 200
        assert answer.json()["results"][0]["model"] == "nir-embedded-x4"
        health = client.get("/api/v1/health").json()
        assert health["status"] == "degraded"
        assert any("realesr-general-x4v3.pth is no ESRGAN" in reason for reason in health["reasons"])
