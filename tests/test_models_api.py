"""The routes of models: real downloads from a loopback mirror, who may, licences, what is seen without a restart."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from app.main import create_app
from app.restoration.models import weights
from app.restoration.models.weights import WeightFile
from benchmarks.random_weights import random_state
from tests.harness import until
from tests.http_service import BASE_URL, KEY, OTHER_KEY, Service, assert_problem, describe, running, settings_for
from tests.weights_mirror import WeightsMirror, let_official, serving_weights

BODY = bytes(range(256)) * 4096  # 1 MiB
FREE, RESTRICTED = "RealESRGAN_x2plus.pth", "GFPGANv1.3.pth"
FREE_DOWNLOAD, RESTRICTED_DOWNLOAD = ("/api/v1/models/RealESRGAN_x2plus/download", "/api/v1/models/GFPGANv1.3/download")


def holding(monkeypatch: pytest.MonkeyPatch, contents: dict[str, bytes]) -> None:
    """Let the manifest mean these bytes under these names."""
    rows = [row for row in weights.MANIFEST if row.file in contents]
    let_official(monkeypatch, *(_holding(row, contents[row.file]) for row in rows))


def _holding(row: WeightFile, content: bytes) -> WeightFile:
    return dataclasses.replace(row, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightsMirror]:
    """A mirror of small files under official names, which waits halfway until its gate is opened."""
    contents = dict.fromkeys((FREE, *weights.FACES), BODY)
    holding(monkeypatch, contents)
    with serving_weights(contents) as found:
        yield found


def described() -> dict[str, Any]:
    """What main says of a machine without these models."""
    row = {"name": "RealESRGAN_x2plus", "file": FREE, "bytes": len(BODY), "licence": "BSD-3-Clause", "installed": False}
    return {**describe(), "models": [*describe()["models"], {**row, "sets": [], "commercial_use": True}]}


@pytest.fixture
def service(mirror: WeightsMirror, tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path, describe=described, weights_base_url=f"{mirror.address}/slow") as started:
        yield started


def row_of(service: Service, file: str = FREE) -> dict[str, Any]:
    rows = {row["file"]: row for row in service.client.get("/api/v1/models").json()["models"]}
    found: dict[str, Any] = rows[file]
    return found


def test_a_model_is_installed_while_the_page_follows(service: Service, mirror: WeightsMirror) -> None:
    assert row_of(service)["can_install"] is True
    answer = service.client.post(FREE_DOWNLOAD)
    assert (answer.status_code, answer.headers["location"]) == (202, "/api/v1/models")
    assert answer.json()["downloads"][0]["state"] == "waiting"
    until(lambda: row_of(service)["download"]["bytes"] >= len(BODY) // 2)
    assert (row_of(service)["download"]["state"], row_of(service)["download"]["of"]) == ("running", len(BODY))
    assert service.client.post(FREE_DOWNLOAD).json()["downloads"][0]["state"] == "running"  # joined
    mirror.gate.set()
    until(lambda: row_of(service)["download"]["state"] == "completed")
    assert (service.folder / "weights" / FREE).read_bytes() == BODY
    assert len(mirror.ranges) == 1


def test_a_cancelled_download_goes_on_where_it_stopped(service: Service, mirror: WeightsMirror) -> None:
    assert_problem(service.client.delete(FREE_DOWNLOAD), 404, "download_not_running")
    service.client.post(FREE_DOWNLOAD)
    until(lambda: row_of(service)["partial_bytes"] >= len(BODY) // 2)
    assert service.client.delete(FREE_DOWNLOAD).json()["downloads"][0]["state"] == "cancelled"
    assert not (service.folder / "weights" / FREE).exists()
    mirror.gate.set()
    until(lambda: service.client.post(FREE_DOWNLOAD).json()["downloads"][0]["state"] == "completed")
    assert mirror.ranges[0] is None
    assert all(str(asked).startswith("bytes=") for asked in mirror.ranges[1:])


def test_a_licence_that_restricts_commercial_use_is_accepted_first(service: Service, mirror: WeightsMirror) -> None:
    problem = assert_problem(service.client.post(RESTRICTED_DOWNLOAD), 409, "licence_not_accepted")
    assert "NVIDIA, non-commercial" in problem["detail"]
    assert_problem(
        service.client.post(RESTRICTED_DOWNLOAD, json={"accept_licence": False}), 409, "licence_not_accepted"
    )
    for body in ({"accept_licence": "yes"}, {"accept": True}):
        assert_problem(service.client.post(RESTRICTED_DOWNLOAD, json=body), 422, "invalid_option")
    assert mirror.ranges == []
    mirror.gate.set()
    answer = service.client.post("/api/v1/models/faces/download", json={"accept_licence": True})
    assert [row["file"] for row in answer.json()["downloads"]] == list(weights.FACES)
    folder = service.folder / "weights"
    until(lambda: all((folder / file).exists() for file in weights.FACES))


def test_an_unknown_name_is_refused(service: Service) -> None:
    for name in ("nothing", "nir-embedded-x4", "..%2Fetc"):
        answer = service.client.post(f"/api/v1/models/{name}/download")
        assert answer.status_code in (404, 422), answer.text
    assert_problem(service.client.post("/api/v1/models/nothing/download"), 404, "model_not_found")


@pytest.mark.parametrize("setting", ["offline", "allow_model_downloads"])
def test_a_service_that_downloads_nothing_says_why(setting: str, mirror: WeightsMirror, tmp_path: Path) -> None:
    changes: dict[str, Any] = {setting: setting == "offline"}
    with running(tmp_path, weights_base_url=mirror.address, **changes) as service:
        problem = assert_problem(service.client.post(FREE_DOWNLOAD), 403, "downloads_off")
        assert setting.upper() in problem["detail"]
        told = service.client.get("/api/v1/models").json()["downloads"]
        assert (told["allowed"], told["reason"]) == (False, problem["detail"])
        assert told["way"] == ("by_hand" if setting == "offline" else "command")
    assert mirror.ranges == []


def test_only_an_operator_installs(mirror: WeightsMirror, tmp_path: Path) -> None:
    keys = f"ann:user:{KEY},ops:admin:{OTHER_KEY}"
    with running(tmp_path, key=keys, describe=described, weights_base_url=f"{mirror.address}/good") as service:
        for method in ("POST", "DELETE"):
            assert_problem(service.client.request(method, FREE_DOWNLOAD), 403, "admin_required")
        told = service.client.get("/api/v1/models").json()["downloads"]
        assert (told["allowed"], told["way"], told["command"]) == (False, "ask", None)
        assert "run.py" not in told["reason"]
        assert mirror.ranges == []
        operator = {"X-API-KEY": OTHER_KEY}
        assert service.client.get("/api/v1/models", headers=operator).json()["downloads"]["allowed"] is True
        assert service.client.post(FREE_DOWNLOAD, headers=operator).status_code == 202
        until(lambda: (service.folder / "weights" / FREE).exists())


def test_another_page_cannot_install_here(service: Service, mirror: WeightsMirror) -> None:
    answer = service.client.post(FREE_DOWNLOAD, headers={"Origin": "https://elsewhere.example"})
    assert_problem(answer, 403, "foreign_origin")
    assert mirror.ranges == []


def test_a_server_without_models_says_where_they_are(tmp_path: Path) -> None:
    app = create_app(settings_for(tmp_path), restores=False)
    with TestClient(app, base_url=BASE_URL) as client:
        assert_problem(client.post(FREE_DOWNLOAD), 409, "models_elsewhere")
        told = client.get("/api/v1/models").json()
    assert told["models"] == []
    assert "workers" in told["downloads"]["reason"]
    assert (told["downloads"]["way"], told["downloads"]["command"]) == ("command", "python3 run.py models download")


def weight_bytes(name: str, seed: int) -> bytes:
    """A weight file with the shape of a model and random values."""
    target = io.BytesIO()
    torch.save({"params": random_state(name, seed)}, target)
    return target.getvalue()


def estimated(client: TestClient) -> float | None:
    """Seconds for a photo with the user's own model."""
    found: float | None = client.get("/api/v1/estimate?size=900x900&model=my-own").json()["seconds"]
    return found


def test_what_comes_and_goes_in_the_folder_is_seen_without_a_restart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By hand and by download: in the list, in estimates, in health, and as the default model."""
    official, own = "realesr-general-x4v3.pth", tmp_path / "weights" / "my-own.pth"
    contents = {official: weight_bytes("realesr-general-x4v3", 1)}
    holding(monkeypatch, contents)
    with serving_weights(contents) as mirror:
        settings = settings_for(tmp_path, weights_base_url=f"{mirror.address}/good", device="cpu", precision="fp32")
        app = create_app(settings)
        with TestClient(app, base_url=BASE_URL) as client:
            assert app.state.service.loaded.wait(60)

            def config() -> dict[str, Any]:
                found: dict[str, Any] = client.get("/api/v1/config").json()
                return found

            def installed() -> set[str]:
                return {row["name"] for row in config()["models"] if row["installed"]}

            before = config()
            assert before["default_model"] == "nir-embedded-x4"
            assert client.get("/api/v1/health").json()["notes"]
            assert estimated(client) is None
            own.parent.mkdir(exist_ok=True)
            own.write_bytes(weight_bytes("realesr-animevideov3", 2))
            until(lambda: "my-own" in installed())
            assert config()["models_revision"] != before["models_revision"]
            until(lambda: estimated(client))
            own.unlink()
            until(lambda: "my-own" not in installed())
            assert client.post("/api/v1/models/realesr-general-x4v3/download").status_code == 202
            until(lambda: config()["default_model"] == "realesr-general-x4v3")
            until(lambda: client.get("/api/v1/models").json()["models"][3]["used_for"] != [])
            said = " ".join([*client.get("/api/v1/health").json()["notes"], *config()["problems"]])
            assert "small model" not in said
            own.with_name(official).unlink()
            until(lambda: config()["default_model"] == "nir-embedded-x4")
            own.with_name(official).write_bytes(b"cut short")
            until(lambda: any("is not whole" in reason for reason in client.get("/api/v1/health").json()["reasons"]))
