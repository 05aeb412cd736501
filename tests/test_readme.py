"""The README's examples against a real service on loopback, and its claims against the code.

The service is started as a user starts it, through `serve` and its supervisor, with the model that ships with the
project, so nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from app.main import create_app
from app.options import FIELDS
from app.restoration.models.weights import EMBEDDED, MANIFEST
from tests.face_backend import PLACES, FaceBackend
from tests.harness import until
from tests.http_service import describe, settings_for

ROOT = Path(__file__).resolve().parents[1]
KEY = "0123456789abcdef0123456789abcdef"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced examples of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@dataclasses.dataclass
class Running:
    """A service that answers, its supervisor, and the file that it prints into."""

    api: str
    process: subprocess.Popen[bytes]
    output: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(address: str) -> bytes:
    request = urllib.request.Request(address, headers={"X-API-KEY": KEY})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "API_KEY": KEY,
        "PORT": str(port),
        "DASHBOARD_PORT": str(free_port()),
        "UPLOAD_FOLDER": str(folder / "uploads"),
        "PROCESSED_FOLDER": str(folder / "results"),
        "WEIGHTS_FOLDER": str(folder / "weights"),
        "DATABASE_URL": f"sqlite:///{folder / 'jobs.sqlite3'}",
        "OFFLINE": "true",
        "DEVICE": "cpu",
    }
    output = folder / "output.txt"
    with output.open("wb") as target:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.commands", "serve"], cwd=ROOT, env=environment, stdout=target, stderr=target
        )
    try:
        deadline = time.monotonic() + 90
        while "  API " not in output.read_text():
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.1)
        yield Running(f"http://127.0.0.1:{port}", process, output)
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0, output.read_text()


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A user's folder with two photos."""
    noise = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    Image.fromarray(noise[:, ::-1]).save(tmp_path / "drawing.png")
    return tmp_path


def run_example(command: list[str], running: Running, desk: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "API": running.api, "API_KEY": KEY}
    return subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed, so its examples cannot run")
@pytest.mark.parametrize("number", range(len(blocks("bash"))))
def test_the_curl_examples_work(number: int, running: Running, desk: Path) -> None:
    done = run_example(["bash", "-euo", "pipefail", "-c", blocks("bash")[number]], running, desk)
    assert done.returncode == 0, done.stdout + done.stderr
    check_what_was_fetched(desk)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_python_examples_work(number: int, running: Running, desk: Path) -> None:
    done = run_example([sys.executable, "-c", blocks("python")[number]], running, desk)
    assert done.returncode == 0, done.stdout + done.stderr
    check_what_was_fetched(desk)


def test_the_example_of_faces_blends_a_result_that_has_some(desk: Path, tmp_path: Path) -> None:
    """The service of the other examples finds no face in noise, so this one runs against a backend that does."""
    Image.new("RGB", (64, 48), "gray").save(desk / "photo.jpg")
    example = next(block for block in blocks("python") if "reblendable" in block)
    with serving(tmp_path / "faces") as address:
        environment = {**os.environ, "API": address, "API_KEY": KEY}
        done = subprocess.run(
            [sys.executable, "-c", example], cwd=desk, env=environment, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("face0_before", "face0_after", "face1_before", "face1_after", "blended"):
        with Image.open(desk / f"{name}.jpg", formats=("JPEG",)) as image:
            assert image.width >= 24
    before, after, blended = (_colour(desk / f"{name}.jpg") for name in ("face0_before", "face0_after", "blended"))
    assert np.abs(blended - (before + after) / 2).max() < 12


def _colour(path: Path) -> Any:
    """The colour in the middle of the first face, in a crop or in the whole picture."""
    left, top, side = PLACES[0]
    with Image.open(path, formats=("JPEG",)) as image:
        x, y = (side // 2, side // 2) if image.width == side else (left + 10, top + side // 2)
        return np.asarray(image).astype(int)[y, x]


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A real server around a backend that finds faces, in a thread; gives its address."""
    app = create_app(settings_for(folder, key=KEY), backends={"local": FaceBackend()}, describe=describe)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started and server.servers)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


def check_what_was_fetched(desk: Path) -> None:
    """Whatever an example saved is what its name says."""
    for name, side in (("restored.jpg", 128), ("restored.png", 128), ("small.jpg", None), ("before.jpg", 32)):
        if (desk / name).exists():
            with Image.open(desk / name, formats=("JPEG", "PNG")) as image:
                assert side is None or image.width == side
    if (desk / "results.zip").exists():
        with zipfile.ZipFile(desk / "results.zip") as archive:
            assert len(archive.namelist()) == 2
            assert archive.testzip() is None


def test_there_are_examples_in_both_languages_and_for_every_route(running: Running) -> None:
    examples = "\n".join([*blocks("bash"), *blocks("python")])
    paths = json.loads(fetch(f"{running.api}/openapi.json"))["paths"]
    assert len(paths) > 15
    # A parameter stands as a shell variable, in braces, or is taken whole from an answer ("url").
    missing = []
    for path in paths:
        pattern = re.sub(r"\\{[^}]*\\}", r"[^/\\s\"]+", re.escape(path))
        if not re.search(rf"{pattern}(?![\w/])", examples):
            missing.append(path)
    assert not missing
    assert "/status" in examples
    assert "websockets.connect" in examples


def test_the_start_prints_addresses_device_precision_and_the_key_state(running: Running) -> None:
    said = running.output.read_text()
    assert f"API         {running.api}" in said
    for words in (
        "Dashboard   http://127.0.0.1:",
        "Device      cpu (",
        "Precision   ",
        "Models      ",
        "needed (X-API-KEY)",
    ):
        assert words in said
    assert "Missing weights: RealESRGAN_x4plus.pth" in said
    assert "python3 run.py models download" in said
    assert KEY not in said


def test_the_readme_and_the_check_name_the_same_test_command() -> None:
    assert "python3 run.py test\n" in "".join(blocks("sh"))
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "grep -m 1 -x 'python3 run.py test' README.md" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_readme_names_every_option_and_every_weight_file() -> None:
    section = README.split("### Options of a restoration", 1)[1].split("\n## ", 1)[0]
    assert all(f"`{name}`" in section for name in FIELDS)
    models = README.split("\n## Models\n", 1)[1].split("\n## ", 1)[0]
    assert all(row.file in models for row in (*MANIFEST, EMBEDDED))
    assert all(row.licence.split(";")[0] in models for row in (*MANIFEST, EMBEDDED))


def test_the_links_and_files_that_the_readme_names_exist() -> None:
    named = re.findall(r"`(app/[a-z_/]+(?:\.py)?|requirements[a-z-]*\.txt|\.env\.example)`", README)
    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists(), name
