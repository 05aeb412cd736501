"""The part of the local backend that restores patches for previews, when the device lets one in; see `Previewing`."""

from __future__ import annotations

import dataclasses

from app.backends.device_turns import Beat
from app.backends.photo_repair import PhotoRepair
from app.errors import Cancelled
from app.images import Box, Overview, PatchWindow
from app.options import ColorCorrection, RestoreOptions, damage_reduction
from app.results import RestorationResult
from app.stages import IsWanted, Stage, always_wanted


class PatchRestoring(PhotoRepair):
    """What a backend on one device adds to be `Previewing`; the child class has the device and the restorer."""

    def restore_patch(
        self, patch: PatchWindow, options: RestoreOptions, wait_seconds: float, is_wanted: IsWanted = always_wanted
    ) -> RestorationResult:
        """See `Previewing`."""

        def work(beat: Beat) -> RestorationResult:
            def step(fraction: float, stage: Stage) -> bool:
                if not beat():
                    raise Cancelled  # at once: the photo in between, or the preview, is not wanted any more
                return True

            reduction = damage_reduction(patch.overview.width, patch.overview.height)
            repaired, rest = self._repaired(patch.window, options, step, reduction=reduction)
            ready = patch if repaired is None else dataclasses.replace(patch, window=repaired.picture)
            ready = _with_colours(ready, options)
            with self._watched():
                result = self._restorer.restore_patch(ready, options, rest)
            return result if repaired is None else repaired.told_by(result, is_whole=False)

        return self._turns.preview(work, wait_seconds, is_wanted)

    def find_faces(
        self, overview: Overview, options: RestoreOptions, wait_seconds: float, is_wanted: IsWanted = always_wanted
    ) -> list[Box]:
        """See `Previewing`."""

        def work(beat: Beat) -> list[Box]:
            with self._watched():
                return self._restorer.find_faces(overview, options)

        return self._turns.preview(work, wait_seconds, is_wanted) if options.face_enhance else []


def _with_colours(patch: PatchWindow, options: RestoreOptions) -> PatchWindow:
    """The patch with the correction of the whole photo, where that is asked for."""
    if options.color_correction != ColorCorrection.AUTO:
        return patch
    from app.restoration.colour_correction import correct_window  # whoever does not ask never loads it

    return dataclasses.replace(patch, window=correct_window(patch.overview.small, patch.window, options.color_strength))
