"""Real scans repaired, as sheets to look at: `python -m benchmarks.repaired_scans PHOTO ... --out FOLDER`.

Each photo becomes one PNG at 100 %: as it is, what is marked (red, inside faces yellow), and filled. With `--enlarge`
also the enlarged photo without and with repair, for each quality. With `--megapixels` it is made so large first,
bicubic, and with `--repeat` the time is the median of so many runs after the first.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.backends.local import LocalBackend, open_local_backend
from app.evaluation.views import as_rgb
from app.images import Decoder, ImageLimits, Picture
from app.images.damage_layer import DamageLayer
from app.options import Quality, Repair, RestoreOptions
from app.restoration.repair.repair import repair_photo
from app.restoration.setup import Setup

Rgb = NDArray[np.uint8]  # (H, W, 3)
MARKED, MARKED_IN_FACE = (230, 30, 30), (240, 200, 0)
GAP_PIXELS = 8
WHITE = 255


def main() -> None:
    """Read the command line, repair and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repaired_scans", description=__doc__)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--repair", choices=[mode.value for mode in Repair if mode is not Repair.OFF], default="auto")
    parser.add_argument("--enlarge", nargs="*", default=[], choices=[quality.value for quality in Quality])
    parser.add_argument("--scale", type=float, default=4.0)
    parser.add_argument("--megapixels", type=float)
    parser.add_argument("--repeat", type=int, default=0)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    setup, backend = Setup(asked.weights, device=asked.device), open_local_backend(asked.weights, device=asked.device)
    decoder = Decoder(ImageLimits(), follow_links=True)
    try:
        for path in asked.photos:
            picture = decoder.decode(path)
            if asked.megapixels is not None:
                picture = _sized(picture, asked.megapixels)
            _write(asked.out / f"{path.stem}.png", _repaired(setup, picture, asked.repair, asked.repeat))
            for quality in asked.enlarge:
                pair = [_enlarged(backend, picture, mode, quality, asked.scale) for mode in ("off", asked.repair)]
                _write(asked.out / f"{path.stem}-{quality}.png", pair)
    finally:
        decoder.close()


def sheet(pictures: Sequence[Rgb]) -> Rgb:
    """Pictures of one height beside each other with white between them, (H, W, 3) uint8."""
    gap = np.full((pictures[0].shape[0], GAP_PIXELS, 3), WHITE, np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], axis=1)


def marked(rgb: Rgb, damage: DamageLayer) -> Rgb:
    """A copy of the photo, (H, W, 3) uint8, with what was filled in red, and inside faces in yellow."""
    shown = rgb.copy()
    shown[damage.mask] = MARKED
    for x0, y0, x1, y1 in damage.faces:
        shown[y0:y1, x0:x1][damage.mask[y0:y1, x0:x1]] = MARKED_IN_FACE
    return shown


def _sized(picture: Picture, megapixels: float) -> Picture:
    """The photo with that many millions of pixels, in 8 bits and without transparency."""
    factor = math.sqrt(megapixels * 1e6 / (picture.width * picture.height))
    size = (round(picture.width * factor), round(picture.height * factor))
    rgb = cv2.resize(as_rgb(picture), size, interpolation=cv2.INTER_CUBIC)
    return dataclasses.replace(picture, rgb=np.asarray(rgb, dtype=np.uint8), alpha=None)


def _repaired(setup: Setup, picture: Picture, mode: str, repeat: int = 0) -> list[Rgb]:
    """As it is, marked, filled: at the photo's own size, without any network that enlarges."""
    detect = setup.face_models.open_detector()
    runs = [repair_photo(setup.repair_models.open(), picture, Repair(mode), detect=detect) for _ in range(repeat + 1)]
    repaired = runs[-1]
    seconds = statistics.median(run.seconds for run in runs[1:] or runs)
    print(f"{picture.width}x{picture.height} repaired in {seconds:.2f} s: {repaired.report}")
    rgb = as_rgb(picture)
    return [rgb, marked(rgb, repaired.damage), as_rgb(repaired.picture)]


def _enlarged(backend: LocalBackend, picture: Picture, mode: str, quality: str, scale: float) -> Rgb:
    options = RestoreOptions(repair=mode, quality=quality, scale=scale)
    result = backend.restore(picture, options, lambda fraction, stage: True)
    print(f"{quality}, repair {mode}: {result.seconds:.1f} s")
    return as_rgb(result.picture)


def _write(path: Path, pictures: Sequence[Rgb]) -> None:
    Image.fromarray(sheet(pictures)).save(path)
    print(path)


if __name__ == "__main__":
    main()
