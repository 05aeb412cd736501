"""The model that ships with the project: there without a download, better than bicubic, and never silent."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.backends.local import LocalBackend, open_local_backend
from app.commands import dispatch, serve
from app.errors import Conflict, Unavailable
from app.evaluation.degradation import bicubic_down, bicubic_up, jpeg
from app.evaluation.metrics import luma_psnr
from app.images import Picture
from app.main import create_app
from app.options import RestoreOptions
from app.restoration.models import weights
from app.restoration.models.registry import ModelRegistry
from app.restoration.models.table import EMBEDDED_MODEL
from app.restoration.models.weights import EMBEDDED, Verdict
from app.settings import Settings
from tests.documentation import ROOT


def go_on(fraction: float, stage: str) -> bool:
    return True


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> LocalBackend:
    """A machine without network: nothing was ever downloaded."""
    return open_local_backend(tmp_path_factory.mktemp("no_weights"), device="cpu")


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    data = pytest.importorskip("skimage").data
    return np.ascontiguousarray(data.astronaut()[:256, 100:356])


def test_the_file_is_the_one_the_code_names_and_is_small() -> None:
    path = weights.SHIPPED_FOLDER / EMBEDDED.file
    assert weights.verify(path) is Verdict.VERIFIED
    assert path.stat().st_size <= 3_000_000


def test_the_file_says_how_it_was_made() -> None:
    from safetensors import safe_open

    with safe_open(weights.SHIPPED_FOLDER / EMBEDDED.file, "pt") as file:
        facts = file.metadata()
        parameters = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 - no mapping
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.float16"}  # noqa: SIM118
    assert parameters <= 1_300_000
    assert {"recipe", "data", "seed", "steps", "metrics"} <= facts.keys()


def test_with_nothing_installed_it_restores_and_says_so(backend: LocalBackend, astronaut: np.ndarray) -> None:
    small = jpeg(bicubic_down(astronaut, 4), 75)
    restored = backend.restore(Picture(small), RestoreOptions(face_enhance=False), go_on)
    assert restored.model == EMBEDDED_MODEL
    assert [notice.code for notice in restored.warnings] == ["embedded_model"]
    assert "python3 run.py models download" in restored.warnings[0].message
    bicubic = luma_psnr(astronaut, bicubic_up(small, 4), 4)
    assert luma_psnr(astronaut, restored.picture.rgb.astype(np.uint8), 4) > bicubic + 0.5


def test_asked_for_by_name_it_runs_without_a_warning(backend: LocalBackend, astronaut: np.ndarray) -> None:
    options = RestoreOptions(model=EMBEDDED_MODEL, face_enhance=False)
    restored = backend.restore(Picture(bicubic_down(astronaut, 8)), options, go_on)
    assert restored.warnings == ()
    assert restored.model == EMBEDDED_MODEL


def test_the_machine_says_that_it_runs_on_the_embedded_model(backend: LocalBackend) -> None:
    facts = backend.describe()
    assert facts["embedded_model"] is True
    assert facts["default_model"] == EMBEDDED_MODEL
    assert facts["problems"] == []
    note = next(note for note in facts["notes"] if EMBEDDED_MODEL in note)
    assert "python3 run.py models download" in note
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    assert any(note in line for line in serve.banner(settings, facts))


def test_a_better_model_is_taken_when_it_is_there(random_weights: Path) -> None:
    better = open_local_backend(random_weights, device="cpu", allow_unverified=True)
    facts = better.describe()
    assert facts["embedded_model"] is False
    assert not any(EMBEDDED_MODEL in note for note in facts["notes"])
    assert facts["default_model"] != EMBEDDED_MODEL


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / EMBEDDED.file
    shutil.copy(weights.SHIPPED_FOLDER / EMBEDDED.file, changed)
    with changed.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    monkeypatch.setattr(weights, "SHIPPED_FOLDER", tmp_path)
    registry = ModelRegistry(tmp_path, allow_unverified=False)
    with pytest.raises(Conflict, match="project's own files"):
        registry.load(registry.find(EMBEDDED_MODEL), None, "cpu", "fp32")
    with pytest.raises(Unavailable, match="models download"):
        open_local_backend(tmp_path, device="cpu").restore(
            Picture(np.zeros((8, 8, 3), np.uint8)), RestoreOptions(), go_on
        )


def test_the_service_is_ready_without_any_download(tmp_path: Path, astronaut: np.ndarray) -> None:
    """Upload to result over HTTP, on the real network, with an empty weights folder."""
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        weights_folder=tmp_path / "weights",
        upload_folder=tmp_path / "uploads",
        processed_folder=tmp_path / "results",
        database_url=f"sqlite:///{tmp_path / 'jobs.sqlite3'}",
        device="cpu",
    )
    Image.fromarray(bicubic_down(astronaut, 8)).save(tmp_path / "photo.png")
    app = create_app(settings)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert app.state.service.loaded.wait(60)
        health = client.get("/api/v1/health").json()
        assert health["status"] == "ready", health
        assert any(EMBEDDED_MODEL in note for note in health["notes"])
        assert client.get("/health/ready").status_code == 200
        config = client.get("/api/v1/config").json()
        assert config["embedded_model"] is True
        assert [row["stands_in_for"] for row in config["qualities"]] == [
            "realesr-general-x4v3",
            "RealESRGAN_x4plus",
            "RealESRGAN_x4plus",
        ]
        with (tmp_path / "photo.png").open("rb") as file:
            answer = client.post(
                "/api/v1/enhance",
                files={"file": ("photo.png", file)},
                data={"face_enhance": "false"},
                headers={"Prefer": "wait=60"},
            )
        job = answer.json()
        assert job["status"] == "completed", job
        assert job["results"][0]["model"] == EMBEDDED_MODEL
        assert [warning["code"] for warning in job["results"][0]["warnings"]] == ["embedded_model"]
        picture = client.get(job["results"][0]["url"])
        assert picture.headers["content-type"] == "image/png"


def test_a_folder_is_restored_from_the_command_line(
    tmp_path: Path, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEIGHTS_FOLDER", str(tmp_path / "none"))
    monkeypatch.setenv("DEVICE", "cpu")
    (tmp_path / "in").mkdir()
    Image.fromarray(bicubic_down(astronaut, 8)).save(tmp_path / "in" / "photo.png")
    assert dispatch.main(("restore", "in", "out"), root=tmp_path) == 0
    with Image.open(next((tmp_path / "out").iterdir()), formats=("PNG",)) as image:
        assert image.size == (128, 128)


def test_the_model_card_names_the_file_and_its_limits() -> None:
    card = (ROOT / "weights" / "README.md").read_text()
    assert EMBEDDED.file in card
    assert "does not invent texture" in card
    assert EMBEDDED.sha256 in card
