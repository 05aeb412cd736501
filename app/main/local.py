"""The local backend that the settings describe, for the service and for the commands.

Importing this loads torch, which takes seconds. It knows which setting is which argument, and nothing else.
"""

from __future__ import annotations

from app.backends.local import LocalBackend, open_local_backend
from app.settings import Settings


def open_backend(settings: Settings) -> LocalBackend:
    """Choose device and precision; nothing is loaded yet. Raises `RestoreError` when the device is not there."""
    return open_local_backend(
        settings.weights_folder,
        device=settings.device,
        precision=settings.precision,
        tile_size=settings.tile_size,
        engine=settings.engine,
        default_quality=settings.default_quality,
        allow_unverified=settings.allow_unverified_weights,
        face_detector=settings.face_detector,
    )
