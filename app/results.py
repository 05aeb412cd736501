"""What a restoration gives back, whichever backend or engine made it, and why a face was left as it was."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from app.images import Picture
from app.images.damage_layer import DamageLayer
from app.images.face_layers import FaceLayer
from app.notices import Notice


class FaceReason(enum.StrEnum):
    """Why a face that was found is not restored. The dashboard's table of words is held against this by a test."""

    TOO_SMALL = "too_small"
    TOO_MANY = "too_many"
    NOT_ALIGNED = "not_aligned"  # its landmarks give no similarity transform
    FAILED = "failed"  # the network gave no finite numbers
    NOTHING_TO_PASTE = "nothing_to_paste"  # no pixel of it is inside the segmentation mask


@dataclasses.dataclass(frozen=True)
class RestorationResult:
    """A restored picture and how it came about.

    Attributes:
        picture: the result, same dtype, alpha, grey and colour profile as the input; `scale` times larger.
        model: name of the model that really ran.
        seconds: time of the restoration alone, without decoding and encoding.
        params: facts for the record (device, precision, tile size, ...), JSON-ready.
        faces: one JSON-ready row per face found, from left to right: index, box ([x0, y0, x1, y1] in the photo's own
            pixels), score, size (longer side of the box, pixels), restored, reason (a `FaceReason`), strength.
        damage: what was found and filled before enlarging; None where `repair` was off.
        face_layers: what was pasted, so that it can be blended again at another strength; one per restored face.
        warnings: what the user must know.
    """

    picture: Picture
    model: str
    seconds: float
    params: Mapping[str, Any]
    faces: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[Notice, ...] = ()
    face_layers: tuple[FaceLayer, ...] = ()
    damage: DamageLayer | None = None
