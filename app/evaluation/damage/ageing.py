"""What time and a scanner do to the whole picture: the print before it is damaged, and the scan of it afterwards.

A print is greyed, toned, faded, blurred and grained; a scan is blurred or sharpened, noisy and JPEG-compressed. Damage
lies between the two, so it has the scan's blur and noise and not the print's.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.evaluation.damage.layers import Print, Rng, Unit, clipped

MODERN_SHARE = 0.2  # of the prints, which are as sharp and as colourful as the photo itself
GREY_SHARE = 0.7
TONED_SHARE = 0.7  # of the grey ones
_PAPERS = ((0.97, 0.95, 0.90), (0.93, 0.86, 0.70), (0.82, 0.70, 0.50), (0.88, 0.78, 0.52), (0.76, 0.74, 0.70))
_BACKGROUNDS = ((0.98, 0.98, 0.98), (0.04, 0.04, 0.04), (0.10, 0.14, 0.09), (0.45, 0.45, 0.45))


def make_print(picture: Unit, rng: Rng, with_grain: bool = True) -> tuple[Unit, Print]:
    """A picture, (H, W, 3) float32 RGB in [0, 1], as an old print of the same shape, and the print's colours."""
    white, black = np.ones(3, np.float32), np.zeros(3, np.float32)
    if rng.random() < MODERN_SHARE:
        return picture, _colors(picture.shape[:2], white, black, rng)
    if rng.random() < GREY_SHARE:
        grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), dtype=np.float32)
        picture = np.repeat(grey[:, :, None], 3, axis=2)
        if rng.random() < TONED_SHARE:
            green = rng.uniform(0.8, 1.0)
            white = np.array([1.0, green, min(green, rng.uniform(0.45, 0.95))], np.float32)
            picture = picture ** np.array([1.0, rng.uniform(1.0, 1.25), rng.uniform(1.0, 1.5)], np.float32)
    if rng.random() < 0.6:
        black = (rng.uniform(0.0, 0.25) * np.array([1.0, rng.uniform(0.7, 1.0), rng.uniform(0.4, 1.0)])).astype(
            np.float32
        )
        white = white * np.float32(rng.uniform(0.65, 1.0))
    picture = black + (white - black) * picture
    if rng.random() < 0.6:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.3, 1.8))), dtype=np.float32)
    if with_grain and rng.random() < 0.6:
        picture = picture + _grain(picture.shape[:2], float(rng.uniform(0.003, 0.03)), rng)[:, :, None]
    return clipped(picture), _colors(picture.shape[:2], white, black, rng)


def _grain(shape: tuple[int, ...], strength: float, rng: Rng) -> NDArray[np.float32]:
    noise = rng.standard_normal(shape, np.float32)
    if rng.random() < 0.6:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), float(rng.uniform(0.4, 1.0))), dtype=np.float32)
    return noise * np.float32(strength / max(1e-3, float(noise.std())))


def _colors(shape: tuple[int, ...], white: NDArray[np.float32], black: NDArray[np.float32], rng: Rng) -> Print:
    """Paper between the print's own white and one of the tones of old paper; sometimes bright white."""
    way = rng.random()
    tone = np.asarray(_PAPERS[rng.integers(len(_PAPERS))])
    paper = 0.95 + 0.05 * white if way < 0.2 else white + rng.uniform(0.1, 0.9) * (tone * white.max() - white)
    paper = paper + rng.normal(0.0, 0.015, 3)
    background = np.asarray(_BACKGROUNDS[rng.integers(len(_BACKGROUNDS))]) + rng.normal(0.0, 0.02, 3)
    dark = black * rng.uniform(0.4, 1.0)
    return Print(shape[0], shape[1], clipped(paper), clipped(dark), clipped(background))


@dataclasses.dataclass(frozen=True)
class Scan:
    """One scanner: the optics, which both a damaged and an undamaged print are seen through, then noise and JPEG."""

    blur: float
    sharpening: float
    is_grey: bool
    noise: float
    quality: int

    def see(self, picture: Unit) -> Unit:
        """Optics alone: (H, W, 3) float32 in [0, 1] to the same, without noise, so that two results can be compared."""
        if self.blur > 0.0:
            picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), self.blur), dtype=np.float32)
        if self.sharpening > 0.0:
            soft = np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.2), dtype=np.float32)
            picture = picture + np.float32(self.sharpening) * (picture - soft)
        if self.is_grey:
            grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), dtype=np.float32)
            picture = np.repeat(grey[:, :, None], 3, axis=2)
        return clipped(picture)

    def store(self, seen: Unit, rng: Rng) -> NDArray[np.uint8]:
        """What `see` gave with noise and through JPEG: (H, W, 3) uint8 RGB."""
        if self.noise > 0.0:
            channels = 1 if self.is_grey or rng.random() < 0.5 else 3
            noise = rng.standard_normal((*seen.shape[:2], channels), np.float32)
            seen = seen + np.float32(self.noise) * noise
        pixels = np.asarray(np.clip(np.rint(seen * 255.0), 0, 255), dtype=np.uint8)
        if self.quality >= 100:
            return pixels
        _, data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        stored: Any = cv2.imdecode(data, cv2.IMREAD_COLOR)
        return np.asarray(np.ascontiguousarray(stored[:, :, ::-1]), dtype=np.uint8)


def choose_scan(rng: Rng) -> Scan:
    """A scanner and its settings by chance."""
    return Scan(
        blur=float(rng.uniform(0.3, 0.9)) if rng.random() < 0.55 else 0.0,
        sharpening=float(rng.uniform(0.2, 1.2)) if rng.random() < 0.3 else 0.0,
        is_grey=bool(rng.random() < 0.12),
        noise=float(rng.uniform(0.0, 0.018)) if rng.random() < 0.6 else 0.0,
        quality=int(rng.integers(50, 98)) if rng.random() < 0.85 else 100,
    )
