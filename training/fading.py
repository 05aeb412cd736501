"""Fits and measures the regression of `app.restoration.colour_correction`: photos are faded by drawn numbers, and the
values that they had are predicted from what is left of them.

`python -m training.fading --photos FOLDER` writes the coefficients and prints the figures of the held-out tenth.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from skimage import color

from app.images import Picture
from app.restoration.colour_correction import (
    COEFFICIENTS_FILE,
    SIDE_PIXELS,
    Fading,
    correct_colours,
    quantiles_of,
    statistics,
    to_density,
    to_values,
)
from training.photos import read_rgb, split

FADES_PER_PHOTO = 16
UNFADED_SHARE, BORDER_SHARE = 0.4, 0.3
RIDGE = 60.0
SEED = 20261125
CASES = {
    "magenta": Fading((0.55, 0.85, 0.7), (0.02, 0.03, 0.10)),
    "red": Fading((0.5, 0.8, 0.8), (0.0, 0.05, 0.1)),
    "washed out": Fading((0.6, 0.6, 0.6), (0.05, 0.05, 0.08)),
    "light loss of cyan": Fading((0.75, 0.9, 0.85), (0.0, 0.02, 0.05)),
    "yellowed": Fading((0.85, 0.85, 0.8), (0.03, 0.05, 0.22)),
    "heavily yellowed": Fading((0.8, 0.8, 0.75), (0.04, 0.1, 0.4)),
}


@dataclasses.dataclass(frozen=True)
class Figures:
    """Mean colour differences (CIE 1976) to the photo as it was; `worse` counts photos that lost by the correction."""

    before: float
    after: float
    worst_after: float
    worse: int


def fade(rgb: NDArray[np.uint8], fading: Fading) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, faded; the same shape. Nothing is lost where nothing faded, not even the deepest blacks."""
    if fading.is_none:
        return rgb
    density = np.minimum(to_density(rgb / 255.0), 2.2)
    faded = to_values(density * np.array(fading.contrast) + np.array(fading.stain))
    return (faded * 255).round().astype(np.uint8)


def draw_fading(random: np.random.Generator) -> Fading:
    """Nothing for some; else dyes that lost contrast together and each on its own, and a stain, blue most."""
    if random.random() < UNFADED_SHARE:
        return Fading()
    contrast = np.clip(random.uniform(0.55, 1) * random.uniform(0.7, 1.15, 3), 0.4, 1.05)
    if random.random() < 0.6:
        contrast[random.integers(3)] *= random.uniform(0.65, 1)
    stain = (random.uniform(0, 0.06), random.uniform(0, 0.08), 0.45 * random.beta(1, 2))
    return Fading(tuple(map(float, contrast)), tuple(map(float, stain)))  # type: ignore[arg-type]


def fit(photos: list[NDArray[np.uint8]], seed: int = SEED) -> dict[str, NDArray[np.float32]]:
    """Ridge regression from statistics to the change of the percentiles; the coefficients as the file holds them."""
    random = np.random.default_rng(seed)
    rows, changes = [], []
    for photo in photos:
        for _ in range(FADES_PER_PHOTO):
            clean = _with_border(photo, random)
            faded = fade(clean, draw_fading(random)).reshape(-1, 3) / 255.0
            rows.append(statistics(faded))
            changes.append(quantiles_of(clean.reshape(-1, 3) / 255.0) - quantiles_of(faded))
    x, y = np.array(rows), np.array(changes)
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6
    system = np.concatenate([np.ones((len(x), 1)), np.clip((x - mean) / deviation, -3, 3)], axis=1)
    weights = np.linalg.solve(system.T @ system + RIDGE * np.eye(system.shape[1]), system.T @ y)
    found = {"mean": mean, "deviation": deviation, "weights": weights}
    return {name: values.astype(np.float32) for name, values in found.items()}


def measure(photos: list[NDArray[np.uint8]], fading: Fading) -> Figures:
    """Colour differences before and after the correction, over photos that all faded alike."""
    before, after = [], []
    for photo in photos:
        faded = fade(photo, fading)
        corrected, _ = correct_colours(Picture(faded), 1.0)
        before.append(_difference(photo, faded))
        after.append(_difference(photo, corrected.rgb))
    worse = sum(b < a for b, a in zip(before, after, strict=True))
    return Figures(float(np.mean(before)), float(np.mean(after)), max(after), worse)


def _difference(first: NDArray[Any], second: NDArray[Any]) -> float:
    return float(np.linalg.norm(color.rgb2lab(first) - color.rgb2lab(second), axis=2).mean())


def _with_border(rgb: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """For some, a white border as prints have it; it fades with the rest."""
    if random.random() >= BORDER_SHARE:
        return rgb
    side = int(random.integers(3, 12))
    bordered: Any = cv2.copyMakeBorder(rgb, side, side, side, side, cv2.BORDER_CONSTANT, value=(250, 250, 250))
    return bordered  # type: ignore[no-any-return]


def _read(paths: list[Path], side: int) -> list[NDArray[np.uint8]]:
    photos = []
    for path in paths:
        rgb = read_rgb(path)
        factor = side / max(rgb.shape[:2])
        photos.append(cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA).astype(np.uint8))
    return photos


def main() -> None:
    """Fit, write and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder with photos, split by their names")
    parser.add_argument("--out", type=Path, default=COEFFICIENTS_FILE, help="where the coefficients go")
    asked = parser.parse_args()
    seen, unseen = split(asked.photos)
    save_file(fit(_read(seen, SIDE_PIXELS)), asked.out, {"photos": str(len(seen)), "seed": str(SEED)})
    held_out = _read(unseen, 256)
    for name, fading in {"not faded": Fading(), **CASES}.items():
        sys.stdout.write(f"{name:20} {measure(held_out, fading)}\n")


if __name__ == "__main__":
    main()
