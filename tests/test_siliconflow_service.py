"""The SiliconFlow backend in the whole service: options, both lanes at once, `Prefer: wait`, kill -9, the key's way.

The provider is the stand-in on loopback; the service, its store, decoder, worker and HTTP are the real ones.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.api.catalog import Catalog
from app.backends.siliconflow import describe_siliconflow
from app.backends.siliconflow.backend import SiliconFlowBackend
from app.errors import Conflict
from app.images import Decoder
from app.logs import set_up
from app.main.service import Service as ServiceParts
from app.options import PROMPT_LIMIT_CHARACTERS, RestoreOptions
from app.settings import Settings
from app.worker import Worker
from app.worker.active_runs import Step
from tests.harness import OWNER, Harness, until
from tests.http_service import Service, assert_problem, describe, photo, running, settings_for
from tests.provider_stand_in import KEY, SIGNATURE, TRACE, Play, StandIn, Wire

ROOT = Path(__file__).resolve().parents[1]
CLOUD = {"backend": "siliconflow", "scale": "1", "output_format": "png"}


def plain_description() -> dict[str, Any]:
    """What the local backend says of itself; the rows of the backends are the service's own."""
    return {key: value for key, value in describe().items() if key != "backends"}


@pytest.fixture
def service(tmp_path: Path, provider: StandIn, decoder: Decoder) -> Iterator[Service]:
    cloud = provider.backend(decoder.decode)
    with running(tmp_path, others={"siliconflow": cloud}, describe=plain_description) as found:
        yield found


def coloured(number: int, kind: str = "PNG") -> bytes:
    """A photo in a colour of its own."""
    target = io.BytesIO()
    Image.new("RGB", (24, 16), _colour(number)).save(target, kind)
    return target.getvalue()


def _colour(number: int) -> tuple[int, int, int]:
    return (5 * number % 256, 40 + 4 * number, 250 - 6 * number)


def pixels_of(service: Service, result: dict[str, Any]) -> Any:
    data = service.client.get(result["url"]).content
    return np.asarray(Image.open(io.BytesIO(data), formats=("PNG",)).convert("RGB")).astype(int)


def test_a_photo_goes_to_the_provider_and_comes_back(service: Service, provider: StandIn) -> None:
    answer = service.client.post(
        "/api/v1/enhance", files={"file": ("cat.png", coloured(9))}, data=CLOUD, headers={"Prefer": "wait=20"}
    )
    assert answer.status_code == 200, answer.text
    (attempt,) = answer.json()["attempts"]
    result = attempt["result"]
    assert (attempt["backend"], result["backend"], result["model"]) == ("siliconflow",) * 2 + ("Qwen/Qwen-Image-Edit",)
    assert (result["width"], result["height"]) == (24, 16)
    params = result["params"]
    assert (params["provider"], params["seed"], params["inference_time_seconds"]) == ("siliconflow", 4242, 12.345)
    assert params["preprocessed"]["original_format"] == "PNG"
    assert np.abs(pixels_of(service, result) - (255 - np.array(_colour(9)))).max() <= 8
    assert len(provider.asked("api")) == 1


def test_twenty_cloud_and_twenty_local_photos_at_once_each_get_their_own_result(
    service: Service, provider: StandIn
) -> None:
    met, at_once, most = threading.Event(), [0], [0]
    lock, active_runs = threading.Lock(), service.restoring.worker.active_runs

    def paint(wire: Wire) -> None:
        """The first two photos at the provider stay until they have seen each other and a local one in work."""
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        until(lambda: met.is_set() or (at_once[0] == 2 and active_runs.at(Step.RESTORING, lane="local")), 60.0)
        met.set()
        time.sleep(0.02)
        with lock:
            at_once[0] -= 1
        provider.paint(wire)

    provider.api = paint
    service.backend.gate.clear()  # so does the local one
    batches = {}
    for backend, first in (("local", 0), ("siliconflow", 20)):
        files = [("files", (f"{first + n}.png", coloured(first + n))) for n in range(20)]
        options = {**CLOUD, "backend": backend}
        answer = service.client.post("/api/v1/enhance/batch", files=files, data=options)
        assert answer.status_code == 202, answer.text
        batches[backend] = answer.json()["batch_id"]
    assert service.client.get(f"/status/{batches['siliconflow']}").json()["queue_position"] <= 20
    assert met.wait(60.0)
    assert service.backend.calls == 1
    service.backend.gate.set()
    for backend, job_id in batches.items():
        done = service.finish(job_id, seconds=60)
        assert done["status"] == "completed"
        assert len(done["results"]) == 20
        for result in done["results"]:
            own = np.array(_colour(int(result["original_filename"].removesuffix(".png"))))
            expected = own if backend == "local" else 255 - own
            assert np.abs(pixels_of(service, result) - expected).max() <= 8, result["original_filename"]
    assert most[0] == 2
    assert len(provider.asked("api")) == len(provider.asked("store")) == 20
    assert service.backend.calls == 20


FAILURES: list[tuple[Play, int, str, str]] = [
    (
        lambda wire: wire.json(401, f"Api key {KEY} is invalid"),
        401,
        "provider_configuration",
        "Service configuration error",
    ),
    (lambda wire: wire.json(403, "Forbidden"), 401, "provider_configuration", "Service configuration error"),
    (lambda wire: wire.json(429, {"message": KEY}), 429, "provider_busy", "Service busy, please try again"),
    (
        lambda wire: wire.json(400, {"code": 1, "message": KEY}),
        400,
        "provider_rejected",
        "Image could not be processed",
    ),
    (lambda wire: wire.json(504, KEY), 504, "provider_timeout", "Service timeout, please retry"),
    (lambda wire: wire.json(503, {"message": KEY}), 503, "provider_unavailable", "Service unavailable"),
    (lambda wire: None, 503, "provider_unavailable", "Service unavailable"),
    (
        lambda wire: wire.json(400, {"code": 20012, "message": "Model does not exist."}),
        409,
        "provider_model_gone",
        "The provider no longer offers the model Qwen/Qwen-Image-Edit; the operator can name another one in "
        "SILICONFLOW_MODEL.",
    ),
]


def test_failures_stand_in_the_attempt_and_answer_who_waits_and_the_key_is_nowhere(
    service: Service, provider: StandIn, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    handler = set_up("json", [])  # blots out nothing, so that what it hides cannot hide a leak
    answers = []
    try:
        for play, status, code, message in FAILURES:
            provider.api = play
            answer = service.client.post(
                "/api/v1/enhance", files={"file": photo()}, data=CLOUD, headers={"Prefer": "wait=20"}
            )
            problem = assert_problem(answer, status, code)
            assert problem["detail"] == message
            assert ("retry-after" in answer.headers) == (code in ("provider_busy", "provider_unavailable"))
            state = service.client.get(f"/api/v1/jobs/{problem['job_id']}")
            (error,) = state.json()["errors"]
            assert (error["code"], error["message"]) == (code, message)
            answers += [answer.text, str(answer.headers), state.text]
        provider.api = provider.paint
        done = service.finish(service.submit(coloured(3), **CLOUD))
    finally:
        logging.getLogger().removeHandler(handler)
    assert done["status"] == "completed"  # the worker lives
    assert len(provider.asked("api")) == len(FAILURES) + 1
    answers += [json.dumps(done), service.client.get("/api/v1/config").text, service.client.get("/metrics").text]
    logged = caplog.text + capfd.readouterr().err
    rows = b"".join(file.read_bytes() for file in service.folder.glob("jobs.sqlite3*"))
    assert b"provider_busy" in rows
    assert TRACE in logged
    for secret in (KEY, SIGNATURE):
        assert secret not in "\n".join(answers)
        assert secret not in logged
    assert KEY.encode() not in rows
    with contextlib.closing(sqlite3.connect(service.folder / "jobs.sqlite3")) as connection:
        assert SIGNATURE not in "\n".join(connection.iterdump())  # its page may hold it until it is written again


def test_a_photo_cancelled_at_the_provider_is_cancelled_at_once_and_its_answer_dropped(
    service: Service, provider: StandIn
) -> None:
    provider.api = Wire.hang
    job = service.submit(coloured(1), **CLOUD)
    until(lambda: provider.asked("api"))
    state = service.client.get(f"/api/v1/jobs/{job}").json()
    assert (state["status"], state["attempts"][0]["stage"]) == ("processing", "provider")
    assert 0 < state["progress"] < 0.5
    assert service.client.delete(f"/api/v1/jobs/{job}").json()["status"] == "cancelled"
    assert service.finish(job)["status"] == "cancelled"
    until(lambda: service.restoring.worker.health().status == "idle")
    assert len(provider.asked("api")) == 1


def test_a_prompt_that_is_too_long_is_refused_before_anything_is_sent(service: Service, provider: StandIn) -> None:
    fields = {**CLOUD, "prompt": "p" * (PROMPT_LIMIT_CHARACTERS + 1)}
    answer = service.client.post("/api/v1/enhance", files={"file": photo()}, data=fields)
    assert_problem(answer, 422, "invalid_option")
    assert provider.heard == []
    assert service.uploads() == []


def test_the_configuration_says_what_leaves_and_what_it_costs(service: Service) -> None:
    local, cloud = service.client.get("/api/v1/config").json()["backends"]
    assert local == {"name": "local", "available": True, "reason": None, "leaves_machine": None, "price_note": None}
    assert (cloud["name"], cloud["available"], cloud["reason"]) == ("siliconflow", True, None)
    assert "api.siliconflow.com" in cloud["leaves_machine"]
    assert "charges your account" in cloud["price_note"]


def test_without_a_key_the_backend_is_listed_with_the_reason_and_asking_for_it_is_a_conflict(tmp_path: Path) -> None:
    with running(tmp_path, describe=plain_description) as service:
        cloud = service.client.get("/api/v1/config").json()["backends"][1]
        assert cloud["available"] is False
        assert "SILICONFLOW_API_KEY" in cloud["reason"]
        answer = service.client.post("/api/v1/enhance", files={"file": photo()}, data=CLOUD)
        problem = assert_problem(answer, 409, "backend_unavailable")
        assert "SILICONFLOW_API_KEY" in problem["detail"]
        assert service.uploads() == []


def test_a_missing_key_is_told_even_while_the_networks_still_load() -> None:
    rows = [describe_siliconflow(available=False, api_url="https://api.siliconflow.com/v1")]
    catalog = Catalog(dict, lambda: None, backends=rows)
    assert catalog.loading
    with pytest.raises(Conflict) as caught:
        catalog.check(RestoreOptions(backend="siliconflow"))
    assert caught.value.code == "backend_unavailable"


@pytest.mark.parametrize("key", ["", KEY])
def test_the_settings_open_the_backend_only_with_a_key(key: str, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, siliconflow_api_key=key, siliconflow_timeout=77, siliconflow_concurrency=5)
    parts = ServiceParts(settings, None, None, None, None)
    assert parts.restoring is not None
    try:
        backend = parts.restoring.backends.get("siliconflow")
        assert isinstance(backend, SiliconFlowBackend) == bool(key)
        if isinstance(backend, SiliconFlowBackend):
            assert (backend._account.timeout_seconds, backend._account.model) == (77, "Qwen/Qwen-Image-Edit")
            with backend._scratch() as scratch:
                assert scratch.suffix == ".part"  # the janitor knows such files
        names = [thread.name for thread in parts.restoring.worker._threads]
        assert [name for name in names if "siliconflow" in name] == [f"worker-siliconflow-{n}" for n in range(1, 6)]
        assert key not in repr(settings) or not key
    finally:
        parts.restoring.decoder.close()
        parts.context.pools.shutdown()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("siliconflow_api_key", "sk-two words"),
        ("siliconflow_api_key", "sk-line\nbreak"),
        ("siliconflow_api_key", "sk-ünicode"),
        ("siliconflow_api_url", "http://api.siliconflow.com/v1/images/generations"),
        ("siliconflow_api_url", "http://192.168.1.7/v1"),
        ("siliconflow_api_url", "https://user:secret@api.siliconflow.com/v1"),
        ("siliconflow_api_url", "api.siliconflow.com"),
        ("siliconflow_api_url", "https://api.siliconflow.com:port/v1"),
        ("siliconflow_api_url", "https://äpi.siliconflow.com/v1"),
        ("siliconflow_api_url", "https:///v1"),
        ("siliconflow_result_hosts", "*"),
        ("siliconflow_result_hosts", "*.com/x"),
        ("siliconflow_result_hosts", "10.0.0.1"),
        ("siliconflow_concurrency", 0),
        ("siliconflow_concurrency", 17),
        ("siliconflow_timeout", 0),
    ],
)
def test_settings_that_would_be_unsafe_are_refused(name: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=name.upper() if "url" in name or "hosts" in name else name) as caught:
        settings_for(tmp_path, **{name: value})
    if name == "siliconflow_api_key":
        assert "sk-" not in str(caught.value)


def test_hosts_and_addresses_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SILICONFLOW_RESULT_HOSTS", " S3.Example.com , *.cdn.example.org")
    monkeypatch.setenv("SILICONFLOW_API_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("SILICONFLOW_API_KEY", f" {KEY} ")
    settings = Settings()
    assert settings.siliconflow_result_hosts == ("s3.example.com", "*.cdn.example.org")
    assert settings.siliconflow_api_key.get_secret_value() == KEY


# --- kill -9 ----------------------------------------------------------------------------------------------------------

KILLED = """
import sys, threading
from pathlib import Path
from app.images import Decoder, ImageLimits
from app.backends.siliconflow.backend import open_siliconflow_backend
from app.worker import Worker
from tests.harness import OWNER, Harness, photo_bytes

harness = Harness(Path(sys.argv[1]))
harness.open()
cloud = open_siliconflow_backend(
    api_key="sk-x", api_url=sys.argv[2], model="m", timeout_seconds=60, result_hosts=("s3.siliconflow.cn",),
    decode=harness.decoder.decode,
)
harness.backends["siliconflow"] = cloud
photo = harness.upload(photo_bytes())
harness.store.add_job(OWNER, [photo], "{}", "siliconflow", 9, 1.0)
worker = Worker(
    harness.runner, harness.store, harness.metrics, harness.queue, waiting={"siliconflow": 1}, rescan_seconds=0.05
)
worker.start()
threading.Event().wait(60)
"""


def test_a_process_killed_while_a_photo_is_at_the_provider_does_not_pay_twice(
    tmp_path: Path, provider: StandIn, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.api = Wire.hang
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), provider.api_url],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        until(lambda: provider.asked("api"), 30.0)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10.0)
    provider.api = provider.paint
    harness = Harness(tmp_path, None, decoder)
    try:
        assert harness.open() == []
        harness.backends["siliconflow"] = provider.backend(decoder.decode)
        worker = Worker(
            harness.runner,
            harness.store,
            harness.metrics,
            harness.queue,
            waiting={"siliconflow": 1},
            rescan_seconds=0.02,
        )
        rescans: list[str | None] = []
        queued_ids = harness.store.queued_ids

        def counted(*places: Any, **which: Any) -> list[str]:
            found = queued_ids(*places, **which)
            rescans.append(which["only"])
            return found

        monkeypatch.setattr(harness.store, "queued_ids", counted)
        worker.start()
        until(lambda: rescans.count("siliconflow") > 1 and rescans.count(None) > 1)  # after the first, it would be sent
        worker.stop()
        (job,) = harness.store.jobs(OWNER, 9)
        (attempt,) = job.attempts
    finally:
        harness.store.close()
    assert (attempt.status.value, attempt.error_code) == ("failed", "interrupted")
    assert len(provider.asked("api")) == 1


# --- the real provider ------------------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.skipif(
    not os.environ.get("SILICONFLOW_API_KEY"), reason="no SILICONFLOW_API_KEY is set; this test would cost money"
)
def test_the_real_provider_restores_a_photo(tmp_path: Path, decoder: Decoder) -> None:
    settings = settings_for(tmp_path)
    parts = ServiceParts(settings, None, None, None, None)
    assert parts.restoring is not None
    try:
        backend = parts.restoring.backends["siliconflow"]
        noise = np.random.default_rng(1).normal(0, 12, (384, 512, 3))
        ramp = np.linspace(40, 210, 512)[None, :, None] + noise
        target = tmp_path / "old.jpg"
        Image.fromarray(np.clip(ramp, 0, 255).astype(np.uint8)).save(target, quality=60)
        picture = decoder.decode(target)
        stages: list[str] = []

        def listen(fraction: float, stage: str) -> bool:
            stages.append(stage)
            return True

        restored = backend.restore(picture, RestoreOptions(scale=2, seed=7), listen)
    finally:
        parts.restoring.decoder.close()
        parts.context.pools.shutdown()
    assert (restored.picture.width, restored.picture.height) == (1024, 768)
    assert restored.params["provider"] == "siliconflow"
    assert stages.count("sending") == 1
    assert restored.picture.rgb.std() > 5
