"""Eyes, brows, noses and mouths are left alone: what is marked in one of them and hardly beyond it is no damage.

An eye is what a speck looks like, small, sharp, dark and light on plain ground, and the network was at times surer of
one than of most cracks. A crack that crosses an eye lies mostly beside it and stays marked.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from app.restoration.faces.detection import DetectedFace
from app.restoration.repair.mask import FaceBox

FEATURE_LEVELS = (0.1, 0.25, 0.5)  # what a mark may reach down to, at any threshold that a user chooses
INSIDE_SHARE = 0.8  # of a region: what lies to this part inside a feature belongs to it
# Half axes along and across the line between the eyes, in distances between the eyes, measured on photos from the
# front; in profile the eyes come together, so the distance counts at least as this share of the box.
_EYE, _NOSE, _MOUTH = (0.4, 0.36), (0.26, 0.22), (0.62, 0.36)
_BROW_RISE = 0.1  # the eye's ellipse is moved up by this, so that it holds the brow
_SMALLEST_DISTANCE = 0.3


@dataclasses.dataclass(frozen=True)
class Ellipse:
    """Middle and half axes in pixels of the photo; `turn` of the first axis in radians, clockwise as seen."""

    x: float
    y: float
    along: float
    across: float
    turn: float

    def bounds(self, height: int, width: int, reach: float) -> FaceBox:
        """The box of a circle of `reach` times the longer half axis, inside a photo of this size."""
        radius = reach * max(self.along, self.across) + 1.0
        left, top = max(0, math.floor(self.x - radius)), max(0, math.floor(self.y - radius))
        right, bottom = min(width, math.ceil(self.x + radius)), min(height, math.ceil(self.y + radius))
        return left, top, max(left, right), max(top, bottom)

    def covers(self, box: FaceBox) -> NDArray[np.bool_]:
        """Which pixels of a box lie inside, (h, w)."""
        y, x = np.ogrid[box[1] : box[3], box[0] : box[2]]
        dx, dy = x - self.x, y - self.y
        cosine, sine = math.cos(self.turn), math.sin(self.turn)
        u, v = (dx * cosine + dy * sine) / self.along, (dy * cosine - dx * sine) / self.across
        return np.asarray(u**2 + v**2 <= 1.0, dtype=np.bool_)


def features_of(face: DetectedFace) -> tuple[Ellipse, ...]:
    """Both eyes with their brows, the nose and the mouth."""
    left, right, nose, mouth_left, mouth_right = face.landmarks
    dx, dy = right - left
    turn = math.atan2(dy, dx)
    size = max(math.hypot(dx, dy), _SMALLEST_DISTANCE * (face.box[2] - face.box[0]))
    up = _BROW_RISE * size * np.array([math.sin(turn), -math.cos(turn)])
    mouth = 0.5 * (mouth_left + mouth_right)
    places = ((left + up, _EYE), (right + up, _EYE), (nose, _NOSE), (mouth, _MOUTH))
    return tuple(Ellipse(float(x), float(y), a * size, b * size, turn) for (x, y), (a, b) in places)


def box_of(face: DetectedFace, height: int, width: int) -> FaceBox:
    """Its box in whole pixels inside the photo."""
    x0, y0, x1, y1 = face.box
    return max(0, math.floor(x0)), max(0, math.floor(y0)), min(width, math.ceil(x1)), min(height, math.ceil(y1))


def without_features(probability: NDArray[np.uint8], faces: Sequence[DetectedFace]) -> NDArray[np.uint8]:
    """Probabilities, (H, W), 255 times; zero where a region over one of the levels belongs to a feature.

    Without such a region the same object.
    """
    spared = probability
    for ellipse in (ellipse for face in faces for ellipse in features_of(face)):
        box = ellipse.bounds(probability.shape[0], probability.shape[1], reach=2.0)
        window, inside = (slice(box[1], box[3]), slice(box[0], box[2])), ellipse.covers(box)
        for level in FEATURE_LEVELS:
            belonging = _belonging(spared[window], inside, level)
            if belonging.any():
                spared = probability.copy() if spared is probability else spared
                spared[window][belonging] = 0
    return spared


def _belonging(probability: NDArray[np.uint8], inside: NDArray[np.bool_], threshold: float) -> NDArray[np.bool_]:
    """Pixels of the regions of a window that lie mostly inside a feature, (h, w)."""
    over = (probability > 255.0 * threshold).astype(np.uint8)
    if not over.any():
        return over.astype(np.bool_)
    count, regions = cv2.connectedComponents(over, connectivity=8)
    sizes, parts = np.bincount(regions.ravel(), minlength=count), np.bincount(regions[inside], minlength=count)
    belongs = parts >= INSIDE_SHARE * sizes
    belongs[0] = False
    return np.asarray(belongs[regions], dtype=np.bool_)
