"""A backend that finds two faces in every photo: it enlarges, and lays hand-made layers where networks would paste.

The layers are real data of known values, so that a test can say what every pixel of a blend must be.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np

from app.errors import Cancelled
from app.images import Picture
from app.images.face_layers import FaceLayer, blend_layers
from app.options import RestoreOptions
from app.results import RestorationResult
from app.stages import OnProgress, Stage

# Left, top and side in the result's pixels at scale 2 of a photo of 40 x 30 or more; the two overlap.
PLACES = ((4, 6, 24), (20, 14, 30))


class FaceBackend:
    """Two restored faces and a third that is too small, in every photo whose prompt does not say `no faces`."""

    name = "local"

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """See `app.backends.protocol.Backend`."""
        if not on_progress(0.5, Stage.UPSCALING):
            raise Cancelled
        size = (round(picture.width * options.scale), round(picture.height * options.scale))
        rgb = cv2.resize(picture.rgb, size, interpolation=cv2.INTER_LANCZOS4)
        alpha = None if picture.alpha is None else cv2.resize(picture.alpha, size, interpolation=cv2.INTER_LINEAR)
        found = options.prompt != "no faces"
        layers = tuple(face_layer(rgb, index, picture.grey) for index in range(len(PLACES))) if found else ()
        strengths = {layer.index: options.face_strength for layer in layers}
        blended = dataclasses.replace(picture, rgb=blend_layers(rgb, layers, strengths), alpha=alpha)
        rows = face_rows(options.face_strength) if found else ()
        return RestorationResult(blended, "lanczos", 0.01, {"device": "cpu"}, faces=rows, face_layers=layers)


def face_layer(rgb: Any, index: int, grey: bool = False) -> FaceLayer:
    """One face of a plain colour, with a feathered mask, over a picture."""
    left, top, side = PLACES[index]
    before = rgb[top : top + side, left : left + side].copy()
    peak = np.iinfo(rgb.dtype).max
    colour = (0.5, 0.5, 0.5) if grey else ((0.9, 0.1, 0.1), (0.1, 0.2, 0.9))[index]
    restored = np.empty_like(before)
    restored[...] = np.round(np.array(colour) * peak)
    mask = np.zeros((side, side), np.uint8)
    mask[2:-2, 2:-2] = 128
    mask[5:-5, 5:-5] = 255
    return FaceLayer(index, left, top, before, restored, mask)


def face_rows(strength: float) -> tuple[dict[str, Any], ...]:
    """What the backend reports of its faces."""
    rows: list[dict[str, Any]] = []
    for index, (left, top, side) in enumerate(PLACES):
        box = [left / 2, top / 2, (left + side) / 2, (top + side) / 2]
        facts = {"index": index, "box": box, "score": 0.99, "size": side / 2}
        rows.append({**facts, "restored": True, "reason": None, "strength": strength})
    small = {"index": 2, "box": [1.0, 1.0, 3.0, 3.0], "score": 0.8, "size": 2.0}
    rows.append({**small, "restored": False, "reason": "too_small", "strength": strength})
    return tuple(rows)
