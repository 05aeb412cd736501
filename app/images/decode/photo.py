"""One file to one `Picture`: every mode and depth of the formats we open, upright, colours normalized.

This is the work that happens inside the killable child.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from app.images import alpha as alpha_channel
from app.images import colour
from app.images.bmp_header import read_masked
from app.images.decode.bmp import masked_channels
from app.images.decode.channels import Channels, guard, plain_channels, turn
from app.images.decode.deep import deep_channels
from app.images.decode.tiff import read_channels
from app.images.header import ImageLimits, format_name, open_pages, open_picture
from app.images.metadata import collecting
from app.images.metadata.rewriting import Metadata
from app.images.picture import Picture
from app.notices import PHOTO_CHANGED, notices_of

_EMPTY_ALPHA = "The photo's transparency hides every pixel, so it was left out."


def decode_file(path: Path, limits: ImageLimits, *, as_stored: bool = False, page: int | None = None) -> Picture:
    """Decode the first picture of a file; `as_stored` leaves its RGB or grey numbers and its profile as they are.

    `page`, from 0, asks for that page of a TIFF; without it a note says how many there are besides the first.

    Raises:
        RestoreError: those of `read_header`; `undecodable_image`, `unsupported_depth` or `decode_memory`.
        FileNotFoundError: there is no such file.
    """
    with path.open("rb") as file, guard(), open_picture(file, limits, page) as image:
        if image.format != "TIFF":
            channels = load_channels(image, file)
            source = collecting.collect(image, file, _size(channels))
            picture = _picture(image, channels, source, as_stored)
            # A JPEG's further pictures are no frames: previews, depth and gain maps.
            frames = 1 if format_name(image) == "JPEG" else getattr(image, "n_frames", 1)
            return picture if frames == 1 else _noted(picture, f"{frames} frames")
        pages = open_pages(file, limits, page)
        photo = pages.photos[page or 0]
        channels = read_channels(photo, limits, image.info.get("icc_profile"))
        # A first photo that is not in the first directory is described there all the same.
        directories = (photo.directory.position,) if page else (photo.directory.position, None)
        source = collecting.collect(image, file, _size(channels), directories)
        picture = dataclasses.replace(_picture(image, channels, source, as_stored), pages=len(pages.photos))
        if page is not None or (picture.pages == 1 and pages.complete):
            return picture
        return _noted(picture, f"{'' if pages.complete else 'at least '}{picture.pages} pages")


def _noted(picture: Picture, what: str) -> Picture:
    note = notices_of(PHOTO_CHANGED, [f"The file has {what}; only the first was restored."])
    return dataclasses.replace(picture, notes=(*picture.notes, *note))


def load_channels(image: Image.Image, file: BinaryIO) -> Channels:
    """The pixels of an opened file other than a TIFF, as stored. Raises the errors of `decode_file`."""
    masked = read_masked(file) if image.format == "BMP" else None
    if masked is not None:
        return masked_channels(file, masked)
    image.load()
    deep = deep_channels(image, file)
    return deep if deep is not None else plain_channels(image)


def _size(channels: Channels) -> tuple[int, int]:
    """Width and height in pixels."""
    return channels.colour.shape[1], channels.colour.shape[0]


def _picture(image: Image.Image, channels: Channels, source: Metadata, as_stored: bool) -> Picture:
    if channels.alpha is not None and not as_stored and not channels.alpha.any():
        channels = dataclasses.replace(channels, alpha=None, notes=(*channels.notes, _EMPTY_ALPHA))
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
        iptc=source.iptc,
        texts=source.texts,
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
