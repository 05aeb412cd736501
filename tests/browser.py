"""A real browser and real service processes for the tests of the dashboard; nothing leaves loopback.

Chromium is Debian's package, driven by Playwright; where it is missing those tests skip with a notice. Every page is
watched: a script error, a word of the Content-Security-Policy or a request to elsewhere fails the test.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, FilePayload, Page, Request, expect, sync_playwright

from tests.http_service import free_port

ROOT = Path(__file__).resolve().parents[1]
AXE = Path(__file__).parent / "vendor" / "axe" / "axe.min.js"
START_SECONDS = 240
PATIENCE_MILLISECONDS = 60_000  # a test machine may be busy with other things
DESKTOP = {"width": 1360, "height": 860}
PHONE = {"width": 390, "height": 844}
# What a page may not do unnoticed; set before any script of its own runs.
WATCH = """
window.breaches = [];
document.addEventListener('securitypolicyviolation', (event) => window.breaches.push(
  `${event.effectiveDirective} ${event.blockedURI}`));
"""


def chromium() -> str:
    """Path of the browser; skips when there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("no Chromium is installed (Debian: apt install chromium); the dashboard's browser tests need one")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A headless browser."""
    path = chromium()
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    with sync_playwright() as playwright:
        # Inside containers there is neither a user for the sandbox nor a large /dev/shm.
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield started
        finally:
            started.close()


@dataclasses.dataclass
class Service:
    """A service process, the address of its dashboard, and what it printed."""

    address: str
    process: subprocess.Popen[bytes]
    output: Path

    @property
    def port(self) -> int:
        """Port of the dashboard."""
        return int(self.address.rsplit(":", 1)[1])


@contextlib.contextmanager
def restoring_service(folder: Path, **settings: str) -> Iterator[Service]:
    """The service as users start it the first time: nothing installed but the model that ships with the project."""
    weights = folder / "weights"
    weights.mkdir(parents=True)
    port = free_port()
    environment = {
        **os.environ,
        "API_KEY": "",
        "PORT": str(free_port()),
        "DASHBOARD_PORT": str(port),
        "UPLOAD_FOLDER": str(folder / "uploads"),
        "PROCESSED_FOLDER": str(folder / "results"),
        "WEIGHTS_FOLDER": str(weights),
        "DATABASE_URL": f"sqlite:///{folder / 'jobs.sqlite3'}",
        "ALLOW_UNVERIFIED_WEIGHTS": "true",
        "OFFLINE": "true",
        "DEVICE": "cpu",
        "RATE_LIMIT": "0",
        "DRAIN_SECONDS": "2",
        **settings,
    }
    with _process(["-m", "app.commands", "serve"], environment, folder, port, "  API ") as service:
        yield service


@contextlib.contextmanager
def faced_service(folder: Path, strip_seconds: float, key: str = "", **settings: Any) -> Iterator[Service]:
    """The service around the stand-in of `faces_server`, for what must last a given time or needs faces."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = ["-m", "tests.faces_server", str(folder), str(port), str(strip_seconds), key, json.dumps(settings)]
    with _process(command, dict(os.environ), folder, port, "loaded") as service:
        yield service


@contextlib.contextmanager
def models_service(folder: Path, mirror: str) -> Iterator[Service]:
    """The real service, whose official weight files are those below `folder / "mirror"`; see `models_server`."""
    port = free_port()
    command = ["-m", "tests.models_server", str(folder), str(port), mirror]
    with _process(command, dict(os.environ), folder, port, "loaded") as service:
        yield service


@contextlib.contextmanager
def _process(
    command: list[str], environment: dict[str, str], folder: Path, port: int, ready_word: str
) -> Iterator[Service]:
    output = folder / "output.txt"
    with output.open("wb") as target:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdout=target,
            stderr=target,
            stdin=subprocess.DEVNULL,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while ready_word not in output.read_text(errors="replace"):
            assert process.poll() is None, output.read_text(errors="replace")
            assert time.monotonic() < deadline, output.read_text(errors="replace")
            time.sleep(0.1)
        yield Service(f"http://127.0.0.1:{port}", process, output)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()


def forget_jobs(service: Service) -> None:
    """Cancel and remove every job that an earlier test left."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with urllib.request.urlopen(f"{service.address}/api/v1/jobs?limit=100", timeout=30) as answer:
            jobs = json.load(answer)["jobs"]
        if not jobs:
            return
        assert time.monotonic() < deadline, "jobs of an earlier test do not end"
        for job in jobs:
            request = urllib.request.Request(f"{service.address}/api/v1/jobs/{job['job_id']}", method="DELETE")
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(request, timeout=30).close()
        time.sleep(0.1)


class Visit:
    """One page under watch. `check()` fails on script errors, CSP reports and requests to elsewhere."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.context, self.address = context, address
        self.errors: list[str] = []
        self.requests: list[Request] = []
        context.add_init_script(WATCH)
        self.page: Page = context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(f"script: {error}"))
        self.page.on("console", lambda message: self._heard(message.text))
        self.page.on("request", lambda request: self.requests.append(request))

    def open(self, path: str = "/") -> Page:
        """Load the dashboard and wait until it knows the service and its jobs."""
        self.page.goto(self.address + path)
        self.page.wait_for_selector("body[data-state=started]", timeout=PATIENCE_MILLISECONDS)
        return self.page

    def check(self) -> None:
        """Nothing happened that should not."""
        assert self.errors == []
        assert self.page.evaluate("window.breaches") == []
        ours = (self.address, self.address.replace("http", "ws", 1), f"blob:{self.address}", "data:")
        assert [request.url for request in self.requests if not request.url.startswith(ours)] == []

    def asked(self, part: str) -> list[Request]:
        """The requests whose address contains a text."""
        return [request for request in self.requests if part in request.url]

    def _heard(self, text: str) -> None:
        if "Content Security Policy" in text or "TrustedHTML" in text or "violates" in text:
            self.errors.append(f"console: {text}")


@contextlib.contextmanager
def visit(browser: Browser, address: str, **options: Any) -> Iterator[Visit]:
    """A fresh visitor of a dashboard; what was seen is checked at the end."""
    context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    seen = Visit(context, address)
    try:
        yield seen
        seen.check()
    finally:
        for page in context.pages:  # an answer under way would fail inside whichever test comes next
            page.unroute_all(behavior="ignoreErrors")
        context.close()


def shoot(page: Page, name: str, folder: Path) -> None:
    """Write a picture of the page into the folder that NIR_SCREENSHOTS names, else into the test's own."""
    target = Path(os.environ.get("NIR_SCREENSHOTS") or folder)
    target.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=target / f"{name}.png")


def photo(width: int, height: int, kind: str = "JPEG", seed: int = 0) -> bytes:
    """A photo-like picture: soft hills of colour with some grain, so that a network has something to do."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [np.sin(columns / (9 + 5 * k) + phase[k]) + np.cos(rows / (7 + 4 * k) - phase[k]) for k in range(3)]
    grain = np.random.default_rng(seed).normal(0, 6, (height, width, 1))
    pixels = np.clip(np.stack(waves, axis=2) * 50 + 128 + grain, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def as_file(name: str, data: bytes) -> FilePayload:
    """A file as Playwright hands it to a file field."""
    ending = name.rsplit(".", 1)[-1].lower()
    kinds = {"jpg": "image/jpeg", "png": "image/png", "tif": "image/tiff"}
    return {"name": name, "mimeType": kinds.get(ending, "application/octet-stream"), "buffer": data}


DROP = """
async ([files]) => {
  const transfer = new DataTransfer();
  for (const { name, type, data } of files) {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  for (const kind of ['dragenter', 'dragover', 'drop'])
    document.querySelector('.drop').dispatchEvent(
      new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
}
"""


def drop(page: Page, *files: FilePayload) -> None:
    """Let files fall onto the page, as a file manager does."""
    rows = [{"name": f["name"], "type": f["mimeType"], "data": base64.b64encode(f["buffer"]).decode()} for f in files]
    page.evaluate(DROP, [rows])


def grave_findings(page: Page) -> list[str]:
    """What axe calls serious or critical on the page as it stands, one line for each element."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{rule['id']} ({rule['impact']}): {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


class Eyes:
    """Looks at a page in both themes, and remembers what was found in which state."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.found: list[str] = []

    def look(self, state: str) -> None:
        for theme in ("light", "dark"):
            self.page.emulate_media(color_scheme=theme)
            expect(self.page.locator("html")).to_have_attribute("data-theme", theme)
            shoot(self.page, f"{state}-{theme}", self.folder)
            self.found += [f"{state}, {theme}: {line}" for line in grave_findings(self.page)]


class Fingers:
    """Touches the viewer's picture at half its height, as fingers do; places are shares of its width."""

    def __init__(self, page: Page) -> None:
        stage = page.locator(".stage").bounding_box()
        assert stage is not None
        self._left, self._width = stage["x"], stage["width"]
        self._middle = stage["y"] + stage["height"] / 2
        self._wire = page.context.new_cdp_session(page)

    def __call__(self, kind: str, *shares: float) -> None:
        points = [{"x": self._left + share * self._width, "y": self._middle, "id": k} for k, share in enumerate(shares)]
        self._wire.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
