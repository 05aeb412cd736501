"""The golden image: a small picture with a known answer, which proves that the real network computes what it should.

The answer needs no stored file: every upscaling network, shrunk back to the size it was given, must give the picture it
was given.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from app.images import Picture

SIDE_PIXELS = 96
# Measured: realesr-general-x4v3 36.5 dB, realesr-animevideov3 31.7 dB, in fp32 as in bf16; channels mixed up 8 dB,
# moved by two pixels of the input 20 dB.
MIN_PSNR_DB = 24.0


@dataclasses.dataclass(frozen=True)
class Similarity:
    """How near a result is: PSNR in dB against the golden image after shrinking, and whether it may pass."""

    psnr_db: float
    passed: bool


def make_golden() -> Picture:
    """A 96 x 96 picture, uint8 RGB: colour ramps that differ by channel, a disc and a bar with sharp edges."""
    ramp = np.linspace(40.0, 215.0, SIDE_PIXELS)
    rows, columns = np.mgrid[0:SIDE_PIXELS, 0:SIDE_PIXELS]
    pixels = np.stack([ramp[columns], ramp[rows], ramp[::-1][columns]], axis=2)
    disc = (rows - 36) ** 2 + (columns - 40) ** 2 < 20**2
    pixels[disc] = (210.0, 60.0, 50.0)
    pixels[70:82, 16:80] = (30.0, 60.0, 190.0)
    return Picture(np.ascontiguousarray(pixels.round().astype(np.uint8)))


def compare(result: Picture, golden: Picture) -> Similarity:
    """Shrink `result` (an exact multiple of the golden size, else it fails) by averaging, and compare."""
    scale = result.width // golden.width
    if scale < 1 or (result.height, result.width) != (golden.height * scale, golden.width * scale):
        return Similarity(0.0, passed=False)
    psnr = _psnr_db(_shrink(result.rgb.astype(np.float64), scale), golden.rgb.astype(np.float64))
    return Similarity(psnr, passed=psnr >= MIN_PSNR_DB)


def _shrink(pixels: NDArray[np.float64], scale: int) -> NDArray[np.float64]:
    """Mean over squares of `scale` pixels."""
    height, width, channels = pixels.shape
    blocks = pixels.reshape(height // scale, scale, width // scale, scale, channels)
    return np.asarray(blocks.mean(axis=(1, 3)))


def _psnr_db(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Peak signal-to-noise ratio for values in [0, 255]; 100 for equal pictures."""
    error = float(np.mean((a - b) ** 2))
    return 100.0 if error == 0.0 else float(10.0 * np.log10(255.0**2 / error))
