"""Pixels of more than 8 bits: Pillow keeps them for grey only, so OpenCV reads the others."""

from __future__ import annotations

from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image

from app.images.decode.channels import MAX_16_BIT, Channels, deep_colour, unsupported_depth

_PNG_GREY_ALPHA = 4


def deep_channels(image: Image.Image, file: BinaryIO) -> Channels | None:
    """The channels of a photo of more than 8 bits, or None for one of 8."""
    if image.mode.startswith("I;16") or image.mode == "I":
        return _deep_grey(image)
    if image.format == "PNG":
        depth, kind = _png_header(file)
        return deep_colour(_by_opencv(file), image, grey=kind == _PNG_GREY_ALPHA) if depth == 16 else None
    return None


def _by_opencv(file: BinaryIO) -> Any:
    """(H, W, 3 or 4) RGB or RGBA, or None if OpenCV cannot read the file as that."""
    file.seek(0)
    values = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3 or values.shape[2] not in (3, 4):
        return None
    return cv2.cvtColor(values, cv2.COLOR_BGRA2RGBA if values.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _png_header(file: BinaryIO) -> tuple[int, int]:
    """Bit depth and colour type."""
    file.seek(24)
    depth, kind = file.read(2)
    return depth, kind


def _deep_grey(image: Image.Image) -> Channels:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > MAX_16_BIT:
        raise unsupported_depth()
    grey = values.astype(np.uint16)
    transparent = image.info.get("transparency")
    alpha = np.where(grey == transparent, 0, MAX_16_BIT).astype(np.uint16) if isinstance(transparent, int) else None
    return Channels(grey, "L", alpha)
