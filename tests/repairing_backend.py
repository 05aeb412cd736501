"""A backend that repairs for real and enlarges with Lanczos: damage is what is nearly white.

Finding goes through the tiles, thresholds and filling that a trained network has; only the network's weights are
written by hand, so that a test can say which pixels are damage.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from app.images import Picture
from app.options import Repair, RestoreOptions
from app.restoration.repair.detection import DamageNetwork
from app.restoration.repair.repair import RepairNetworks, marked_share, repair_photo
from app.results import RestorationResult
from app.stages import IsWanted, OnProgress, Stage, always_wanted
from tests.damage_network import white_is_damage
from tests.http_service import GatedBackend

NETWORKS = RepairNetworks(DamageNetwork(white_is_damage()))


class RepairingBackend(GatedBackend):
    """Counts in `found` how often it looked for damage."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """See `Backend`."""
        if options.repair == Repair.OFF:
            return super().restore(picture, options, on_progress)
        self.found += 1
        return self._repaired(picture, options, on_progress, None)

    def restore_with_mask(
        self, picture: Picture, mask: NDArray[np.bool_], options: RestoreOptions, on_progress: OnProgress
    ) -> RestorationResult:
        """See `Repairing`."""
        return self._repaired(picture, options, on_progress, mask)

    def damage_share(self, picture: Picture, wait_seconds: float, is_wanted: IsWanted = always_wanted) -> float:
        """See `Repairing`."""
        return marked_share(NETWORKS, picture, lambda fraction: True)

    def _repaired(
        self, picture: Picture, options: RestoreOptions, on_progress: OnProgress, mask: NDArray[np.bool_] | None
    ) -> RestorationResult:
        """`mask` is (H, W) bool."""
        done = repair_photo(
            NETWORKS,
            picture,
            Repair(options.repair),
            mask=mask,
            on_fraction=lambda fraction: on_progress(fraction / 2, Stage.REPAIRING),
        )
        restored = super().restore(done.picture, options, on_progress)
        params = {**restored.params, "repair": done.report}
        return done.told_by(dataclasses.replace(restored, params=params))
