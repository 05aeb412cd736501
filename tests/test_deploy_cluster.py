"""What can be said of the files for several machines without a container engine: compose, secrets, units, the page."""

from __future__ import annotations

import configparser
import contextlib
import http.server
import importlib
import io
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import threading
import urllib.error
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.commands.dispatch import make_parser
from app.metrics import Metrics
from app.settings import Settings
from tests.http_service import KEY

ROOT = Path(__file__).resolve().parents[1]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
ONE_SHOT = {"bucket"}
DATA = {"postgres", "redis", "s3"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    yaml: Any = importlib.import_module("yaml")
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.cluster.yml").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `deploy/make-secrets` fills."""
    folder = tmp_path_factory.mktemp("deploy")
    shutil.copy(ROOT / "deploy" / "make-secrets", folder)
    subprocess.run([folder / "make-secrets"], check=True, capture_output=True, timeout=60)
    return folder / "secrets"


def is_command(word: str) -> bool:
    """Whether the command line has this command: its own help ends well."""
    out, err = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with out, err, pytest.raises(SystemExit) as ended:
        make_parser().parse_args([word, "--help"])
    return ended.value.code == 0


def setting_names() -> set[str]:
    return {str(field.alias or name).upper() for name, field in Settings.model_fields.items()}


def test_the_check_of_commands_sees_one_that_is_not_there() -> None:
    assert is_command("serve")
    with pytest.raises(AssertionError):
        assert is_command("sreve")


def test_every_container_is_closed_limited_and_watched(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"nginx", "api-1", "api-2", "worker", "worker-gpu", *DATA, *ONE_SHOT}
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["cpus"], name
        assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped"), name
        assert ("healthcheck" in service) is (name not in ONE_SHOT), name
        image = service.get("image")
        assert image is None or re.search(r":\d+[\w.-]*$", image), f"{name} has no fixed version"
    public = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert public == {"nginx": ["127.0.0.1:8080:8080"]}


def test_no_container_starts_as_root_whose_rights_it_has_not(compose: dict[str, Any]) -> None:
    """Images that start as root change their user at once, which takes rights that are dropped here."""
    final = (ROOT / "Dockerfile").read_text(encoding="utf-8").rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER [1-9]", final, re.M)
    for name, service in compose["services"].items():
        user = str(service.get("user", "root")).split(":")[0]
        assert "build" in service or user not in ("root", "0") or service.get("cap_add"), name


def test_the_page_of_kubernetes_moves_the_folders_of_the_image_off_the_read_only_root() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    folders = dict(re.findall(r"^\s+(\w+_FOLDER)=(\S+)", dockerfile, re.M))
    assert set(folders) == {"UPLOAD_FOLDER", "PROCESSED_FOLDER", "WEIGHTS_FOLDER"}
    told = folders | dict(re.findall(r"`(\w+_FOLDER)=([^`]+)`", page))
    assert "What is written lies in `/tmp` and `/weights`" in page
    assert all(folder.split("/")[1] in ("tmp", "weights") for folder in told.values())


def test_everything_starts_after_what_it_needs(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for needed, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
            assert how["condition"] == wanted, (name, needed)
    servers = ("api-1", "api-2", "worker", "worker-gpu")
    assert all(set(compose["services"][name]["depends_on"]) == {"postgres", "redis", "bucket"} for name in servers)
    assert set(compose["services"]["nginx"]["depends_on"]) == {"api-1", "api-2"}
    assert set(compose["services"]["bucket"]["depends_on"]) == {"s3"}


def test_only_nginx_and_the_workers_reach_out_and_data_lies_in_volumes(compose: dict[str, Any]) -> None:
    assert compose["networks"]["back"] == {"internal": True}
    assert all(compose["services"][name]["networks"] == ["back"] for name in (*DATA, *ONE_SHOT))
    assert compose["services"]["nginx"]["networks"] == ["front"]
    subnet = compose["networks"]["front"]["ipam"]["config"][0]["subnet"]
    assert compose["services"]["api-1"]["environment"]["FORWARDED_ALLOW_IPS"] == subnet
    volumes = [
        volume.split(":")[0] for service in compose["services"].values() for volume in service.get("volumes", ())
    ]
    assert {volume for volume in volumes if volume[0] not in "./"} == set(compose["volumes"])
    assert all(compose["services"][name]["volumes"] for name in DATA)


def test_photos_on_their_way_lie_on_the_disk_and_not_in_the_memory_of_a_container(compose: dict[str, Any]) -> None:
    final = (ROOT / "Dockerfile").read_text(encoding="utf-8").rsplit("\nFROM ", 1)[1]
    assert "chown -R restore:restore /data" in final  # what a new volume takes its owner from
    for name in ("api-1", "api-2", "worker", "worker-gpu"):
        service = compose["services"][name]
        for folder in ("UPLOAD_FOLDER", "PROCESSED_FOLDER"):
            assert service["environment"][folder].startswith("/data/"), name
        assert "/data" in service["volumes"], name  # nameless, so each container has its own
        (size,) = [re.search(r"size=(\d+)m", place) for place in service["tmpfs"]]
        assert size is not None, name
        assert int(size[1]) <= 256, name


def test_the_card_is_a_profile_and_each_worker_has_one(compose: dict[str, Any]) -> None:
    profiled = {name: service["profiles"] for name, service in compose["services"].items() if "profiles" in service}
    assert profiled == {"worker-gpu": ["gpu"]}
    card = compose["services"]["worker-gpu"]
    assert card["build"]["args"] == {"DEVICE": "cuda", "WITH_CLUSTER": "1"}
    (device,) = card["deploy"]["resources"]["reservations"]["devices"]
    assert len(device["device_ids"]) == 1


def test_only_names_that_exist_are_set_and_run(compose: dict[str, Any]) -> None:
    ours = [service for service in compose["services"].values() if "build" in service]
    assert len(ours) == 5
    for service in ours:
        named = {name for name in service["environment"] if not name.startswith("AWS_")}
        assert named <= setting_names()
        secrets = {name.upper() for name in service["secrets"]} - {"S3_CREDENTIALS"}
        assert secrets <= setting_names()
        (word,) = service["command"]
        assert "entrypoint" in service or is_command(word)
        drain_seconds = Settings.model_fields["drain_seconds"].default
        grace = service.get("stop_grace_period")
        assert grace is None or int(grace.removesuffix("s")) > drain_seconds + 5
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG WITH_CLUSTER=0$", dockerfile, re.M)
    assert "locks/cluster.txt; fi" in dockerfile
    compile(compose["services"]["bucket"]["command"][0], "bucket", "exec")


def asked_by(code: str, text: str, folder: Path, status: int = 200) -> tuple[str, str | None]:
    """The address and the key that a health check asks with where the secret holds this text; raises as it does."""
    (folder / "api_key").write_text(text, encoding="utf-8")
    asked: list[tuple[str, str | None]] = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["X-API-KEY"]))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        here = code.replace("/run/secrets/api_key", str(folder / "api_key"))
        here = here.replace("127.0.0.1:8001", f"127.0.0.1:{server.server_address[1]}")
        try:
            exec(compile(here, "health", "exec"), {})
        finally:
            server.shutdown()
            serving.join()
    return asked[0]


@pytest.mark.parametrize("more", ["", f",ops:admin:{KEY[::-1]}", "\n"])
@pytest.mark.parametrize("entry", [KEY, f"kay:{KEY}", f"kay:user:{KEY}", f" kay:admin:{KEY} ", f",,{KEY}"])
def test_an_api_server_is_asked_with_a_key_that_it_takes(
    entry: str, more: str, compose: dict[str, Any], tmp_path: Path
) -> None:
    code = compose["services"]["api-1"]["healthcheck"]["test"][3]
    assert asked_by(code, entry + more, tmp_path) == ("/health/ready", KEY)
    assert KEY in [taken.key for taken in Settings.model_validate({"API_KEY": entry + more}).keys]


def test_an_api_server_without_keys_is_asked_whether_it_lives(compose: dict[str, Any], tmp_path: Path) -> None:
    code = compose["services"]["api-1"]["healthcheck"]["test"][3]
    assert asked_by(code, "\n", tmp_path) == ("/health/live", "")
    with pytest.raises(urllib.error.HTTPError):
        asked_by(code, KEY, tmp_path, status=503)


def test_the_servers_are_those_of_nginx(compose: dict[str, Any]) -> None:
    text = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    servers = re.findall(r"^\s+server ([\w-]+):(\d+) ", text, re.M)
    api = compose["services"]["api-1"]["environment"]
    ports = (api["PORT"], api["DASHBOARD_PORT"])
    assert servers == [(name, port) for port in ports for name in ("api-1", "api-2")]
    assert "listen 8080 " in text


def test_no_secret_stands_in_the_file_and_all_of_them_are_made(compose: dict[str, Any], secrets: Path) -> None:
    used = {name for service in compose["services"].values() for name in service.get("secrets", ())}
    assert used == set(compose["secrets"])
    files = {name: Path(row["file"]) for name, row in compose["secrets"].items()}
    assert all(file == Path("deploy/secrets") / name for name, file in files.items())
    assert used <= {path.name for path in secrets.iterdir()}
    text = (ROOT / "docker-compose.cluster.yml").read_text(encoding="utf-8")
    assert not re.search(r"(?i)(password|secret|key)\w*\s*[:=]\s*[\"']?[0-9a-zA-Z]{12,}", text)
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8")


def test_the_secrets_fit_each_other_and_are_what_their_readers_take(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(name: str) -> str:
        return (secrets / name).read_text(encoding="utf-8")

    monkeypatch.setattr("app.settings.SECRETS_FOLDER", secrets)
    monkeypatch.chdir(tmp_path)
    for name in ("API_KEY", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    settings = Settings(host="0.0.0.0")
    assert [key.get_secret_value() for key in settings.api_keys] == [read("api_key")]
    database, broker = urlsplit(settings.database_url), urlsplit(read("broker_url"))
    assert (database.scheme, database.username, database.hostname) == ("postgresql+psycopg", "restore", "postgres")
    assert database.password == read("postgres_password")
    assert (broker.scheme, broker.hostname, broker.password) == ("redis", "redis", read("redis_password"))
    redis = dict(line.split(" ", 1) for line in read("redis_conf").splitlines())
    assert redis["requirepass"] == read("redis_password")
    assert (redis["appendonly"], redis["maxmemory-policy"]) == ("yes", "noeviction")
    credentials = configparser.ConfigParser()
    credentials.read_string(read("s3_credentials"))
    (identity,) = json.loads(read("s3_identities"))["identities"]
    (key,) = identity["credentials"]
    assert dict(credentials["default"]) == {
        "aws_access_key_id": key["accessKey"],
        "aws_secret_access_key": key["secretKey"],
    }
    values = [read(name) for name in ("api_key", "postgres_password", "redis_password", "s3_key", "s3_secret")]
    assert len(set(values)) == 5
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in values)


def test_secrets_are_made_once_and_their_folder_is_closed(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    (secrets / "broker_url").unlink()
    subprocess.run([secrets.parent / "make-secrets"], check=True, capture_output=True, timeout=60)
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_runs_a_command_closed_and_lets_it_drain(unit: Path) -> None:
    found = configparser.ConfigParser(interpolation=None, strict=False)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(unit)
    service = found["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert words[:2] == ["-m", "app.commands"]
    assert program == f"{service['WorkingDirectory']}/.venv/bin/python"
    assert is_command(words[2])
    assert int(service["TimeoutStopSec"]) > Settings.model_fields["drain_seconds"].default + 5
    assert service["User"] == "restore"
    assert (service["NoNewPrivileges"], service["ProtectSystem"]) == ("yes", "strict")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_a_unit(unit: Path, tmp_path: Path) -> None:
    """Verified with a program and a user that exist here; everything else is the file's own."""
    text = unit.read_text(encoding="utf-8").replace("/opt/neural-image-restore", str(tmp_path))
    program = tmp_path / ".venv/bin/python"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    copy = tmp_path / unit.name.replace("@", "@0")
    copy.write_text(text.replace("User=restore\nGroup=restore\n", ""), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(copy)]
    environment = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    own = [line for line in (told.stdout + told.stderr).splitlines() if copy.name in line]
    assert not own


def test_the_page_scales_by_a_number_that_is_there() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    (name,) = re.findall(r"max\((\w+)\)", page)
    assert f"\n{name} ".encode() in Metrics().render()
