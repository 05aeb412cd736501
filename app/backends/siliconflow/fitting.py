"""The provider's picture fitted to the photo it was made from: the asked size, the photo's alpha, grey and metadata.

The provider answers in sizes of its own (about a megapixel, sides in steps), so geometry and contract are restored
here: a result is `scale` times the photo, like every other backend's.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.backends.siliconflow.preparation import srgb_bytes, to_bytes
from app.images import Picture
from app.notices import Notice
from app.options import output_size

GREY_STEPS = 12  # JPEG and a model's rounding tint a grey picture by a few steps of 255
GREY_SHARE = 0.99


def fit(photo: Picture, answer: Picture, scale: float) -> tuple[Picture, tuple[Notice, ...]]:
    """The provider's `answer` at `scale` times the `photo`'s size, in sRGB with 8 bits, and what the user must know."""
    size = output_size(photo.width, photo.height, scale)
    rgb = _resized(srgb_bytes(answer), size)
    grey = photo.grey and _is_grey(rgb)
    if grey:
        rgb = _as_grey(rgb)
    shape = None if photo.alpha is None else _resized(to_bytes(photo.alpha), size)
    fitted = dataclasses.replace(photo, rgb=rgb, alpha=shape, grey=grey, icc_profile=None, srgb_table=None, notes=())
    return fitted, tuple(_notices(photo, answer, size, grey))


def _notices(photo: Picture, answer: Picture, size: tuple[int, int], grey: bool) -> list[Notice]:
    notices = []
    if (answer.width, answer.height) != size:
        notices.append(
            Notice(
                "provider_size",
                f"The provider's picture has {answer.width} x {answer.height} pixels; "
                f"it was resampled to the asked {size[0]} x {size[1]}.",
            )
        )
    if photo.rgb.dtype.itemsize == 2:
        notices.append(Notice("provider_depth", "The provider works with 8 bits a channel; the photo had 16."))
    if photo.grey and not grey:
        notices.append(Notice("provider_colour", "The photo was grey, and the provider's picture has colours."))
    return notices


def _resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Lanczos; (H, W) or (H, W, 3) to `size` (width, height)."""
    image = Image.fromarray(pixels)
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.LANCZOS))


def _is_grey(rgb: NDArray[np.uint8]) -> bool:
    """Whether nearly all pixels are grey up to a slight tint."""
    spread = rgb.max(axis=2) - rgb.min(axis=2)
    return bool((spread <= GREY_STEPS).mean() >= GREY_SHARE)


def _as_grey(rgb: NDArray[np.uint8]) -> NDArray[Any]:
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    return np.repeat(grey[..., None], 3, axis=2)
