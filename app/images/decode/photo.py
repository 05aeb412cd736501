"""One file to one `Picture`: every mode and depth of the formats we open, upright, colours normalized.

This is the work that happens inside the killable child.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.images import alpha as alpha_channel
from app.images import colour
from app.images.decode.channels import Channels, guard, plain_channels, turn
from app.images.decode.deep import deep_channels
from app.images.header import ImageLimits, format_name, open_picture
from app.images.metadata import exif, rewriting
from app.images.picture import Picture
from app.notices import PHOTO_CHANGED, notices_of


def decode_file(path: Path, limits: ImageLimits, *, as_stored: bool = False) -> Picture:
    """Decode the first picture of a file; `as_stored` leaves its RGB or grey numbers and its profile as they are.

    Raises:
        RestoreError: those of `read_header`; `undecodable_image`, `unsupported_depth` or `decode_memory`.
        FileNotFoundError: there is no such file.
    """
    with path.open("rb") as file, guard(), open_picture(file, limits) as image:
        orientation = _tiff_orientation(image)
        image.load()
        deep = deep_channels(image, file, orientation)
        channels = deep if deep is not None else plain_channels(image)
        return _picture(image, channels, as_stored)


def _tiff_orientation(image: Image.Image) -> int:
    """The orientation of a TIFF; asked before loading, for Pillow turns the pixels and forgets the tag."""
    value = getattr(image, "tag_v2", {}).get(exif.ORIENTATION, 1)
    return value if isinstance(value, int) else 1


def _picture(image: Image.Image, channels: Channels, as_stored: bool) -> Picture:
    source = rewriting.collect(image)
    normalized = _normalize(channels, image.info.get("icc_profile"), as_stored)
    grey = normalized.pixels.ndim == 2
    pixels = turn(normalized.pixels, source.orientation)
    rgb: Any = np.repeat(pixels[..., None], 3, axis=2) if grey else pixels
    alpha = None if channels.alpha is None else turn(channels.alpha, source.orientation)
    if alpha is not None and not as_stored:
        alpha_channel.bleed(rgb, alpha)
    return Picture(
        rgb=rgb,
        alpha=alpha,
        grey=grey,
        icc_profile=normalized.icc_profile,
        exif=source.exif,
        xmp=source.xmp,
        dpi=source.dpi,
        source_format=format_name(image),
        notes=notices_of(PHOTO_CHANGED, channels.notes + normalized.notes + source.notes),
    )


def _normalize(channels: Channels, icc_profile: object, as_stored: bool) -> colour.NormalizedColor:
    """Colours of 8-bit photos are normalized; 16-bit photos, and our results, keep their numbers and their profile."""
    profile = icc_profile if isinstance(icc_profile, bytes) and icc_profile else None
    plain = channels.mode in ("L", "RGB")
    if channels.colour.dtype == np.uint8 and not (as_stored and plain):
        return colour.normalize_color(channels.colour.view(np.uint8), channels.mode, profile)
    notes: tuple[str, ...] = ()
    if profile and not colour.is_usable(profile, "GRAY" if channels.mode == "L" else "RGB"):
        profile, notes = None, (colour.BROKEN_PROFILE,)
    return colour.NormalizedColor(channels.colour, profile, notes)
