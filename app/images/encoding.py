"""A `Picture` to a file: the format, its limits, colour tag and metadata; pixels go to a writer each.

It writes where it is told, and leaves nothing there when it fails; making that atomic is the caller's business.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, BinaryIO, cast

import PIL
from PIL import Image, features

from app.images import samples
from app.images.formats import FORMATS, check_format, fitting_format, own_format, too_large
from app.images.metadata import iptc, jpeg_metadata
from app.images.metadata.fitting import fitted
from app.images.metadata.rewriting import Metadata, for_result
from app.images.picture import Picture
from app.images.png import write_png
from app.images.srgb_table import greys_to_srgb, profile_space
from app.images.tiff import readable, write_tiff
from app.notices import RESULT_CHANGED, Notice, NoticeKind, notices_of, say

_FULL_COLOUR_QUALITY = 90
_WEBP_METHOD = 2
_AVIF_SPEED = 8
_LOSSLESS_QUALITY = 100


@dataclasses.dataclass(frozen=True)
class Encoded:
    """What was written: `extension` without a dot, MIME type, size in pixels and bytes, and what was given up."""

    extension: str
    mime: str
    width: int
    height: int
    bytes_written: int
    notes: tuple[Notice, ...] = ()


def codec_versions() -> dict[str, str | None]:
    """The versions of what decodes and encodes, which decide the bytes of a file."""
    names = ("libjpeg_turbo", "zlib", "webp", "avif", "libtiff", "littlecms2")
    return {"pillow": PIL.__version__, **{name: features.version(name) for name in names}}


def choose_format(picture: Picture, output_format: str) -> str:
    """The format of the result (jpg, png, webp, tiff, avif): the asked one, or for `auto` the photo's own.

    BMP becomes PNG; HEIF becomes JPEG, or PNG if the photo has an alpha channel. A result that is too large for the
    photo's own format gets one that holds it.
    """
    if output_format != "auto":
        return output_format
    alpha = picture.alpha is not None
    own = own_format(picture.source_format, alpha=alpha)
    deep = picture.rgb.dtype.itemsize == 2
    return fitting_format(own, picture.width, picture.height, samples.pixel_bytes(picture), alpha=alpha, deep=deep)


def check_picture(picture: Picture, output_format: str, scale: float) -> None:
    """Judge a decoded photo as `check_format` does; now the bytes of its result are known too.

    Raises:
        Unprocessable: `too_large_for_format`.
    """
    check_format(output_format, picture.width, picture.height, scale, samples.pixel_bytes(picture))


def encode(picture: Picture, file: Path, output_format: str, quality: int, metadata: str) -> Encoded:
    """Write a picture to a new file.

    Args:
        picture: the result; 16 bits stay 16 in PNG and TIFF and are rounded to 8 elsewhere.
        file: where to write; nothing is left there on failure.
        output_format: auto, jpg, png, webp, tiff or avif.
        quality: 1 to 100, for jpg, webp (100: lossless) and avif.
        metadata: keep, strip_gps or strip.

    Raises:
        Unprocessable: `too_large_for_format` when the asked format cannot hold so large a picture.
        OSError: the disk is full or the folder is gone.
    """
    name = choose_format(picture, output_format)
    if not FORMATS[name].holds(picture.width, picture.height, samples.pixel_bytes(picture)):
        raise too_large(name, picture.width, picture.height, "choose another format or a smaller scale")
    carried = carried_metadata(picture, name, metadata)
    losses = _losses(picture, name, output_format)
    if name == "tiff":
        picture, lost = readable(picture)
        losses += lost
    notes = notices_of(RESULT_CHANGED, [*carried.notes, *losses])
    try:
        with file.open("w+b") as target:
            _write(target, picture, name, quality, carried)
            target.seek(0, 2)
            size = target.tell()
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return Encoded(FORMATS[name].extension, FORMATS[name].mime, picture.width, picture.height, size, notes)


def carried_metadata(picture: Picture, name: str, metadata: str) -> Metadata:
    """What of a picture's metadata a file of the format `name` carries under a policy, and notes on the rest."""
    source = Metadata(picture.exif, picture.xmp, picture.dpi, iptc=picture.iptc, texts=picture.texts)
    own_space = keeps_own_space(picture, name)
    mime = FORMATS[name].mime
    return fitted(for_result(source, picture.width, picture.height, metadata, mime, own_space=own_space), name)


def _losses(picture: Picture, name: str, output_format: str) -> list[str]:
    notes: list[str] = []
    own = own_format(picture.source_format, alpha=picture.alpha is not None)
    if output_format == "auto" and name != own:
        limit = FORMATS[own].limit_words(picture.width, picture.height)
        words = "{format} holds at most {limit}; the result is larger and became {other}."
        labels = {"format": FORMATS[own].label, "other": FORMATS[name].label}
        notes.append(say(NoticeKind.FORMAT_TOO_SMALL, words, limit=limit, **labels))
    if picture.alpha is not None and name == "jpg":
        notes.append(say(NoticeKind.LAID_ON_WHITE, "JPEG has no transparency; the photo was laid on white."))
    if picture.rgb.dtype.itemsize == 2 and not FORMATS[name].deep:
        words = "The format {format} holds 8 bits a channel; the photo's 16 bits were rounded."
        notes.append(say(NoticeKind.BITS_ROUNDED, words, format=name))
    return notes


def _write(file: BinaryIO, picture: Picture, name: str, quality: int, carried: Metadata) -> None:
    icc_profile = fitting_profile(picture)
    if name == "png":
        write_png(file, picture, carried, icc_profile)
    elif name == "tiff":
        write_tiff(file, picture, carried, icc_profile)
    else:
        _write_lossy(file, picture, name, quality, carried, icc_profile)


def fitting_profile(picture: Picture) -> bytes | None:
    """The profile, if it is for the kind of samples written (an RGB profile on a grey file is refused by readers)."""
    if picture.icc_profile is None:
        return None
    return picture.icc_profile if profile_space(picture.icc_profile) == _space(picture) else None


def keeps_own_space(picture: Picture, name: str) -> bool:
    """Whether a file of the format `name` carries a profile that names another space than sRGB."""
    has_profile = fitting_profile(picture) is not None and not greys_become_srgb(picture, name)
    return has_profile and picture.srgb_table is not None


def greys_become_srgb(picture: Picture, name: str) -> bool:
    """Whether a format holds these greys as colours only, to which their profile does not belong: WebP always does."""
    as_colours = name == "webp" or (name == "avif" and picture.alpha is not None)
    return as_colours and picture.grey and fitting_profile(picture) is not None


def _space(picture: Picture) -> str:
    return "GRAY" if picture.grey else "RGB"


def _write_lossy(
    file: BinaryIO, picture: Picture, name: str, quality: int, carried: Metadata, icc_profile: bytes | None
) -> None:
    pixels = samples.whole(picture, alpha=name != "jpg")
    if greys_become_srgb(picture, name):
        greys = pixels if pixels.ndim == 2 else pixels[..., 0]
        greys[...] = greys_to_srgb(greys, picture.srgb_table)
        icc_profile = None
    image = Image.fromarray(pixels)
    extras: dict[str, Any] = {"quality": quality, "icc_profile": icc_profile, "xmp": carried.xmp or b""}
    if name == "jpg":
        if carried.dpi:
            extras["dpi"] = tuple(round(part) for part in carried.dpi)
        prefixed = jpeg_metadata.EXIF_MARK + carried.exif if carried.exif else b""
        extras["extra"] = _jpeg_segments(carried)
        subsampling = "4:4:4" if quality >= _FULL_COLOUR_QUALITY else "4:2:0"
        image.save(cast(Any, _WithoutDescriptor(file)), "JPEG", exif=prefixed, subsampling=subsampling, **extras)
    elif name == "webp":
        lossless = quality >= _LOSSLESS_QUALITY
        image.save(
            file, "WEBP", exif=carried.exif or b"", method=_WEBP_METHOD, lossless=lossless, exact=lossless, **extras
        )
    else:
        if not picture.grey:
            extras["subsampling"] = "4:4:4" if quality >= _FULL_COLOUR_QUALITY else "4:2:0"
        image.save(file, "AVIF", exif=carried.exif or b"", speed=_AVIF_SPEED, **extras)


class _WithoutDescriptor:
    """A file for Pillow that hides its descriptor, to which its encoders would write by themselves.

    They do not notice when only a part could be written: the last of a full disk, and so half a JPEG.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write


def _jpeg_segments(carried: Metadata) -> bytes:
    """IPTC and comments, as segments that Pillow puts before the picture."""
    resources = jpeg_metadata.photoshop_segments(iptc.resource_block(carried.iptc)) if carried.iptc else b""
    return resources + b"".join(jpeg_metadata.comment_segment(text) for _, text in carried.texts)
