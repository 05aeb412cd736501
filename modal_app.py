"""The service on Modal: a CPU class that serves HTTP, and classes whose method runs one attempt, on a card or without.

`modal deploy modal_app.py` puts it there; see docs/modal.md. A container of Modal counts as idle when it serves no
call, so no work waits in a process: each wake-up is a call of its own (`.spawn`), and the row stays the truth.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modal
import modal.experimental

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.backends.protocol import Backend
    from app.main.attempt_runs import AttemptRuns
    from app.queue import Queue
    from app.settings import Settings

log = logging.getLogger(__name__)

NAME = "neural-image-restore"
ROOT = Path(__file__).resolve().parent
WEIGHTS_FOLDER = "/weights"
CARD = "L4"
MAX_CARDS = 4  # what the bill is capped by
LONGEST_RUN_SECONDS = 3600
# What only processes with networks need; the rest of requirements.txt serves HTTP.
MODEL_PACKAGES = frozenset({"facexlib", "basicsr", "gfpgan", "realesrgan"})
NETWORK_PACKAGES = MODEL_PACKAGES | {
    *("torch", "torchvision", "spandrel", "einops", "safetensors", "scipy", "numba", "filterpy", "addict", "future"),
    *("lmdb", "tqdm", "yapf", "Cython", "setuptools", "wheel"),
}
FOLDERS = {"WEIGHTS_FOLDER": WEIGHTS_FOLDER, "UPLOAD_FOLDER": "/tmp/uploads", "PROCESSED_FOLDER": "/tmp/results"}  # noqa: S108


def packages(file: str, *, without: frozenset[str] = frozenset(), only: frozenset[str] | None = None) -> list[str]:
    """The pinned packages of a requirements file, by name."""
    if not (ROOT / file).exists():  # inside a container, where the image is made already
        return []
    lines = [line.partition("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
    named = {line: re.split(r"[=\[;<> ]", line)[0] for line in lines if line and not line.startswith("-")}
    return [line for line, name in named.items() if name not in without and (only is None or name in only)]


def _with_source(image: modal.Image) -> modal.Image:
    """The program itself, added last so that a change of it builds nothing anew."""
    image = image.env(FOLDERS).add_local_python_source("app")
    return image.add_local_dir(ROOT / "static", "/root/static").add_local_dir(ROOT / "weights", "/root/weights")


_base = modal.Image.debian_slim("3.12").pip_install(*packages("requirements-cluster.txt"))
light_image = _with_source(_base.pip_install(*packages("requirements.txt", without=NETWORK_PACKAGES)))
_first = _base.pip_install(*packages("requirements.txt", without=MODEL_PACKAGES))
_models = packages("requirements.txt", only=MODEL_PACKAGES)
network_image = _with_source(
    _first.pip_install(*_models, extra_options="--no-deps --no-build-isolation") if _models else _first
)

app = modal.App(NAME)
settings_secret = modal.Secret.from_name(NAME)
weights = modal.Volume.from_name(f"{NAME}-weights", create_if_missing=True)
weights_mount: dict[str | Any, Any] = {WEIGHTS_FOLDER: weights}


class SpawnForwarder:
    """Makes a call of Modal's of each wake-up, in a thread of its own and so never in a request's way.

    Args:
        queue: that of the process that accepts photos.
        backend_of: the backend of an attempt.
        spawn: calls, by backend; one that is not there is served by that of `local`.
    """

    def __init__(
        self, queue: Queue, backend_of: Callable[[str], str | None], spawn: Mapping[str, Callable[[str], object]]
    ) -> None:
        self._consumer, self._backend_of, self._spawn = queue.open_consumer(), backend_of, spawn
        threading.Thread(target=self._forward, name="modal-spawn", daemon=True).start()

    def _forward(self) -> None:
        while True:
            attempt_id = self._consumer.receive(60.0)
            if attempt_id is not None:
                self.forward(attempt_id)

    def forward(self, attempt_id: str) -> None:
        """One call. What cannot be called is found again by the scheduled sweep: the row still waits."""
        try:
            backend = self._backend_of(attempt_id) or "local"
            self._spawn.get(backend, self._spawn["local"])(attempt_id)
        except Exception:  # whatever the store or the client of Modal raises
            log.warning("attempt %s could not be handed to Modal", attempt_id, exc_info=True)


def calls() -> dict[str, Callable[[str], object]]:
    """How attempts of each backend are called."""
    return {"local": Gpu().run_attempt.spawn, "siliconflow": Cloud().run_attempt.spawn}


def open_runs(open_backends: Callable[..., Mapping[str, Backend]]) -> AttemptRuns:
    """What the containers that restore have, opened."""
    from app.commands.configure import read_settings
    from app.main.attempt_runs import AttemptRuns
    from app.queue import LocalQueue

    queue = LocalQueue()
    runs = AttemptRuns(read_settings(), queue)
    SpawnForwarder(queue, runs.backend_of, calls())
    runs.open(open_backends)
    return runs


def run(runs: AttemptRuns, attempt_id: str) -> None:
    """One attempt; a container whose card is lost takes no more."""
    from app.errors import DeviceLost

    try:
        runs.run(attempt_id)
    except DeviceLost:
        modal.experimental.stop_fetching_inputs()
        raise


@app.cls(
    image=network_image,
    gpu=CARD,
    volumes=weights_mount,
    secrets=[settings_secret],
    max_containers=MAX_CARDS,
    scaledown_window=120,
    timeout=LONGEST_RUN_SECONDS,
)
class Gpu:
    """A container with a card: loads once, then runs one attempt a call. Modal repeats none: the rows count tries."""

    @modal.enter()
    def open(self) -> None:
        """Load what restores."""
        self.runs = open_runs(_open_local)

    @modal.method()
    def run_attempt(self, attempt_id: str) -> None:
        """Restore it; does nothing when it does not wait any more."""
        run(self.runs, attempt_id)

    @modal.exit()
    def close(self) -> None:
        """Give the database and the decoder back."""
        self.runs.close()


@app.cls(
    image=light_image, secrets=[settings_secret], max_containers=1, scaledown_window=60, timeout=LONGEST_RUN_SECONDS
)
@modal.concurrent(max_inputs=4)
class Cloud:
    """A container without a card, for photos that a provider restores."""

    @modal.enter()
    def open(self) -> None:
        """Open the provider's client."""
        self.runs = open_runs(_open_provider)

    @modal.method()
    def run_attempt(self, attempt_id: str) -> None:
        """As `Gpu.run_attempt`."""
        run(self.runs, attempt_id)

    @modal.exit()
    def close(self) -> None:
        """As `Gpu.close`."""
        self.runs.close()


@app.cls(image=light_image, secrets=[settings_secret], scaledown_window=300)
@modal.concurrent(max_inputs=100)
class Web:
    """HTTP without networks: the API and the dashboard at one address."""

    @modal.asgi_app()
    def serve(self) -> Any:
        """The application that Modal serves."""
        from app.commands.configure import read_settings

        return create_web(read_settings(), calls())


@app.function(image=light_image, secrets=[settings_secret], schedule=modal.Period(minutes=5), timeout=300)
def sweep() -> None:
    """Find what dead containers left and what nobody heard of, remove what expired, and tell the webhooks that are due.

    It runs when nothing else does.
    """
    from app.commands.configure import read_settings
    from app.main.attempt_runs import AttemptRuns
    from app.queue import LocalQueue

    queue = LocalQueue()
    runs, consumer = AttemptRuns(read_settings(), queue), queue.open_consumer()
    runs.connect()
    forwarder = SpawnForwarder(LocalQueue(), runs.backend_of, calls())
    runs.sweep()
    while (attempt_id := consumer.receive(0.0)) is not None:
        forwarder.forward(attempt_id)
    runs.tell_webhooks()
    runs.close()


@app.function(image=light_image, volumes=weights_mount, secrets=[settings_secret], timeout=LONGEST_RUN_SECONDS)
def fetch_weights(name: str = "default") -> None:
    """Fill the Volume once: `modal run modal_app.py::fetch_weights`; each file is checked against its known hash."""
    from app.commands import models

    if models.run("download", [name]) != 0 or models.run("verify", []) != 0:
        raise SystemExit("the weights could not be fetched; the lines above say why")
    weights.commit()


def create_web(settings: Settings, spawn: Mapping[str, Callable[[str], object]]) -> Any:
    """API and dashboard as one ASGI application. Raises `Conflict` where the settings do not fit many machines."""
    from app.errors import Conflict
    from app.main import create_app, create_dashboard
    from app.main.attempt_runs import refuse_unshared

    refuse_unshared(settings)
    if not settings.api_keys:
        raise Conflict("settings_conflict", "The address is open to the world: set API_KEY in the secret.")
    api: FastAPI = create_app(settings, restores=False)
    context = api.state.context
    SpawnForwarder(context.queue, lambda attempt_id: _backend(context.store.attempt(attempt_id)), spawn)
    pages = create_dashboard(api, Path("/root/static") if Path("/root/static").is_dir() else ROOT / "static")

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await (api if scope["type"] == "lifespan" else pages)(scope, receive, send)

    return serve


def _backend(attempt: Any) -> str | None:
    return None if attempt is None else str(attempt.backend)


def _open_local(settings: Settings, *_: Any) -> dict[str, Backend]:
    from app.errors import RestoreError
    from app.main.local_backend import open_backend

    backend = open_backend(settings)
    try:
        backend.load()
    except RestoreError as error:  # a damaged weight file, say: other models may do, and each photo says its own
        log.warning("the default model could not be loaded: %s", error.detail)
    return {backend.name: backend}


def _open_provider(*parts: Any) -> dict[str, Backend]:
    from app.main.cloud import open_cloud

    cloud = open_cloud(*parts)
    return {} if cloud is None else {cloud.name: cloud}
