"""What can be said of the image and the compose file without a container engine."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.commands.torch_build import CPU_INDEX_URL
from app.restoration.models.weights import EMBEDDED, REPAIR_FILES
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SERVICES = ("restore", "restore-gpu")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    yaml: Any = importlib.import_module("yaml")
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return loaded


def setting_names() -> set[str]:
    return {str(field.alias or name).upper() for name, field in Settings.model_fields.items()}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_closed_small_and_can_drain(name: str, compose: dict[str, Any]) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"]
    assert service["restart"] == "unless-stopped"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    drain_seconds = Settings.model_fields["drain_seconds"].default
    assert int(service["stop_grace_period"].removesuffix("s")) > drain_seconds + 5
    # Every named folder of the service lies in a volume, or the read-only root would refuse to be written.
    mounted = {volume.split(":")[1] for volume in service["volumes"]}
    environment = service["environment"]
    written = {environment[key] for key in ("UPLOAD_FOLDER", "PROCESSED_FOLDER", "WEIGHTS_FOLDER")}
    written.add(str(Path(environment["DATABASE_URL"].removeprefix("sqlite:///")).parent))
    assert written == mounted
    assert {volume.split(":")[0] for volume in service["volumes"]} == set(compose["volumes"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_sets_only_names_that_exist_and_demands_a_key(name: str, compose: dict[str, Any]) -> None:
    environment = compose["services"][name]["environment"]
    assert set(environment) <= setting_names()
    assert environment["API_KEY"].startswith("${API_KEY:?")


def test_the_processor_is_the_default_and_the_card_a_profile(compose: dict[str, Any]) -> None:
    plain, card = (compose["services"][name] for name in SERVICES)
    assert plain["build"]["args"]["DEVICE"] == "cpu"
    assert "profiles" not in plain
    assert card["build"]["args"]["DEVICE"] == "cuda"
    assert card["profiles"] == ["gpu"]
    (device,) = card["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert "DEVICE" not in card["environment"]


def test_the_image_runs_without_rights_has_a_health_check_and_only_our_own_weights() -> None:
    final = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    assert "HEALTHCHECK" in final
    assert "/health/live" in final
    assert "ARG WITH_WEIGHTS=0" in final
    assert re.findall(r"COPY .*weights/.*", final) == ["COPY weights/nir-*.safetensors ./weights/"]
    assert all(Path(file).match("nir-*.safetensors") for file in (EMBEDDED.file, *REPAIR_FILES))
    assert 'ENTRYPOINT ["tini", "--", "python", "-m", "app.commands"]' in final
    before_user = final.split("USER 10001", 1)[0]
    assert 'WITH_WEIGHTS" = 1' not in before_user  # fetched as the user that will read them


def test_the_image_can_fetch_its_weights_while_it_is_built(tmp_path: Path) -> None:
    """With the environment of the image, which names an open address, and before anybody has set a key."""
    final = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    fetch = re.search(r'WITH_WEIGHTS" = 1 \]; then python -m (app\.commands models) download default; fi', final)
    assert fetch is not None
    set_in_image = dict(re.findall(r"^\s+([A-Z_]+)=(\S+?)(?: \\)?$", final.split("USER ")[0], re.MULTILINE))
    assert set_in_image["HOST"] == "0.0.0.0"
    environment = {"PATH": os.environ["PATH"], "HOST": set_in_image["HOST"], "WEIGHTS_FOLDER": str(tmp_path)}
    environment |= {"PYTHONPATH": str(ROOT), "OFFLINE": "true"}
    command = [sys.executable, "-m", *fetch[1].split(), "download", "default"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path)
    assert "OFFLINE is true, so nothing is downloaded" in told.stderr


def test_the_health_check_is_python_that_parses() -> None:
    found = re.search(r'CMD \["python", "-c", "(.*)"\]', DOCKERFILE)
    assert found is not None
    compile(found[1], "healthcheck", "exec")


def test_the_image_copies_what_the_program_needs_and_the_context_lets_it_in() -> None:
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        copied |= set(line.split()[:-1])
    assert {"app", "static", "requirements.txt"} <= copied
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")
    }
    assert copied == allowed
    for name in allowed - {"static"}:
        assert any(ROOT.glob(name)), name


def test_the_image_installs_what_runs_and_nothing_that_checks() -> None:
    assert "requirements-dev" not in DOCKERFILE
    installs = re.findall(r"pip install (.*?)(?: \\$| ;;|; fi|$)", DOCKERFILE, re.MULTILINE)
    by_hash = [line for line in installs if line.startswith("--no-deps --require-hashes ")]
    assert {line.rpartition(" ")[2] for line in by_hash} == {
        f"locks/{name}.txt" for name in ("torch", "requirements", "models", "cluster")
    }
    assert "--require-hashes --no-build-isolation -r locks/models.txt" in DOCKERFILE
    (torch,) = set(installs) - set(by_hash)  # torch's own index, whose builds have no hashes in our locks
    assert CPU_INDEX_URL in torch


def test_both_stages_stand_on_the_base_image_that_can_be_pinned() -> None:
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BASE_IMAGE}"] * 2
    (base,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    told = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    assert f"imagetools inspect {base} " in told
    assert f"--build-arg BASE_IMAGE={base}@" in told


def test_the_settings_of_the_image_exist_and_match_the_compose_file(compose: dict[str, Any]) -> None:
    final = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    set_in_image = dict(re.findall(r"^\s+([A-Z_]+)=(\S+?)(?: \\)?$", final, re.MULTILINE))
    shared = {name: value for name, value in set_in_image.items() if name in setting_names()}
    assert {"HOST", "PORT", "DATABASE_URL", "WEIGHTS_FOLDER"} <= set(shared)
    for name in SERVICES:
        environment = compose["services"][name]["environment"]
        assert shared == {key: environment[key] for key in shared}


def test_no_file_of_the_project_names_a_folder_of_somebodys_machine() -> None:
    own = ("Dockerfile", "docker-compose.yml", ".ci/run", "run.py", "README.md", ".env.example")
    for name in own:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(work|root|home|Users)/", text), name
