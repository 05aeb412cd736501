"""How much a network gains over bicubic on photos it never saw: luma PSNR and SSIM, border 4, three kinds of input.

The conventions are those of the field (BasicSR). It knows nothing of training; any callable that enlarges four times
can be measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from app.evaluation.degradation import bicubic_down, bicubic_up, jpeg, noise
from app.evaluation.metrics import luma_psnr, luma_ssim
from training.degradation import SCALE

BORDER = 4
NOISE_SEED = 10
KINDS = ("clean", "jpeg50", "noise10_jpeg60")
Rgb = NDArray[np.uint8]
Enlarge = Callable[[Rgb], Rgb]


@dataclasses.dataclass(frozen=True)
class Gain:
    """One photo, one kind: the network's figures and those of bicubic on the same input."""

    psnr_db: float
    ssim: float
    bicubic_psnr_db: float
    bicubic_ssim: float

    @property
    def gain_db(self) -> float:
        """PSNR over bicubic."""
        return self.psnr_db - self.bicubic_psnr_db

    @property
    def gain_ssim(self) -> float:
        """SSIM over bicubic."""
        return self.ssim - self.bicubic_ssim


def cropped(photo: Rgb) -> Rgb:
    """The photo with sides that divide by the scale."""
    height, width = (side - side % SCALE for side in photo.shape[:2])
    return photo[:height, :width]


def make_input(photo: Rgb, kind: str) -> Rgb:
    """The small partner of a photo: bicubic, then what the kind says. Equal calls give equal pixels."""
    small = bicubic_down(photo, SCALE)
    if kind == "clean":
        return small
    if kind == "jpeg50":
        return jpeg(small, 50)
    return jpeg(noise(small, 10.0, seed=NOISE_SEED), 60)


def measure(photo: Rgb, kind: str, enlarge: Enlarge) -> Gain:
    """One photo, (H, W, 3) uint8 RGB, through one network."""
    photo = cropped(photo)
    small = make_input(photo, kind)
    plain, restored = bicubic_up(small, SCALE), enlarge(small)
    return Gain(
        luma_psnr(photo, restored, BORDER),
        luma_ssim(photo, restored, BORDER),
        luma_psnr(photo, plain, BORDER),
        luma_ssim(photo, plain, BORDER),
    )


def mean_gain_db(photos: Sequence[Rgb], kind: str, enlarge: Enlarge) -> float:
    """Mean PSNR over bicubic."""
    return float(np.mean([measure(photo, kind, enlarge).gain_db for photo in photos]))
