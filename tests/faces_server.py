"""A server process for the dashboard's tests: the real service around a backend whose work takes as long as asked.

The backend enlarges with Lanczos and says that it found three faces, with real layers for two of them, so that the
strip of faces can be tried without a face model. Run as `python -m tests.faces_server FOLDER DASHBOARD_PORT SECONDS
KEY SETTINGS`, with the seconds that a strip of a photo takes; the key may be empty, the settings are JSON.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from pathlib import Path

import numpy as np

from app.images import Picture, Pixels
from app.images.face_layers import FaceLayer, blend_layers
from app.main import create_app, serve, serving
from app.notices import Notice
from app.options import RestoreOptions
from app.results import RestorationResult
from app.stages import OnProgress
from tests.http_service import describe, free_port, settings_for
from tests.lanczos_server import SlowBackend

# left, top, right, bottom as fractions of the photo; the last one is said to be too small
BOXES = ((0.12, 0.2, 0.42, 0.7), (0.55, 0.15, 0.85, 0.65), (0.9, 0.8, 0.94, 0.88))


class FacedBackend(SlowBackend):
    """Finds three faces in every photo, and restores two of them by brightening."""

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """See `Backend`. Photos of less than 60 pixels have no faces."""
        restored = super().restore(picture, options, on_progress)
        if not options.face_enhance or picture.width < 60:
            return restored
        layers = tuple(_layer(index, restored.picture) for index in range(2))
        rows = [_row(index, picture, options) for index in range(3)]
        strengths = dict.fromkeys(range(2), options.face_strength)
        rgb = blend_layers(restored.picture.rgb, layers, strengths)
        note = Notice("stand_in", "The faces of this test were only brightened.")
        return dataclasses.replace(
            restored,
            picture=dataclasses.replace(restored.picture, rgb=rgb),
            faces=tuple(rows),
            face_layers=layers,
            warnings=(note,),
        )


def _row(index: int, picture: Picture, options: RestoreOptions) -> dict[str, object]:
    left, top, right, bottom = BOXES[index]
    box = [
        round(share * side, 1) for share, side in zip(BOXES[index], [picture.width, picture.height] * 2, strict=True)
    ]
    small = index == len(BOXES) - 1
    return {
        "index": index,
        "box": box,
        "score": 0.99,
        "size": round(max((right - left) * picture.width, (bottom - top) * picture.height)),
        "restored": not small,
        "reason": "too_small" if small else None,
        "strength": 0.0 if small else options.face_strength,
    }


def _layer(index: int, result: Picture) -> FaceLayer:
    left, top, right, bottom = (
        round(share * side) for share, side in zip(BOXES[index], [result.width, result.height] * 2, strict=True)
    )
    before: Pixels = result.rgb[top:bottom, left:right].copy()
    restored: Pixels = (255 - (255 - before) // 3).astype(np.uint8)
    mask = np.zeros(before.shape[:2], np.uint8)
    mask[2:-2, 2:-2] = 255
    return FaceLayer(index, left, top, before, restored, mask)


def main() -> None:
    """Serve until a signal."""
    folder, dashboard_port, seconds, key, more = sys.argv[1:]
    backend = FacedBackend(float(seconds))
    serving.create_app = functools.partial(create_app, backends={"local": backend}, describe=describe)  # type: ignore[attr-defined]
    changes = {
        "port": free_port(),
        "dashboard_port": int(dashboard_port),
        "queue_limit": 400,
        "key": key,
        **json.loads(more),
    }
    serve(settings_for(Path(folder), **changes), banner=lambda facts: print("loaded", facts["device"], flush=True))


if __name__ == "__main__":
    main()
