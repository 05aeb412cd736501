"""The damage of one photo: how sure the network was of each pixel, and which pixels were filled.

It is kept beside the result, so that the page can show it, move the threshold and let a brush change the mask.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, eq=False)
class DamageLayer:
    """What was found and filled, in the pixels of the upright photo before it is enlarged.

    Attributes:
        probability: (H, W) uint8, 255 times the probability of damage; 255 and 0 where the user drew the mask.
        mask: (H, W) bool, what was filled.
        faces: boxes (x0, y0, x1, y1) in which the threshold was the higher one, pixels inside the photo.
    """

    probability: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    faces: tuple[tuple[int, int, int, int], ...] = ()

    @property
    def share(self) -> float:
        """Which part of the photo was filled, 0 to 1."""
        return float(np.count_nonzero(self.mask) / self.mask.size)
