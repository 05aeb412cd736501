"""The backend border: a `Picture` and options go in, a `RestorationResult` comes out; progress is the only callback."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from app.images import Picture
from app.options import RestoreOptions
from app.results import RestorationResult
from app.stages import OnProgress


class Backend(Protocol):
    """One way to restore a picture; safe to call from as many threads at once as the worker gives its lane."""

    name: str

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """Restore one picture. Raises `errors.RestoreError`, or `errors.Cancelled` when asked to stop."""
        ...


@runtime_checkable
class Pausing(Protocol):
    """A backend that takes no photos for a while when it is in trouble."""

    def pause_seconds(self) -> float | None:
        """None while it takes photos, else how long it may take until it does."""
        ...
