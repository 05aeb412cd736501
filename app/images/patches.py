"""Patches of a photo: where one is worth looking at, the window that is cut around it, and the reduced whole.

A patch lies in the upright, turned photo. Its corner is snapped, so that the result's pixels lie on the same grid as in
the whole result, whatever the network's factor.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from app.images import samples
from app.images.picture import Picture

PATCH_SIDE_PIXELS = 256
OVERVIEW_SIDE_PIXELS = 1280  # faces are looked for at this size in whole photos too
_SNAP_PIXELS = 4
_CLIPPED = 8  # grey values this close to black or white hold no detail
_FINEST_SIGMA = 1.0  # what is finer is grain


@dataclasses.dataclass(frozen=True)
class Box:
    """A rectangle in pixels; `right` and `bottom` lie outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    def grown(self, margin: int, width: int, height: int) -> Box:
        """The same with a margin around it, inside a photo of this size; its corner stays snapped."""
        left, top = (max(0, (side - margin) // _SNAP_PIXELS * _SNAP_PIXELS) for side in (self.left, self.top))
        return Box(left, top, min(width, self.right + margin), min(height, self.bottom + margin))

    def joined(self, other: Box) -> Box:
        """The smallest box around both."""
        return Box(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
        )

    def meets(self, other: Box) -> bool:
        """Whether the two share a pixel."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


@dataclasses.dataclass(frozen=True)
class Overview:
    """A photo reduced to at most `OVERVIEW_SIDE_PIXELS` a side, without metadata.

    Attributes:
        small: the reduced copy.
        width, height: of the photo itself, upright and turned, in pixels.
        colourless: whether the photo has no colours.
    """

    small: Picture
    width: int
    height: int
    colourless: bool

    @property
    def factor(self) -> float:
        """Pixels of the photo for one of the reduced copy."""
        return self.width / self.small.width


@dataclasses.dataclass(frozen=True)
class PatchWindow:
    """What a backend restores a patch from.

    Attributes:
        window: the photo around the patch, without metadata and transparency.
        at: where the window lies in the photo.
        inner: the patch itself, in the window's own pixels.
        overview: the whole photo, reduced.
    """

    window: Picture
    at: Box
    inner: Box
    overview: Overview


def patch_at(x: float, y: float, width: int, height: int) -> Box:
    """The patch around a point of a photo of this size, moved inside; a smaller photo is its own patch."""
    left, right = _side_at(x, width)
    top, bottom = _side_at(y, height)
    return Box(left, top, right, bottom)


def detailed_place(overview: Overview) -> tuple[float, float]:
    """(x, y) in the photo's pixels, the middle of the patch with the most detail that is neither grain nor clipped."""
    grey = cv2.cvtColor(samples.eight_bit(overview.small.rgb), cv2.COLOR_RGB2GRAY)
    soft = cv2.GaussianBlur(grey, (0, 0), _FINEST_SIGMA).astype(np.float32)
    across, down = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    # The root keeps one hard edge (a border, a letter) from outweighing a patch full of texture.
    detail = np.sqrt(np.hypot(across, down)) * ((grey >= _CLIPPED) & (grey <= 255 - _CLIPPED))
    side = max(3, round(PATCH_SIDE_PIXELS / overview.factor))
    means = cv2.blur(detail.astype(np.float32), (side, side), borderType=cv2.BORDER_CONSTANT)
    row, column = np.unravel_index(int(np.argmax(means)), means.shape)
    return (float(column) + 0.5) * overview.factor, (float(row) + 0.5) * overview.factor


def _side_at(place: float, length: int) -> tuple[int, int]:
    start = min(max(0, round(place) - PATCH_SIDE_PIXELS // 2), max(0, length - PATCH_SIDE_PIXELS))
    start = start // _SNAP_PIXELS * _SNAP_PIXELS
    return start, min(length, start + PATCH_SIDE_PIXELS)
