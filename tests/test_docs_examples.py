"""The documentation's examples against a real service on loopback.

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

from app.backends.protocol import Backend
from app.images import Decoder
from app.main import create_app
from tests.documentation import ROOT, blocks
from tests.face_backend import PLACES, FaceBackend
from tests.harness import until
from tests.http_service import describe, settings_for
from tests.provider_stand_in import StandIn

KEY = "0123456789abcdef0123456789abcdef"
SIDES = {"restored.jpg": 128, "restored.png": 128, "before.jpg": 32}  # of what the examples save, pixels


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


needs_curl = pytest.mark.skipif(
    shutil.which("curl") is None, reason="curl is not installed, so its examples cannot run"
)
LITERAL_ADDRESS = "http://127.0.0.1:8001"
KEYLESS = [example for example in blocks("bash") if LITERAL_ADDRESS in example]
PROVIDER = [example for example in blocks("bash") if "backend=siliconflow" in example]
CURL = [example for example in blocks("bash") if example not in (*KEYLESS, *PROVIDER)]


@needs_curl
@pytest.mark.parametrize("number", range(len(CURL)))
def test_the_curl_examples_work(number: int, running: Running, desk: Path) -> None:
    example = CURL[number]
    done = run_example(["bash", "-euo", "pipefail", "-c", example], running, desk)
    assert done.returncode == 0, done.stdout + done.stderr
    check_what_was_saved(example, desk)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_python_examples_work(number: int, running: Running, desk: Path) -> None:
    example = blocks("python")[number]
    done = run_example([sys.executable, "-c", example], running, desk)
    assert done.returncode == 0, done.stdout + done.stderr
    if "reblendable" not in example:  # this one finds no face here, and has a test of its own
        check_what_was_saved(example, desk)


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


@needs_curl
def test_the_first_call_works_on_a_service_without_a_key(desk: Path, tmp_path: Path) -> None:
    (example,) = KEYLESS
    with serving(tmp_path / "open", key="") as address:
        done = run_bash(example.replace(LITERAL_ADDRESS, address), desk, address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"job.json", "restored.jpg"} <= saved_names(example)
    check_what_was_saved(example, desk)


@needs_curl
def test_the_example_of_the_provider_sends_the_photo_there(
    desk: Path, tmp_path: Path, provider: StandIn, decoder: Decoder
) -> None:
    (example,) = PROVIDER
    with serving(tmp_path / "cloud", siliconflow=provider.backend(decoder.decode)) as address:
        done = run_bash(example, desk, address)
    assert done.returncode == 0, done.stdout + done.stderr
    check_what_was_saved(example, desk)
    (result,) = json.loads((desk / "job.json").read_text())["results"]
    assert (result["backend"], result["width"]) == ("siliconflow", 64)
    (asked,) = provider.asked("api")
    assert asked.fields["prompt"] == "Remove the crease and keep the sepia tone."


def run_bash(example: str, desk: Path, address: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "API": address, "API_KEY": KEY}
    command = ["bash", "-euo", "pipefail", "-c", example]
    return subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True, timeout=120)


@contextlib.contextmanager
def serving(folder: Path, *, key: str = KEY, **others: Backend) -> Iterator[str]:
    """A real server around a backend that finds faces, and others, in a thread; gives its address."""
    local = {name: value for name, value in describe().items() if name != "backends"}
    backends: dict[str, Backend] = {"local": FaceBackend(), **others}
    app = create_app(settings_for(folder, key=key), backends=backends, describe=lambda: local)
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


def saved_names(example: str) -> set[str]:
    """The files that an example says it writes: `curl -o NAME`, `curl -c NAME`, `open("NAME", "wb")`."""
    names = re.findall(r" -[oc] ([\w.]+)", example) + re.findall(r'open\("([\w.]+)", "wb"\)', example)
    return set(names)


def check_what_was_saved(example: str, desk: Path) -> None:
    """Every file that the example says it writes is there, and is what its name says."""
    for name in saved_names(example):
        path = desk / name
        assert path.is_file(), f"the example did not write {name}"
        if name.endswith((".jpg", ".png")):
            with Image.open(path, formats=("JPEG", "PNG")) as image:
                image.load()
                assert image.width == SIDES.get(name, image.width)
        elif name.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                files = len(archive.namelist())
                # The other examples' photos are in the archive of everything too: they share one service.
                assert files >= 2 if name == "everything.zip" else files == 2
                assert archive.testzip() is None
        elif name.endswith(".json"):
            assert json.loads(path.read_text())["status"] == "completed"


def test_the_check_of_saved_files_can_fail(desk: Path) -> None:
    assert saved_names('curl -fsS -o a.jpg "$API/x"\nwith open("b.png", "wb") as file:') == {"a.jpg", "b.png"}
    with pytest.raises(AssertionError, match=r"did not write a\.jpg"):
        check_what_was_saved("curl -o a.jpg x", desk)
    (desk / "a.jpg").write_bytes(b"<html>")
    with pytest.raises(OSError, match="cannot identify"):
        check_what_was_saved("curl -o a.jpg x", desk)


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
