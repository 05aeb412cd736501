"""Pastes a restored face into the enlarged photo, inside the face's own rectangle and nowhere else.

Cost grows with the face's area in the result.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.images import Pixels
from app.images.face_layers import FaceLayer, mix
from app.restoration.engine import LUMA
from app.restoration.faces.alignment import Matrix, frame_corners, scale_of
from app.restoration.faces.parsing import Mask

_MAX_SHIFT = 0.15  # of the range: a larger difference in colour is content, not a cast


@dataclasses.dataclass(frozen=True, eq=False)
class Patch:
    """A restored face in its frame, ready to be pasted.

    Attributes:
        index: place from left to right.
        pixels: (512, 512, 3) RGB, dtype of the photo.
        mask: (512, 512) uint8, 255: all face.
        back: (2, 3) from the frame's pixels to the result's.
    """

    index: int
    pixels: Pixels
    mask: Mask
    back: Matrix


@dataclasses.dataclass(frozen=True, eq=False)
class Pasted:
    """What `paste` did.

    Attributes:
        places: of the faces that changed the result.
        layers: of the same faces, from which `blend_layers` makes the same result at any strength; empty when they
            were too large to be kept.
    """

    places: frozenset[int]
    layers: tuple[FaceLayer, ...]


@dataclasses.dataclass(frozen=True)
class Rectangle:
    """A part of the result, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def of(self, rgb: Pixels) -> Pixels:
        """That part of a picture (H, W, C), as a view (height, width, C) of the same dtype."""
        return rgb[self.top : self.top + self.height, self.left : self.left + self.width]


def rectangle_of(patch: Patch, size: tuple[int, int]) -> Rectangle | None:
    """The rectangle that holds every pixel the patch can change; None when that lies outside.

    Args:
        patch: what will be pasted.
        size: (height, width) of the result.
    """
    left, top, width, height = cv2.boundingRect(patch.mask)
    if width == 0:
        return None
    corners = frame_corners(patch.back, left - 1, top - 1, left + width, top + height)
    x0, y0 = (max(0, math.floor(value) - 1) for value in corners.min(axis=0))
    x1, y1 = (math.ceil(value) + 2 for value in corners.max(axis=0))
    x1, y1 = min(size[1], x1), min(size[0], y1)
    return Rectangle(x0, y0, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else None


def warp_patch(patch: Patch, rectangle: Rectangle) -> tuple[Pixels, Mask]:
    """The patch as it lies in the result: (h, w, 3) RGB of the photo's dtype and (h, w) uint8 mask of the rectangle."""
    pixels, mask, back = patch.pixels, patch.mask, patch.back
    factor = int(1 / scale_of(back))
    if factor >= 2:  # small in the result: average down first, or fine detail would turn into noise
        size = (pixels.shape[1] // factor, pixels.shape[0] // factor)
        steps = np.array([pixels.shape[1] / size[0], pixels.shape[0] / size[1]])
        pixels, mask = (cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in (pixels, mask))
        back = np.column_stack([back[:, :2] * steps, back[:, 2] + back[:, :2] @ ((steps - 1) / 2)])
    back = back - np.array([[0, 0, rectangle.left], [0, 0, rectangle.top]])
    target = (rectangle.width, rectangle.height)
    return cv2.warpAffine(pixels, back, target), cv2.warpAffine(mask, back, target)


def paste(result: Pixels, patches: list[Patch], strength: float, max_layers_bytes: int) -> Pasted:
    """Blend all patches into the result, in order, in place.

    Args:
        result: (H, W, 3) uint8 or uint16 RGB, the enlarged photo.
        patches: in the order of their index.
        strength: 0..1.
        max_layers_bytes: when the layers would take more, none is kept (the faces are pasted all the same).
    """
    found = [(patch, rectangle_of(patch, result.shape[:2])) for patch in patches]
    placed = [(patch, rectangle) for patch, rectangle in found if rectangle is not None]
    pixels = sum(rectangle.width * rectangle.height for _, rectangle in placed)
    keeps = pixels * (6 * result.itemsize + 1) <= max_layers_bytes
    before = [rectangle.of(result).copy() if keeps else None for _, rectangle in placed]
    layers = []
    for (patch, rectangle), under in zip(placed, before, strict=True):
        restored, mask = warp_patch(patch, rectangle)
        mix(rectangle.of(result), restored, mask, strength)
        if under is not None:
            layers.append(FaceLayer(patch.index, rectangle.left, rectangle.top, under, restored, mask))
    return Pasted(frozenset(patch.index for patch, _ in placed), tuple(layers))


def match_colours(restored: NDArray[np.float32], crop: Pixels, mask: Mask) -> None:
    """Shift the restored face's colours to the mean that the face had in the photo, in place.

    A restoring network gives every face a cast of its own, which shows against neck and hands. Only the mean moves,
    so the contrast that the network brought stays.

    Args:
        restored: (512, 512, 3) RGB in [0, 1].
        crop: (512, 512, 3) uint8 or uint16 RGB, the face before.
        mask: (512, 512) uint8, what counts; 0 where the crop shows nothing of the photo.
    """
    total = float(mask.sum())
    if total == 0:
        return
    weights = mask.astype(np.float32).ravel() / total
    peak = np.iinfo(crop.dtype).max
    shift = weights @ (crop.reshape(-1, 3).astype(np.float32) / peak) - weights @ restored.reshape(-1, 3)
    restored += np.clip(shift, -_MAX_SHIFT, _MAX_SHIFT)


def to_pixels(restored: NDArray[np.float32], dtype: np.dtype[Any], *, grey: bool) -> Pixels:
    """(512, 512, 3) float32 RGB in [0, 1] to integer pixels (uint8, uint16); a grey photo gets equal channels."""
    if grey:
        restored = np.repeat((restored @ np.array(LUMA, np.float32))[:, :, None], 3, axis=2)
    peak = np.iinfo(dtype).max
    pixels: Pixels = np.rint(np.clip(restored, 0, 1) * np.float32(peak)).astype(dtype)
    return pixels
