"""One file to one `Picture`: every mode and depth of the formats we open, upright, colours normalized.

This is the work that happens inside the killable child.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.images import alpha as alpha_channel
from app.images import colour, colour_encoding
from app.images.colour_encoding import ColourEncoding
from app.images.decode.channels import Channels, guard, plain_channels, turn
from app.images.decode.deep import deep_channels
from app.images.header import ImageLimits, OpenedPhoto, format_name, open_picture
from app.images.metadata import exif, rewriting
from app.images.picture import NormalizedColor, Picture
from app.notices import PHOTO_CHANGED, notices_of


def decode_file(path: Path, limits: ImageLimits, *, as_stored: bool = False) -> Picture:
    """Decode the first picture of a file; `as_stored` leaves its RGB or grey numbers and its profile as they are.

    Raises:
        RestoreError: those of `read_header`; `undecodable_image`, `unsupported_depth` or `decode_memory`.
        FileNotFoundError: there is no such file.
    """
    with path.open("rb") as file, guard(), open_picture(file, limits) as photo:
        orientation = _tiff_orientation(photo.image)
        photo.image.load()
        deep = deep_channels(photo.image, photo.container.file, orientation)
        channels = deep if deep is not None else plain_channels(photo.image)
        return _picture(photo, channels, as_stored)


def _tiff_orientation(image: Image.Image) -> int:
    """The orientation of a TIFF; asked before loading, for Pillow turns the pixels and forgets the tag."""
    value = getattr(image, "tag_v2", {}).get(exif.ORIENTATION, 1)
    return value if isinstance(value, int) else 1


def _picture(photo: OpenedPhoto, channels: Channels, as_stored: bool) -> Picture:
    image, container = photo.image, photo.container
    source = rewriting.collect(image)
    normalized = _normalize(channels, image.info.get("icc_profile"), container.encoding, as_stored)
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
        notes=notices_of(PHOTO_CHANGED, container.notes + channels.notes + normalized.notes + source.notes),
    )


def _normalize(
    channels: Channels, icc_profile: object, encoding: ColourEncoding | None, as_stored: bool
) -> NormalizedColor:
    """Colours for the network, by what the file says of them; results of our own keep their numbers and profile."""
    profile = icc_profile if isinstance(icc_profile, bytes) and icc_profile else None
    plain = channels.mode in ("L", "RGB")
    if as_stored and plain:
        return NormalizedColor(channels.colour, profile)
    if encoding is not None and plain:
        return colour_encoding.to_srgb(channels.colour, encoding)
    if channels.colour.dtype == np.uint8:
        return colour.normalize_color(channels.colour.view(np.uint8), channels.mode, profile)
    return colour.normalize_deep(channels.colour, channels.mode, profile)
