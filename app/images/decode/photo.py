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
from app.images.decode.channels import DEPTH_LOST, Channels, guard, plain_channels, turn
from app.images.decode.deep import deep_channels
from app.images.decode.loading import Loaded, complete_deep, load_pixels
from app.images.decode.missing import Missing
from app.images.header import ImageLimits, OpenedPhoto, format_name, open_picture
from app.images.metadata import exif, rewriting
from app.images.picture import NormalizedColor, Picture
from app.notices import PHOTO_CHANGED, notices_of


def decode_file(path: Path, limits: ImageLimits, *, as_stored: bool = False, keep_partial: bool = False) -> Picture:
    """Decode the first picture of a file; `as_stored` leaves its RGB or grey numbers and its profile as they are.

    A file that lacks pixels is refused, unless `keep_partial`: then what is there is decoded, and a note says how much
    is missing.

    Raises:
        RestoreError: those of `read_header`; `undecodable_image`, `unsupported_depth` or `decode_memory`.
        FileNotFoundError: there is no such file.
    """
    with path.open("rb") as file, guard(), open_picture(file, limits) as photo:
        return _picture(photo, *_load_channels(photo, keep_partial), as_stored)


def _load_channels(photo: OpenedPhoto, keep_partial: bool) -> tuple[Loaded, Channels]:
    """The pixels of an opened file, as stored."""
    orientation = _tiff_orientation(photo.image)
    loaded = load_pixels(photo, keep_partial=keep_partial)
    channels = deep_channels(loaded.image, loaded.file, orientation)
    if channels is not None and DEPTH_LOST in channels.notes and loaded.file is photo.container.file:
        packed_again = complete_deep(photo, keep_partial=keep_partial)
        if packed_again is not None:
            loaded = packed_again
            channels = deep_channels(loaded.image, loaded.file, orientation)
    if channels is None:
        channels = plain_channels(loaded.image)
    if loaded.missing is not None and format_name(photo.image) != "JPEG":
        _grey_out(channels, loaded.missing)
    return loaded, channels


def _grey_out(channels: Channels, missing: Missing) -> None:
    """Missing rows become mid-grey and opaque in place, as libjpeg does it."""
    if missing.first_row is None or missing.only_detail:
        return
    peak = np.iinfo(channels.colour.dtype).max
    channels.colour[missing.first_row :] = peak // 2 + 1
    if channels.alpha is not None:
        channels.alpha[missing.first_row :] = peak


def _tiff_orientation(image: Image.Image) -> int:
    """The orientation of a TIFF; asked before loading, for Pillow turns the pixels and forgets the tag."""
    value = getattr(image, "tag_v2", {}).get(exif.ORIENTATION, 1)
    return value if isinstance(value, int) else 1


def _picture(photo: OpenedPhoto, loaded: Loaded, channels: Channels, as_stored: bool) -> Picture:
    image, container = loaded.image, photo.container
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
        notes=notices_of(
            PHOTO_CHANGED, loaded.notes + container.notes + channels.notes + normalized.notes + source.notes
        ),
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
