"""The part of the local backend that restores patches for previews, when the device lets one in; see `Previewing`."""

from __future__ import annotations

import abc
import contextlib
import dataclasses

from app.backends.device_turns import Beat, DeviceTurns
from app.errors import Cancelled
from app.images import Box, Overview, PatchWindow
from app.options import ColorCorrection, RestoreOptions
from app.restoration.pipeline import PhotoRestorer
from app.results import RestorationResult
from app.stages import IsWanted, Stage, always_wanted


class PatchRestoring(abc.ABC):
    """What a backend on one device adds to be `Previewing`; the child class has the device and the restorer."""

    _turns: DeviceTurns
    _restorer: PhotoRestorer

    def restore_patch(
        self, patch: PatchWindow, options: RestoreOptions, wait_seconds: float, is_wanted: IsWanted = always_wanted
    ) -> RestorationResult:
        """See `Previewing`."""
        if options.color_correction == ColorCorrection.AUTO:
            from app.restoration.colour_correction import correct_window  # whoever does not ask never loads it

            window = correct_window(patch.overview.small, patch.window, options.color_strength)
            patch = dataclasses.replace(patch, window=window)

        def work(beat: Beat) -> RestorationResult:
            def step(fraction: float, stage: Stage) -> bool:
                if not beat():
                    raise Cancelled  # at once: the photo in between, or the preview, is not wanted any more
                return True

            with self._watched():
                return self._restorer.restore_patch(patch, options, step)

        return self._turns.preview(work, wait_seconds, is_wanted)

    def find_faces(
        self, overview: Overview, options: RestoreOptions, wait_seconds: float, is_wanted: IsWanted = always_wanted
    ) -> list[Box]:
        """See `Previewing`."""

        def work(beat: Beat) -> list[Box]:
            with self._watched():
                return self._restorer.find_faces(overview, options)

        return self._turns.preview(work, wait_seconds, is_wanted) if options.face_enhance else []

    @abc.abstractmethod
    def _watched(self) -> contextlib.AbstractContextManager[None]:
        """Work on this thread's card; raises `DeviceLost` when the card was lost at it."""
