"""Probabilities of damage to the mask that is filled: a threshold, a higher one inside faces, and islands kept whole.

An island over most of the threshold is taken when it reaches the threshold somewhere (hysteresis), so that a crack is
not cut into dashes. An island down to half of it holds more that is no damage (F1 of thin damage 0.850 at 0.8; down to
0.85 of it 0.854). A removed eyebrow is worse than ten cracks left, hence the threshold of faces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from app.options import Repair

THRESHOLDS: Mapping[Repair, float] = {Repair.AUTO: 0.8, Repair.STRONG: 0.5}
FACE_THRESHOLDS: Mapping[Repair, float] = {Repair.AUTO: 0.9, Repair.STRONG: 0.75}
LOW_SHARE = 0.85  # a mark reaches as far as the probability is over this share of the threshold
_BAND_ROWS = 512

Mask = NDArray[np.bool_]  # (H, W)
FaceBox = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels inside the photo; x1 and y1 lie outside the box


def make_mask(
    probability: NDArray[np.uint8], threshold: float, faces: Sequence[FaceBox] = (), face_threshold: float | None = None
) -> Mask:
    """What is damage.

    Args:
        probability: (H, W), 255 times the probability.
        threshold: 0 to 1.
        faces: boxes in which `face_threshold` holds instead.
        face_threshold: 0 to 1; None: the same.

    Returns:
        (H, W) bool.
    """
    low, marked = _over(probability, LOW_SHARE * threshold), _over(probability, threshold)
    if face_threshold is not None:
        for x0, y0, x1, y1 in faces:
            inside = probability[y0:y1, x0:x1]
            low[y0:y1, x0:x1] = _over(inside, LOW_SHARE * face_threshold)
            marked[y0:y1, x0:x1] = _over(inside, face_threshold)
    _grow_within(low, marked)
    return marked


def _over(probability: NDArray[np.uint8], threshold: float) -> Mask:
    return np.asarray(probability > threshold * 255.0, dtype=np.bool_)


def _grow_within(low: Mask, marked: Mask) -> None:
    """Grow `marked`, in place, to every island of `low` that it touches; by bands, since labels take much memory."""
    bands = [slice(top, top + _BAND_ROWS + 1) for top in range(0, len(low), _BAND_ROWS)]  # each shares a row
    changed = bool(marked.any())
    while changed:
        grown = [_grow_band(low[band], marked[band]) for band in (*bands, *reversed(bands))]
        changed = any(grown) and len(bands) > 1


def _grow_band(low: Mask, marked: Mask) -> bool:
    """One band; whether anything was added."""
    if not marked.any():
        return False
    count, islands = cv2.connectedComponents(low.astype(np.uint8), connectivity=8)
    reaches = np.zeros(count, np.bool_)
    reaches[np.unique(islands[marked])] = True
    reaches[0] = False
    grown = reaches[islands]
    is_more = bool((grown & ~marked).any())
    marked |= grown
    return is_more


def count_regions(mask: Mask) -> int:
    """How many separate regions a mask (H, W) bool has; pixels that touch at a corner belong together."""
    contours, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return 0 if not contours else int(np.count_nonzero(hierarchy[0, :, 3] < 0))


def share_in(mask: Mask, faces: Sequence[FaceBox]) -> float:
    """Which part of all faces' pixels a mask (H, W) bool marks, 0 to 1; 0 without faces."""
    inside = np.zeros(mask.shape, np.bool_)
    for x0, y0, x1, y1 in faces:
        inside[y0:y1, x0:x1] = True
    return int(np.count_nonzero(mask & inside)) / max(1, int(np.count_nonzero(inside)))
