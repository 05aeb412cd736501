"""The part of the local backend that repairs damage before it restores; see `Repairing`.

Nothing of the repair is imported before a photo asks for it.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.backends.device_turns import Beat, DeviceTurns
from app.images import Picture
from app.options import ColorCorrection, Repair, RestoreOptions
from app.restoration.pipeline import PhotoRestorer
from app.results import RestorationResult
from app.stages import IsWanted, OnProgress, Stage, always_wanted
from app.time_estimate import repair_share

if TYPE_CHECKING:
    from app.restoration.repair.repair import RepairedPhoto

Mask = NDArray[np.bool_]


class PhotoRepair(abc.ABC):
    """What a backend on one device adds to be `Repairing`; the child class has the device and the restorer."""

    _turns: DeviceTurns
    _restorer: PhotoRestorer

    def restore_with_mask(
        self, picture: Picture, mask: Mask, options: RestoreOptions, on_progress: OnProgress
    ) -> RestorationResult:
        """See `Repairing`."""
        return self._in_turn(picture, options, on_progress, mask)

    def damage_share(self, picture: Picture, wait_seconds: float, is_wanted: IsWanted = always_wanted) -> float:
        """See `Repairing`."""

        def work(beat: Beat) -> float:
            from app.restoration.repair.repair import marked_share

            with self._watched():
                return marked_share(self._restorer.setup.repair_models.open(), picture, lambda fraction: beat())

        return self._turns.preview(work, wait_seconds, is_wanted)

    def _in_order(
        self, picture: Picture, options: RestoreOptions, on_progress: OnProgress, mask: Mask | None
    ) -> RestorationResult:
        """Damage first, at the photo's own size and colours, then the colours, then the enlargement."""
        facts: dict[str, Any] = {}
        repaired, on_progress = self._repaired(picture, options, on_progress, mask)
        if repaired is not None:
            picture, facts["repair"] = repaired.picture, repaired.report
        if options.color_correction == ColorCorrection.AUTO:
            from app.restoration.colour_correction import correct_and_describe  # whoever does not ask never loads it

            picture, facts["color_correction"] = correct_and_describe(picture, options.color_strength)
        result = self._restored(picture, options, on_progress)
        result = dataclasses.replace(result, params={**facts, **result.params})
        return result if repaired is None else repaired.told_by(result)

    def _repaired(
        self,
        picture: Picture,
        options: RestoreOptions,
        on_progress: OnProgress,
        mask: Mask | None = None,
        reduction: int | None = None,
    ) -> tuple[RepairedPhoto | None, OnProgress]:
        """The repaired photo, None where none is asked for, and the progress of what is left to do.

        `reduction` is that of the whole photo, where `picture` is a part of it.
        """
        if options.repair == Repair.OFF:
            return None, on_progress
        from app.restoration.repair.repair import repair_photo

        setup = self._restorer.setup
        cost = setup.registry.cost(setup.choose(options)[0])[1]
        share = repair_share(cost, picture.width, picture.height)
        with self._watched():
            on_progress(0.0, Stage.LOADING)
            repaired = repair_photo(
                setup.repair_models.open(),
                picture,
                Repair(options.repair),
                mask=mask,
                detect=setup.face_models.open_detector(),
                on_fraction=lambda fraction: on_progress(fraction * share, Stage.REPAIRING),
                reduction=reduction,
            )
        return repaired, lambda fraction, stage: on_progress(share + fraction * (1.0 - share), stage)

    @abc.abstractmethod
    def _in_turn(
        self, picture: Picture, options: RestoreOptions, on_progress: OnProgress, mask: Mask | None = None
    ) -> RestorationResult:
        """Wait for the device, then repair, correct and restore one picture."""

    @abc.abstractmethod
    def _restored(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """Restore one picture on this thread's card, with nothing done before."""

    @abc.abstractmethod
    def _watched(self) -> contextlib.AbstractContextManager[None]:
        """Work on this thread's card; raises `DeviceLost` when the card was lost at it."""
