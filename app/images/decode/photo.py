"""One file to one `Picture`: every mode and depth of the formats we open, upright, colours normalized.

This is the work that happens inside the killable child. Previews of a file are made of the same picture.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image

from app.images import alpha as alpha_channel
from app.images import colour, colour_encoding
from app.images.bmp_header import MaskedBmp, has_run_lengths, read_masked
from app.images.colour_encoding import ColourEncoding
from app.images.container import frames_note, pictures_note
from app.images.decode import cut_bmp
from app.images.decode.bmp import masked_channels
from app.images.decode.bmp_run_lengths import run_length_channels
from app.images.decode.channels import DEPTH_LOST, Channels, guard, plain_channels, turn
from app.images.decode.deep import deep_channels, heic_channels
from app.images.decode.loading import complete_deep, load_pixels
from app.images.decode.missing import Missing
from app.images.decode.tiff import read_channels
from app.images.header import ImageLimits, OpenedPhoto, format_name, open_pages, open_picture, shown_part
from app.images.icc_writing import adobe_rgb_profile
from app.images.isobmff import BoxFile
from app.images.metadata import collecting
from app.images.metadata.rewriting import Metadata
from app.images.orientation import photo_orientation
from app.images.picture import NormalizedColor, Picture, Pixels
from app.notices import PHOTO_CHANGED, NoticeKind, notices_of, say

_PLAIN_BITS = 8
_EMPTY_ALPHA = say(NoticeKind.EMPTY_TRANSPARENCY, "The photo's transparency hides every pixel, so it was left out.")
_PAGES = "The file has {pages} pages; only the first was restored."
_MORE_PAGES = "The file has at least {pages} pages; only the first was restored."


@dataclasses.dataclass(frozen=True)
class DecodeOptions:
    """How a file is decoded.

    Attributes:
        as_stored: leave RGB or grey numbers and the profile as they are (results of our own).
        page: the page of a TIFF, from 0; None: the first, with a note on how many there are.
        keep_partial: of a file that lacks pixels decode what is there, with a note, instead of refusing it.
        rotate: degrees clockwise, a multiple of 90, that the upright picture is turned.
        shrink_to: the picture may come smaller, with sides of at least so many pixels; for previews.
    """

    as_stored: bool = False
    page: int | None = None
    keep_partial: bool = False
    shrink_to: int | None = None
    rotate: int = 0


_DEFAULTS = DecodeOptions()


def decode_file(path: Path, limits: ImageLimits, options: DecodeOptions = _DEFAULTS) -> Picture:
    """Decode the first picture of a file, or a page of it.

    Raises:
        RestoreError: those of `read_header`; `undecodable_image`, `unsupported_depth` or `decode_memory`.
        FileNotFoundError: there is no such file.
    """
    with path.open("rb") as file, guard(), open_picture(file, limits, page=options.page) as photo:
        if photo.image.format == "TIFF":
            return _decode_page(photo, file, limits, options)
        loaded, channels = _load_channels(photo, options)
        orientation = photo_orientation(photo.image, photo.container)
        source = collecting.collect(photo.image, file, _size(channels), orientation=orientation, rotate=options.rotate)
        picture = _picture(dataclasses.replace(photo, image=loaded), channels, source, options)
        # The further pictures of a JPEG are told apart from previews, depth and gain maps by its container.
        frames = 1 if format_name(photo.image) == "JPEG" else getattr(photo.image, "n_frames", 1)
        return _noted(picture, pictures_note(frames) if photo.image.format == "HEIF" else frames_note(frames))


def _decode_page(photo: OpenedPhoto, file: BinaryIO, limits: ImageLimits, options: DecodeOptions) -> Picture:
    pages = open_pages(file, limits, options.page)
    page = pages.photos[options.page or 0]
    channels = read_channels(page, limits, photo.image.info.get("icc_profile"), keep_partial=options.keep_partial)
    # A first photo that is not in the first directory is described there all the same.
    directories = (page.directory.position,) if options.page else (page.directory.position, None)
    source = collecting.collect(
        photo.image, file, _size(channels), directories, orientation=page.orientation, rotate=options.rotate
    )
    picture = dataclasses.replace(_picture(photo, channels, source, options), pages=len(pages.photos))
    if options.page is not None or (picture.pages == 1 and pages.complete):
        return picture
    kind, words = (
        (NoticeKind.PAGES_LEFT_OUT, _PAGES) if pages.complete else (NoticeKind.MORE_PAGES_LEFT_OUT, _MORE_PAGES)
    )
    return _noted(picture, (say(kind, words, pages=picture.pages),))


def _noted(picture: Picture, sentences: tuple[str, ...]) -> Picture:
    if not sentences:
        return picture
    return dataclasses.replace(picture, notes=(*picture.notes, *notices_of(PHOTO_CHANGED, sentences)))


def _load_channels(photo: OpenedPhoto, options: DecodeOptions) -> tuple[Image.Image, Channels]:
    """The pixels of an opened file other than a TIFF, as stored, and the image that they were loaded in."""
    masked = read_masked(photo.container.file) if photo.image.format == "BMP" else None
    if masked is not None:
        return photo.image, _load_masked(photo.container.file, masked, options)
    if photo.image.format == "BMP" and has_run_lengths(photo.container.file):
        return photo.image, _load_run_lengths(photo.container.file, options)
    if options.shrink_to is not None:
        photo.image.draft(None, (options.shrink_to, options.shrink_to))
    parts = photo.container.parts
    bits = parts.bits if isinstance(parts, BoxFile) else 0
    loaded = load_pixels(photo, keep_partial=options.keep_partial)
    if loaded.image.format == "HEIF" and loaded.image.info.get("bit_depth", 8) > _PLAIN_BITS:
        return loaded.image, dataclasses.replace(heic_channels(loaded.file), notes=loaded.notes)
    channels = deep_channels(loaded.image, loaded.file, bits)
    if channels is not None and DEPTH_LOST in channels.notes and loaded.file is photo.container.file:
        packed_again = complete_deep(photo, keep_partial=options.keep_partial)
        if packed_again is not None:
            loaded = packed_again
            channels = deep_channels(loaded.image, loaded.file, bits)
    if channels is None:
        channels = plain_channels(loaded.image)
    if loaded.missing is not None and format_name(photo.image) != "JPEG":
        _grey_out(channels, loaded.missing)
    channels = _shown(channels, photo)
    return loaded.image, dataclasses.replace(channels, notes=loaded.notes + channels.notes)


def _shown(channels: Channels, photo: OpenedPhoto) -> Channels:
    """The part of the channels that the file says is shown."""
    part = shown_part(photo)
    if part is None or channels.colour.shape[:2] != (photo.image.height, photo.image.width):
        return channels
    colour_part: Any = np.ascontiguousarray(channels.colour[part])
    alpha: Any = None if channels.alpha is None else np.ascontiguousarray(channels.alpha[part])
    return dataclasses.replace(channels, colour=colour_part, alpha=alpha)


def _load_masked(file: BinaryIO, masked: MaskedBmp, options: DecodeOptions) -> Channels:
    """The pixels of a BMP with masks; of a cut-off one, where that may be, those that are there."""
    completed = cut_bmp.complete(file)
    if completed is None or completed.missing is None:
        return masked_channels(file, masked)
    if not options.keep_partial:
        raise completed.missing.refusal()
    channels = masked_channels(io.BytesIO(completed.data), masked)
    _grey_out(channels, completed.missing)
    return dataclasses.replace(channels, notes=(*channels.notes, completed.missing.note()))


def _load_run_lengths(file: BinaryIO, options: DecodeOptions) -> Channels:
    """The pixels of a BMP of run lengths; of a cut-off one, where that may be, those that are there."""
    channels, missing = run_length_channels(file)
    if missing is None:
        return channels
    if not options.keep_partial:
        raise missing.refusal()
    _grey_out(channels, missing)
    return dataclasses.replace(channels, notes=(missing.note(),))


def _size(channels: Channels) -> tuple[int, int]:
    """Width and height in pixels."""
    return channels.colour.shape[1], channels.colour.shape[0]


def _grey_out(channels: Channels, missing: Missing) -> None:
    """Missing rows become mid-grey and opaque in place, as libjpeg does it."""
    if missing.first_row is None or missing.only_detail:
        return
    peak = np.iinfo(channels.colour.dtype).max
    rows = slice(0, missing.height - missing.first_row) if missing.from_bottom else slice(missing.first_row, None)
    channels.colour[rows] = peak // 2 + 1
    if channels.alpha is not None:
        channels.alpha[rows] = peak


def _picture(photo: OpenedPhoto, channels: Channels, source: Metadata, options: DecodeOptions) -> Picture:
    image, container = photo.image, photo.container
    if channels.alpha is not None and not options.as_stored and not channels.alpha.any():
        channels = dataclasses.replace(channels, alpha=None, notes=(*channels.notes, _EMPTY_ALPHA))
    if options.shrink_to is not None:
        channels = _shrunk(channels, options.shrink_to)
    profile = image.info.get("icc_profile")
    embedded = profile if isinstance(profile, bytes) and profile else None
    normalized = _normalize(channels, _Colours(embedded, container.encoding, source.adobe_rgb), options)
    grey = normalized.pixels.ndim == 2
    pixels = turn(normalized.pixels, source.orientation)
    rgb: Any = np.repeat(pixels[..., None], 3, axis=2) if grey else pixels
    alpha = None if channels.alpha is None else turn(channels.alpha, source.orientation)
    if alpha is not None and not options.as_stored:
        alpha_channel.bleed(rgb, alpha)
    return Picture(
        rgb=rgb,
        alpha=alpha,
        grey=grey,
        icc_profile=normalized.icc_profile,
        srgb_table=colour.srgb_table(normalized.icc_profile, grey=grey),
        exif=source.exif,
        xmp=source.xmp,
        dpi=source.dpi,
        iptc=source.iptc,
        texts=source.texts,
        source_format=format_name(image),
        notes=notices_of(PHOTO_CHANGED, container.notes + channels.notes + normalized.notes + source.notes),
    )


def _shrunk(channels: Channels, side: int) -> Channels:
    """The channels at a whole fraction of their size, the longer side at least `side`."""
    height, width = channels.colour.shape[:2]
    factor = max(height, width) // side
    if factor <= 1:
        return channels
    size = (-(-width // factor), -(-height // factor))

    def smaller(pixels: Pixels) -> Pixels:
        reduced: Any = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        return reduced  # type: ignore[no-any-return]

    alpha = None if channels.alpha is None else smaller(channels.alpha)
    return dataclasses.replace(channels, colour=smaller(channels.colour), alpha=alpha)


class _Colours(NamedTuple):
    """What a file says of its colours: by a profile, by its format's own means, and by the EXIF of a camera."""

    profile: bytes | None
    encoding: ColourEncoding | None
    adobe_rgb: bool


def _normalize(channels: Channels, stated: _Colours, options: DecodeOptions) -> NormalizedColor:
    """Colours for the network, by what the file says of them; results of our own keep their numbers and profile."""
    profile = stated.profile
    plain = channels.mode in ("L", "RGB")
    if options.as_stored and plain:
        return NormalizedColor(channels.colour, profile)
    if stated.encoding is not None and plain:
        return colour_encoding.to_srgb(channels.colour, stated.encoding)
    if profile is None and plain and stated.adobe_rgb:
        profile = adobe_rgb_profile()
    if channels.colour.dtype == np.uint8:
        return colour.normalize_color(channels.colour.view(np.uint8), channels.mode, profile)
    return colour.normalize_deep(channels.colour, channels.mode, profile)
