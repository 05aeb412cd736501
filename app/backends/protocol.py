"""The backend border: a `Picture` and options go in, a `RestorationResult` comes out; progress is the only callback."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from app.images import Box, Overview, PatchWindow, Picture
from app.options import RestoreOptions
from app.results import RestorationResult
from app.stages import IsWanted, OnProgress, always_wanted


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


@runtime_checkable
class DeviceSharing(Protocol):
    """A backend with one device, on which photos of several threads take turns step by step."""

    shares_device: bool

    def expecting_photo(self) -> AbstractContextManager[None]:
        """While the block decodes another owner's photo, the one at work may leave the processor to it for a moment."""
        ...


class Receipts(Protocol):
    """What a provider answered to the calls of one attempt that cost money, in their order; kept beyond a crash."""

    def take(self) -> Mapping[str, Any] | None:
        """The answer that an earlier run was given to the next call, so that it is not made again; else None."""
        ...

    def keep(self, receipt: Mapping[str, Any]) -> None:
        """Keep what is needed to fetch the result of the call that was just answered, JSON-ready; never raises."""
        ...


@runtime_checkable
class Charging(Protocol):
    """A backend whose calls cost money, while fetching their results again does not."""

    def with_receipts(self, receipts: Receipts) -> Backend:
        """The same backend for one run, whose answers are kept in `receipts`."""
        ...


@runtime_checkable
class Previewing(Protocol):
    """A backend that can restore a patch ahead of the photos that wait, without keeping them waiting for long."""

    def restore_patch(
        self, patch: PatchWindow, options: RestoreOptions, wait_seconds: float, is_wanted: IsWanted = always_wanted
    ) -> RestorationResult:
        """The patch as the whole run would give it at that place; blocks until its turn has come and it is done.

        Raises `Unavailable` `preview_busy` when its turn did not come within `wait_seconds`, and `Cancelled` at the
        next step once it is not wanted any more; else as `restore` does.
        """
        ...

    def find_faces(
        self, overview: Overview, options: RestoreOptions, wait_seconds: float, is_wanted: IsWanted = always_wanted
    ) -> list[Box]:
        """Where faces would be restored, the largest first, in the photo's pixels; errors as above."""
        ...


@runtime_checkable
class Repeatable(Protocol):
    """A backend whose results can be the same every time."""

    def result_facts(self, options: RestoreOptions) -> Mapping[str, Any] | None:
        """What, besides photo and options, decides the bytes of a result, JSON-ready; None: they differ each time."""
        ...


@runtime_checkable
class Repairing(Protocol):
    """A backend that finds damage and fills it before it restores."""

    def restore_with_mask(
        self, picture: Picture, mask: NDArray[np.bool_], options: RestoreOptions, on_progress: OnProgress
    ) -> RestorationResult:
        """As `restore` does, where `mask`, (H, W) of the upright, turned photo, is filled instead of what is found.

        `options.repair` is auto or strong.
        """
        ...

    def damage_share(self, picture: Picture, wait_seconds: float, is_wanted: IsWanted = always_wanted) -> float:
        """Which part of a small photo, 0 to 1, `auto` would fill; blocks until its turn has come and it is done.

        Raises:
            Conflict: `repair_unavailable` without the network. Unavailable: `preview_busy` as `restore_patch` does.
            Cancelled: it is not wanted any more.
        """
        ...
