"""A file's pixels before orientation and colour: `Channels`, and how an image that Pillow has loaded gives them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from PIL import Image

from app.errors import RestoreError, Unprocessable
from app.images.header import undecodable
from app.images.picture import Pixels
from app.notices import NoticeKind, say

MAX_16_BIT = 65535
DEPTH_LOST = say(NoticeKind.DEPTH_LOST, "The photo's 16-bit colours could be read with 8 bits only.")
_PLAIN_MODES = {"1": "L", "PA": "RGBA", "RGBa": "RGBA", "La": "LA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB"}


@dataclasses.dataclass(frozen=True)
class Channels:
    """What a file's pixels are before orientation and colour: `colour` is (H, W) or (H, W, C) in `mode`."""

    colour: Pixels
    mode: str
    alpha: Pixels | None = None
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """Turn whatever a decoder throws at a broken file into a `RestoreError`."""
    try:
        yield
    except RestoreError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, cv2.error) and "memory" in str(error).lower()):
            raise Unprocessable(
                "decode_memory", "The photo needs more memory than a photo may; make it smaller and send it again."
            ) from error
        raise undecodable() from error


def plain_channels(image: Image.Image) -> Channels:
    """The 8-bit channels of a loaded image; transparent colours and palettes become an alpha channel."""
    mode = image.mode
    transparent = "transparency" in image.info
    if mode == "P" or (mode == "RGB" and transparent):
        image = image.convert("RGBA" if transparent else "RGB")
    elif mode in ("1", "L") and transparent:
        image = image.convert("LA")
    elif mode in _PLAIN_MODES:
        image = image.convert(_PLAIN_MODES[mode])
    values = np.asarray(image)
    if image.mode == "LA":
        return Channels(values[..., 0].copy(), "L", values[..., 1].copy())
    if image.mode == "RGBA":
        return Channels(values[..., :3].copy(), "RGB", values[..., 3].copy())
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return Channels(values.copy(), image.mode)
    raise unsupported_depth()


def unsupported_depth() -> Unprocessable:
    """The error for samples that are neither 8- nor 16-bit, nor can be brought there."""
    return Unprocessable(
        "unsupported_depth", "The photo's numbers are neither 8- nor 16-bit; save it with 8 or 16 bits a channel."
    )


def deep_colour(values: Any, image: Image.Image, *, grey: bool = False) -> Channels:
    """Split RGB(A) into colour and alpha; `grey` says that the three colours are one."""
    size = (image.height, image.width)
    if values is None or values.dtype != np.uint16 or values.shape[:2] != size:
        return dataclasses.replace(plain_channels(image), notes=(DEPTH_LOST,))
    alpha = values[..., 3].copy() if values.shape[2] == 4 else None
    if grey:
        return Channels(values[..., 0].copy(), "L", alpha)
    return Channels(np.ascontiguousarray(values[..., :3]), "RGB", alpha)


def turn(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation to (H, W) or (H, W, C) pixels; the result is contiguous."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    contiguous: Any = np.ascontiguousarray(pixels)
    return contiguous  # type: ignore[no-any-return]
