"""Pixels of more than 8 bits: Pillow keeps them for grey only, so a second reader gives the others."""

from __future__ import annotations

from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image

from app.images import alpha as alpha_channel
from app.images.decode.channels import MAX_16_BIT, Channels, deep_colour, turn, unsupported_depth
from app.images.metadata import exif

try:
    import tifffile
except ImportError:  # where only torch and the model packages are; nothing but a TIFF in separate planes needs it
    tifffile = None

_PNG_GREY_ALPHA = 4
_BITS_TAG, _PHOTOMETRIC_TAG, _PLANES_TAG, _EXTRA_SAMPLES_TAG, _SAMPLE_FORMAT_TAG = 258, 262, 284, 338, 339
_SEPARATE_PLANES = 2
_WHITE_IS_ZERO, _RGB_PHOTOMETRIC, _PREMULTIPLIED = 0, 2, 1


def deep_channels(image: Image.Image, file: BinaryIO, orientation: int) -> Channels | None:
    """The channels of a photo of more than 8 bits, or None; Pillow keeps 16 bits for grey only.

    `orientation` is that of a TIFF, which Pillow has already applied to its own pixels.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _deep_grey(image)
    if image.format == "PNG":
        depth, kind = _png_header(file)
        return deep_colour(_by_opencv(file), image, grey=kind == _PNG_GREY_ALPHA) if depth == 16 else None
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_TAG, ())
    integers = set(tags.get(_SAMPLE_FORMAT_TAG, (1,))) == {1}
    if len(bits) < 3 or set(bits) != {16} or tags.get(_PHOTOMETRIC_TAG) != _RGB_PHOTOMETRIC or not integers:
        return None
    # Both Pillow and OpenCV misread 16-bit colours that stand in separate planes.
    values = _by_planes(file) if tags.get(_PLANES_TAG) == _SEPARATE_PLANES else _by_opencv(file, orientation)
    channels = deep_colour(None if values is None else turn(values, orientation), image)
    if _PREMULTIPLIED in tuple(tags.get(_EXTRA_SAMPLES_TAG, ())) and channels.alpha is not None:
        alpha_channel.unmultiply(channels.colour, channels.alpha)
    return channels


def _by_opencv(file: BinaryIO, orientation: int = 1) -> Any:
    """(H, W, 3 or 4) RGB or RGBA as stored, or None if OpenCV cannot read the file as that.

    OpenCV turns a TIFF that has an orientation, and gives up its depth for it, so that tag is hidden from it.
    """
    file.seek(0)
    data = file.read()
    if orientation != 1:
        data = exif.straightened(data)
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3 or values.shape[2] not in (3, 4):
        return None
    return cv2.cvtColor(values, cv2.COLOR_BGRA2RGBA if values.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _by_planes(file: BinaryIO) -> Any:
    file.seek(0)
    with tifffile.TiffFile(file) as container:
        return np.moveaxis(container.pages[0].asarray(), 0, 2)


def _png_header(file: BinaryIO) -> tuple[int, int]:
    """Bit depth and colour type."""
    file.seek(24)
    depth, kind = file.read(2)
    return depth, kind


def _deep_grey(image: Image.Image) -> Channels:
    values = np.asarray(image)
    if image.mode == "F":
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise unsupported_depth()
        grey = np.round(values * MAX_16_BIT).astype(np.uint16)
    else:
        if values.min() < 0 or values.max() > MAX_16_BIT:
            raise unsupported_depth()
        grey = values.astype(np.uint16)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO:
        grey = MAX_16_BIT - grey
    transparent = image.info.get("transparency")
    alpha = np.where(grey == transparent, 0, MAX_16_BIT).astype(np.uint16) if isinstance(transparent, int) else None
    return Channels(grey, "L", alpha)
