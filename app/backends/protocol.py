"""The backend border: a `Picture` and options go in, a `Restored` comes out, and progress is the only voice between.

It knows nothing of rows, files or HTTP. `local.py` and later backends stand behind it; `runner` is the caller.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from app.images import Picture
from app.images.face_layers import FaceLayer
from app.options import RestoreOptions

# The stage a backend names once, before a call that costs money and cannot be taken back. True then means that the
# caller has it on record, so that the call is never made twice unnoticed; it may also raise a `RestoreError`.
SENDING = "sending"


class OnProgress(Protocol):
    """Called at least once a tile, and whenever the stage changes, from the thread that runs the restoration."""

    def __call__(self, fraction: float, stage: str) -> bool:
        """Take `fraction` done in [0, 1] and a stage word (loading, upscaling, faces, `SENDING`, provider).

        Returns False to ask the backend to stop; it then raises `errors.Cancelled` within one tile.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Notice:
    """A warning for the user: a stable code and a plain sentence (a fallback is never silent)."""

    code: str
    message: str


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a backend gives back.

    Attributes:
        picture: the result, same dtype, alpha, grey and colour profile as the input; `scale` times larger.
        model: name of the model that really ran.
        seconds: time of the restoration alone, without decoding and encoding.
        params: facts for the record (device, precision, tile size, ...), JSON-ready.
        faces: one JSON-ready row per face found, from left to right: index, box ([x0, y0, x1, y1] in the photo's own
            pixels), score, size (longer side of the box, pixels), restored, reason (why not), strength.
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


class Backend(Protocol):
    """One way to restore a picture; safe to call from as many threads at once as the worker gives its lane."""

    name: str

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> Restored:
        """Restore one picture. Raises `errors.RestoreError`, or `errors.Cancelled` when asked to stop."""
        ...
