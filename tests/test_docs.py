"""The documentation's examples against a real service on loopback, and its claims against the code.

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

from app.error_codes import ERROR_CODES
from app.main import create_app
from app.options import FIELDS
from app.restoration.models.weights import EMBEDDED, MANIFEST
from tests.face_backend import PLACES, FaceBackend
from tests.harness import until
from tests.http_service import describe, settings_for

ROOT = Path(__file__).resolve().parents[1]
KEY = "0123456789abcdef0123456789abcdef"
SIDES = {"restored.jpg": 128, "restored.png": 128, "before.jpg": 32}  # of what the examples save, pixels
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
FILES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "NOTICE", "weights/README.md")]
FILES += [ROOT / "docs" / name for name in PAGES]
MOST_README_LINES = 150


def blocks(language: str) -> list[str]:
    """The fenced examples of one language, in the README and in every page."""
    texts = [README, *PAGES.values()]
    return [found for text in texts for found in re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)]


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
    example = blocks("bash")[number]
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
                assert len(archive.namelist()) == 2
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


def test_the_readme_and_the_check_name_the_same_test_command() -> None:
    assert "python3 run.py test\n" in "".join(blocks("sh"))
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "grep -m 1 -x 'python3 run.py test' README.md" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_readme_is_short() -> None:
    assert README.count("\n") <= MOST_README_LINES


def test_the_pages_name_every_option_and_every_weight_file() -> None:
    section = PAGES["api.md"].split("## Options of a restoration", 1)[1].split("\n## ", 1)[0]
    assert all(f"`{name}`" in section for name in FIELDS)
    models = PAGES["models.md"]
    assert all(row.file in models for row in (*MANIFEST, EMBEDDED))
    assert all(row.licence.split(";")[0] in models for row in (*MANIFEST, EMBEDDED))


def test_the_page_of_the_api_lists_every_error_code_as_the_table_has_it() -> None:
    section = PAGES["api.md"].split("## Error codes", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.+) \|$", section, re.M)
    assert rows == [(code, str(facts.status), facts.meaning) for code, facts in ERROR_CODES.items()]


def test_the_page_of_siliconflow_agrees_with_the_table_of_codes() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGES["siliconflow.md"], re.M)
    assert len(rows) > 8
    assert all(ERROR_CODES[code].status == int(status) for code, status in rows)


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings give."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name if path.parent != ROOT / "weights" else "card")
def test_the_links_lead_to_files_and_headings_that_exist(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text(encoding="utf-8")), target


def test_the_files_that_the_pages_name_exist() -> None:
    text = "\n".join([README, *PAGES.values(), (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")])
    named = set(re.findall(r"`((?:app|tests|static|weights)/[\w/.-]+)`", text))
    named |= set(re.findall(r"`(requirements[a-z-]*\.txt|\.env\.example)`", text)) - {"requirements-models.txt"}
    assert len(named) > 40
    missing = {name for name in named if not (ROOT / name).exists() and "NAME" not in name}
    assert not missing


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", README))
    assert linked == set(PAGES)


def test_the_architecture_names_every_room() -> None:
    rooms = {path.name for path in (ROOT / "app").iterdir() if path.name not in ("__init__.py", "__pycache__")}
    table = PAGES["architecture.md"].split("## Rooms", 1)[1].split("## ", 1)[0]
    assert {room for room in rooms if f"`app/{room}" not in table} == set()


def test_the_licence_is_apache_and_names_the_embedded_model_and_its_data() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")[:200]
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert EMBEDDED.file in notice
    assert "BSDS500" in notice


def test_no_page_names_a_folder_of_somebodys_machine() -> None:
    for path in FILES:
        assert not re.search(r"(?<![\w.])/(work|root|home|Users)/", path.read_text(encoding="utf-8")), path.name
