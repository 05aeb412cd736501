"""The local backend by the settings, and the thread's loop that gives its card's memory back when nothing is asked."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from app.settings import Settings

if TYPE_CHECKING:
    from app.backends.local import LocalBackend

IDLE_CHECK_SECONDS = 30.0


def release_when_idle(backend: LocalBackend, stop: threading.Event) -> None:
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
