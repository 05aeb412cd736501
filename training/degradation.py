"""What makes a clean photo a bad small one: the pairs a network learns from.

Three kinds: clean (bicubic alone), light (one reduction, some noise, JPEG: what most people's photos have) and second
order (blur, resize, noise and JPEG twice, with sinc ringing: Real-ESRGAN, arXiv:2107.10833, section 3, ranges of
`options/train_realesrnet_x4plus.yml`). Kernels and noise come from basicsr. Our ranges are scaled to `strength`,
since a network that must stay true to the photo should not learn to repaint. It knows nothing of files or networks.
"""

from __future__ import annotations

import math
import random
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.restoration.reference.packages import add_shim

SCALE = 4
KINDS = ("clean", "light", "second_order")
SHARES = (0.32, 0.52, 0.16)

_KERNELS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
_KERNEL_SHARES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
_KERNEL_SIZES = tuple(range(7, 22, 2))
_RESIZES = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)

Unit = NDArray[np.float32]  # (H, W, 3) RGB in [0, 1]


def degrade(photo: NDArray[np.uint8], kind: str, rng: random.Random) -> NDArray[np.uint8]:
    """One low-resolution partner of a photo.

    Args:
        photo: (4h, 4w, 3) uint8 RGB.
        kind: one of `KINDS`.
        rng: chooses what `random` and `numpy.random`, which basicsr draws from, do not.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    height, width = photo.shape[0] // SCALE, photo.shape[1] // SCALE
    if kind == "clean":
        return _bicubic(photo, width, height)
    if kind == "light":
        return _light(photo, width, height, rng)
    return _second_order(photo, width, height, rng)


def basicsr_degradations() -> ModuleType:
    """basicsr's own module, with the import shim it needs (BSD-3-Clause and Apache-2.0, the package's licences)."""
    add_shim()
    from basicsr.data import degradations

    module: ModuleType = degradations
    return module


def _bicubic(photo: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Antialiased bicubic (a = -0.5), MATLAB's `imresize` up to rounding."""
    return np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC), dtype=np.uint8)


def _light(photo: NDArray[np.uint8], width: int, height: int, rng: random.Random) -> NDArray[np.uint8]:
    way = rng.choices(
        (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BOX, Image.Resampling.BILINEAR),
        (0.7, 0.1, 0.1, 0.1),
    )[0]
    small = np.asarray(Image.fromarray(photo).resize((width, height), way), dtype=np.uint8)
    with_noise, with_jpeg = rng.choices(((True, True), (False, True), (True, False)), (0.45, 0.4, 0.15))[0]
    if with_noise:
        small = _noisy_eight_bit(small, rng)
    return _jpeg(small, rng.randint(35, 95), rng) if with_jpeg else small


def _noisy_eight_bit(small: NDArray[np.uint8], rng: random.Random) -> NDArray[np.uint8]:
    """Gaussian noise of sigma 1 to 16 of 255, coloured or grey."""
    depth = 1 if rng.random() < 0.3 else 3
    noise = np.random.normal(0.0, rng.uniform(1.0, 16.0), (*small.shape[:2], depth))
    return np.clip(np.rint(small + noise), 0, 255).astype(np.uint8)


def _second_order(photo: NDArray[np.uint8], width: int, height: int, rng: random.Random) -> NDArray[np.uint8]:
    strength = rng.uniform(0.2, 0.8)
    picture = photo.astype(np.float32) / 255.0
    picture = _blur(picture, 0.2, 0.2 + 2.8 * strength, sinc_share=0.1, rng=rng)
    picture = _resized(picture, _random_factor(rng, 0.3, 1.3))
    picture = _noisy(picture, sigma=1 + 29 * strength, poisson=0.05 + 2.95 * strength, rng=rng)
    picture = _as_unit(_jpeg(_as_eight_bit(picture), rng.randint(round(95 - 65 * strength), 95), rng))
    if rng.random() < 0.8:
        picture = _blur(picture, 0.2, 0.2 + 1.3 * strength, sinc_share=0.1, rng=rng)
    picture = _resized(picture, _random_factor(rng, 0.4, 1.2))
    picture = _noisy(picture, sigma=1 + 24 * strength, poisson=0.05 + 2.45 * strength, rng=rng)
    return _last_step(picture, width, height, rng.randint(round(95 - 65 * strength), 95), rng)


def _last_step(picture: Unit, width: int, height: int, quality: int, rng: random.Random) -> NDArray[np.uint8]:
    """Back to the wanted size, a sinc filter and JPEG, in either order (section 3.4 of the paper)."""
    way = rng.choice(_RESIZES)
    if rng.random() < 0.5:
        small = _sinc(cv2.resize(picture, (width, height), interpolation=way), rng)
        return _jpeg(_as_eight_bit(small), quality, rng)
    squeezed = _as_unit(_jpeg(_as_eight_bit(picture), quality, rng))
    return _as_eight_bit(_sinc(cv2.resize(squeezed, (width, height), interpolation=way), rng))


def _blur(picture: Unit, low: float, high: float, *, sinc_share: float, rng: random.Random) -> Unit:
    size = rng.choice(_KERNEL_SIZES)
    if rng.random() < sinc_share:
        kernel = basicsr_degradations().circular_lowpass_kernel(rng.uniform(math.pi / 3, math.pi), size)
    else:
        kernel = basicsr_degradations().random_mixed_kernels(
            _KERNELS, _KERNEL_SHARES, size, (low, high), (low, high), (-math.pi, math.pi), (0.5, 4.0), (1.0, 2.0)
        )
    return _filtered(picture, kernel)


def _sinc(picture: Unit, rng: random.Random) -> Unit:
    if rng.random() > 0.4:
        return picture
    kernel = basicsr_degradations().circular_lowpass_kernel(
        rng.uniform(math.pi / 2, math.pi), rng.choice((7, 9, 11, 13))
    )
    return _filtered(picture, kernel)


def _filtered(picture: Unit, kernel: NDArray[Any]) -> Unit:
    blurred = cv2.filter2D(picture, -1, kernel.astype(np.float32), borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, dtype=np.float32)


def _random_factor(rng: random.Random, smallest: float, largest: float) -> float:
    way = rng.choices(("up", "down", "keep"), (0.2, 0.6, 0.2))[0]
    return {"up": rng.uniform(1.0, largest), "down": rng.uniform(smallest, 1.0), "keep": 1.0}[way]


def _resized(picture: Unit, factor: float) -> Unit:
    if factor == 1.0:
        return picture
    size = (max(16, round(picture.shape[1] * factor)), max(16, round(picture.shape[0] * factor)))
    return np.asarray(cv2.resize(picture, size, interpolation=random.choice(_RESIZES)), dtype=np.float32)


def _noisy(picture: Unit, *, sigma: float, poisson: float, rng: random.Random) -> Unit:
    noise = basicsr_degradations()
    picture = np.clip(picture, 0.0, 1.0)
    if rng.random() < 0.5:
        added = noise.random_add_gaussian_noise(picture, (1.0, sigma), gray_prob=0.4)
    else:
        added = noise.random_add_poisson_noise(picture, (0.05, poisson), gray_prob=0.4)
    return np.asarray(added, dtype=np.float32)


def _jpeg(picture: NDArray[np.uint8], quality: int, rng: random.Random) -> NDArray[np.uint8]:
    """Through JPEG and back, mostly with halved colour as cameras and phones write it."""
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if rng.random() < 0.75 else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    _, data = cv2.imencode(".jpg", picture[:, :, ::-1], options)
    back: Any = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(back[:, :, ::-1], dtype=np.uint8)


def _as_eight_bit(picture: Unit) -> NDArray[np.uint8]:
    return np.asarray(np.clip(np.rint(picture * 255.0), 0, 255), dtype=np.uint8)


def _as_unit(picture: NDArray[np.uint8]) -> Unit:
    return picture.astype(np.float32) / 255.0
