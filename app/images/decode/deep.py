"""Pixels of more than 8 bits: Pillow keeps them for grey only, so OpenCV reads the others."""

from __future__ import annotations

from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image

from app.images import alpha as alpha_channel
from app.images.decode.channels import MAX_16_BIT, Channels, deep_colour, unsupported_depth

_PNG_GREY_ALPHA = 4
_BITS = 16


def deep_channels(image: Image.Image, file: BinaryIO, bits: int) -> Channels | None:
    """The channels of a photo of more than 8 bits, or None for one of 8; `bits` is what boxes of AVIF say, or 0."""
    if image.mode.startswith("I;16") or image.mode == "I":
        return _deep_grey(image)
    if image.format == "PNG":
        depth, kind = _png_header(file)
        return deep_colour(_by_opencv(file), image, grey=kind == _PNG_GREY_ALPHA) if depth == _BITS else None
    if image.format == "AVIF" and _BITS > bits > _BITS // 2:
        values = _by_opencv(file)
        return deep_colour(None if values is None else _full_range(values, bits), image, grey=image.mode == "L")
    return None


def heic_channels(file: BinaryIO) -> Channels:
    """The channels of a HEIC of more than 8 bits; its plugin gives Pillow 8 of them only."""
    import pillow_heif

    file.seek(0)
    image = pillow_heif.open_heif(file, convert_hdr_to_8bit=False)
    bits = int(image.info["bit_depth"])
    values = np.asarray(image)
    values = _full_range(values >> np.uint16(_BITS - bits), bits)
    if values.ndim == 2:
        return Channels(values, "L")
    alpha = np.ascontiguousarray(values[..., 3]) if values.shape[2] == 4 else None
    channels = Channels(np.ascontiguousarray(values[..., :3]), "RGB", alpha)
    if alpha is not None and image.premultiplied_alpha:
        alpha_channel.unmultiply(channels.colour, alpha)
    return channels


def _full_range(values: Any, bits: int) -> Any:
    """uint16 of fewer bits over all 16: the highest bits again behind the lowest."""
    return values << np.uint16(_BITS - bits) | values >> np.uint16(2 * bits - _BITS)


def _by_opencv(file: BinaryIO) -> Any:
    """(H, W, 3 or 4) RGB or RGBA, or None if OpenCV cannot read the file as that; grey comes as three equal colours."""
    file.seek(0)
    values = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        return None
    if values.ndim == 2:
        return cv2.cvtColor(values, cv2.COLOR_GRAY2RGB)
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
