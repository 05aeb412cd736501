"""The parts of a photo that a patch is made of, in the decoder's child: the reduced whole, and a window."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from app.images.decode import DecodeOptions, decode_file
from app.images.header import ImageLimits
from app.images.patches import OVERVIEW_SIDE_PIXELS, Box, Overview
from app.images.picture import Picture


def make_overview(path: Path, limits: ImageLimits, options: DecodeOptions) -> Overview:
    """Decode a file and reduce it. Same errors as `decode_file`."""
    picture = decode_file(path, limits, options)
    factor = min(1.0, OVERVIEW_SIDE_PIXELS / max(picture.width, picture.height))
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    rgb: Any = cv2.resize(picture.rgb, size, interpolation=cv2.INTER_AREA)
    alpha: Any = None if picture.alpha is None else cv2.resize(picture.alpha, size, interpolation=cv2.INTER_AREA)
    small = Picture(rgb, alpha)
    return Overview(_coloured_as(picture, small), picture.width, picture.height, picture.is_colourless())


def cut_window(path: Path, limits: ImageLimits, options: DecodeOptions, box: Box) -> Picture:
    """Decode a file and keep this part of it. Same errors as `decode_file`."""
    picture = decode_file(path, limits, options)
    rgb: Any = np.ascontiguousarray(picture.rgb[box.top : box.bottom, box.left : box.right])
    return _coloured_as(picture, Picture(rgb))


def _coloured_as(whole: Picture, part: Picture) -> Picture:
    """A part of a picture with what says how its colours look."""
    return dataclasses.replace(
        part, icc_profile=whole.icc_profile, srgb_table=whole.srgb_table, source_format=whole.source_format
    )
