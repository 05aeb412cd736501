"""Opens the backends that the settings name: this machine's networks, and the provider in the cloud."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from app.api.catalog import LOCAL_BACKEND
from app.backends.protocol import Backend
from app.backends.siliconflow import NAME as CLOUD
from app.backends.siliconflow import describe_siliconflow
from app.errors import RestoreError
from app.images import Decoder
from app.settings import Settings
from app.storage import Storage, new_id
from app.threads import SupervisedThread

if TYPE_CHECKING:
    from app.backends.local import LocalBackend

log = logging.getLogger(__name__)

IDLE_CHECK_SECONDS = 30.0


def open_cloud(settings: Settings, decoder: Decoder, storage: Storage) -> dict[str, Backend]:
    """The cloud backend by its name, where there is a key; it connects to nothing until a photo asks for it."""
    key = settings.siliconflow_api_key.get_secret_value()
    if not key:
        return {}
    from app.backends.siliconflow.backend import open_siliconflow_backend  # with it comes an HTTP client

    backend = open_siliconflow_backend(
        api_key=key,
        api_url=settings.siliconflow_api_url,
        model=settings.siliconflow_model,
        timeout_seconds=settings.siliconflow_timeout,
        result_hosts=settings.siliconflow_result_hosts,
        decode=decoder.decode,
        scratch=lambda: storage.scratch(new_id()),
        share=storage.share,
    )
    return {CLOUD: backend}


def backend_rows(settings: Settings, backends: Mapping[str, Backend]) -> list[dict[str, Any]]:
    """What may be chosen, and what it means to choose it."""
    cloud = describe_siliconflow(available=CLOUD in backends, api_url=settings.siliconflow_api_url)
    return [dict(LOCAL_BACKEND), cloud]


def load_backend(backend: LocalBackend) -> SupervisedThread | None:
    """Load the default model; the thread that gives a card's memory back when it had no work, where there is any."""
    try:
        backend.load()
    except RestoreError as error:  # a damaged weight file, say: other models may do, and each job says its own
        log.warning("the default model could not be loaded: %s", error.detail)
    if not backend.may_release_when_idle:
        return None
    watch = SupervisedThread("idle-release", functools.partial(_release_when_idle, backend))
    watch.start()
    return watch


def _release_when_idle(backend: LocalBackend, stop: threading.Event) -> None:
    """Have a card's memory given back when it had no work for a while, until `stop`."""
    while not stop.wait(IDLE_CHECK_SECONDS):
        backend.release_if_idle(time.monotonic())


def open_backend(settings: Settings) -> LocalBackend:
    """The local backend that the settings describe: device and precision are chosen, nothing is loaded yet.

    Imported here, since torch takes seconds. Raises `RestoreError` when the device is not there.
    """
    from app.backends.local import open_local_backend

    return open_local_backend(
        settings.weights_folder,
        device=settings.device,
        precision=settings.precision,
        tile_size=settings.tile_size,
        engine=settings.engine,
        default_quality=settings.default_quality,
        allow_unverified=settings.allow_unverified_weights,
        face_detector=settings.face_detector,
        idle_release_seconds=settings.idle_release_minutes * 60,
    )
