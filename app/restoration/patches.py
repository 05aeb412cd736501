"""Restores a patch of a photo as the whole run would: with the context that the networks see, and whole faces.

The network runs over the patch and its context alone. Of the rest of the window, which is there for faces that reach
into the patch, a plain enlargement is enough: faces are restored from the photo and pasted.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.images import Box, PatchWindow, Picture
from app.options import output_size
from app.restoration.models.networks import Facts

RESAMPLING_MARGIN_PIXELS = 8  # Lanczos to the asked size reaches further pixels of the network's result
FACE_FRAME_SHARE = 0.6  # of a face's size, which its aligned frame reaches beyond the box


def core_of(patch: PatchWindow, facts: Facts) -> Box:
    """What the network has to see of the window, in its pixels: the patch and its context."""
    margin = facts.context + facts.blend + RESAMPLING_MARGIN_PIXELS
    return patch.inner.grown(margin, patch.window.width, patch.window.height)


def cut(picture: Picture, box: Box) -> Picture:
    """The part of a picture that lies in the box, a view."""
    return dataclasses.replace(picture, rgb=picture.rgb[box.top : box.bottom, box.left : box.right])


def scaled(box: Box, scale: float) -> Box:
    """The same box in the result's pixels."""
    left, top = round(box.left * scale), round(box.top * scale)
    width, height = output_size(box.width, box.height, scale)
    return Box(left, top, left + width, top + height)


def canvas_around(window: Picture, core: Box, upscaled: NDArray[Any], scale: float) -> NDArray[Any]:
    """The whole window enlarged plainly, (H', W', 3), with the network's result (h, w, 3) of the core in its place."""
    width, height = output_size(window.width, window.height, scale)
    canvas: NDArray[Any] = cv2.resize(window.rgb, (width, height), interpolation=cv2.INTER_CUBIC)
    place = scaled(core, scale)
    right, bottom = min(place.right, width), min(place.bottom, height)
    canvas[place.top : bottom, place.left : right] = upscaled[: bottom - place.top, : right - place.left]
    return np.ascontiguousarray(canvas)


def frame_of(box: tuple[float, float, float, float], width: int, height: int) -> Box:
    """What the restored face at this box may change, inside a picture of this size."""
    x0, y0, x1, y1 = box
    reach = FACE_FRAME_SHARE * max(x1 - x0, y1 - y0)
    left, top = max(0, int(x0 - reach)), max(0, int(y0 - reach))
    return Box(left, top, min(width, round(x1 + reach)), min(height, round(y1 + reach)))
