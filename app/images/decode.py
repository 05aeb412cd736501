"""One file to one `Picture`: every mode and depth of the formats we open, upright, colours normalized.

This is the work that happens inside the killable child.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image

from app.errors import RestoreError, Unprocessable
from app.images import alpha as alpha_channel
from app.images import colour
from app.images.header import ImageLimits, format_name, open_picture, undecodable
from app.images.metadata import collecting, exif, exif_tags
from app.images.picture import Picture, Pixels
from app.notices import PHOTO_CHANGED, notices_of

try:
    import tifffile
except ImportError:  # where only torch and the model packages are; nothing but a TIFF in separate planes needs it
    tifffile = None

_PLAIN_MODES = {"1": "L", "PA": "RGBA", "RGBa": "RGBA", "La": "LA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB"}
_MAX_16_BIT = 65535
_PNG_GREY_ALPHA = 4
_BITS_TAG, _PHOTOMETRIC_TAG, _PLANES_TAG, _EXTRA_SAMPLES_TAG, _SAMPLE_FORMAT_TAG = 258, 262, 284, 338, 339
_SEPARATE_PLANES = 2
_DEPTH_LOST = "The photo's 16-bit colours could be read with 8 bits only."
_WHITE_IS_ZERO, _RGB_PHOTOMETRIC, _PREMULTIPLIED = 0, 2, 1


@dataclasses.dataclass(frozen=True)
class Channels:
    """What a file's pixels are before orientation and colour: `colour` is (H, W) or (H, W, C) in `mode`."""

    colour: Pixels
    mode: str
    alpha: Pixels | None = None
    notes: tuple[str, ...] = ()


def decode_file(path: Path, limits: ImageLimits, *, as_stored: bool = False) -> Picture:
    """Decode the first picture of a file; `as_stored` leaves its RGB or grey numbers and its profile as they are.

    Raises:
        RestoreError: those of `read_header`; `undecodable_image`, `unsupported_depth` or `decode_memory`.
        FileNotFoundError: there is no such file.
    """
    with path.open("rb") as file, guard(), open_picture(file, limits) as image:
        orientation = _tiff_orientation(image)
        image.load()
        deep = _deep_channels(image, file, orientation)
        channels = deep if deep is not None else plain_channels(image)
        return _picture(image, file, channels, as_stored)


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """Turn whatever a decoder throws at a broken file into a `RestoreError`."""
    try:
        yield
    except RestoreError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, cv2.error) and "memory" in str(error).lower()):
            raise Unprocessable(
                "decode_memory", "The photo needs more memory than a photo may; make it smaller and send it again."
            ) from error
        raise undecodable() from error


def plain_channels(image: Image.Image) -> Channels:
    """The 8-bit channels of a loaded image; transparent colours and palettes become an alpha channel."""
    mode = image.mode
    transparent = "transparency" in image.info
    if mode == "P" or (mode == "RGB" and transparent):
        image = image.convert("RGBA" if transparent else "RGB")
    elif mode in ("1", "L") and transparent:
        image = image.convert("LA")
    elif mode in _PLAIN_MODES:
        image = image.convert(_PLAIN_MODES[mode])
    values = np.asarray(image)
    if image.mode == "LA":
        return Channels(values[..., 0].copy(), "L", values[..., 1].copy())
    if image.mode == "RGBA":
        return Channels(values[..., :3].copy(), "RGB", values[..., 3].copy())
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return Channels(values.copy(), image.mode)
    raise _unsupported_depth()


def _unsupported_depth() -> Unprocessable:
    return Unprocessable(
        "unsupported_depth", "The photo's numbers are neither 8- nor 16-bit; save it with 8 or 16 bits a channel."
    )


def _deep_channels(image: Image.Image, file: BinaryIO, orientation: int) -> Channels | None:
    """The channels of a photo of more than 8 bits, or None; Pillow keeps 16 bits for grey only.

    `orientation` is that of a TIFF, which Pillow has already applied to its own pixels.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _deep_grey(image)
    if image.format == "PNG":
        depth, kind = _png_header(file)
        return _deep_colour(_by_opencv(file), image, grey=kind == _PNG_GREY_ALPHA) if depth == 16 else None
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_TAG, ())
    integers = set(tags.get(_SAMPLE_FORMAT_TAG, (1,))) == {1}
    if len(bits) < 3 or set(bits) != {16} or tags.get(_PHOTOMETRIC_TAG) != _RGB_PHOTOMETRIC or not integers:
        return None
    # Both Pillow and OpenCV misread 16-bit colours that stand in separate planes.
    values = _by_planes(file) if tags.get(_PLANES_TAG) == _SEPARATE_PLANES else _by_opencv(file, orientation)
    channels = _deep_colour(None if values is None else turn(values, orientation), image)
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


def _tiff_orientation(image: Image.Image) -> int:
    """The orientation of a TIFF; asked before loading, for Pillow turns the pixels and forgets the tag."""
    value = getattr(image, "tag_v2", {}).get(exif_tags.ORIENTATION, 1)
    return value if isinstance(value, int) else 1


def _png_header(file: BinaryIO) -> tuple[int, int]:
    """Bit depth and colour type."""
    file.seek(24)
    depth, kind = file.read(2)
    return depth, kind


def _deep_grey(image: Image.Image) -> Channels:
    values = np.asarray(image)
    if image.mode == "F":
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise _unsupported_depth()
        grey = np.round(values * _MAX_16_BIT).astype(np.uint16)
    else:
        if values.min() < 0 or values.max() > _MAX_16_BIT:
            raise _unsupported_depth()
        grey = values.astype(np.uint16)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO:
        grey = _MAX_16_BIT - grey
    transparent = image.info.get("transparency")
    alpha = np.where(grey == transparent, 0, _MAX_16_BIT).astype(np.uint16) if isinstance(transparent, int) else None
    return Channels(grey, "L", alpha)


def _deep_colour(values: Any, image: Image.Image, *, grey: bool = False) -> Channels:
    """Split RGB(A) into colour and alpha; `grey` says that the three colours are one."""
    size = (image.height, image.width)
    if values is None or values.dtype != np.uint16 or values.shape[:2] != size:
        return dataclasses.replace(plain_channels(image), notes=(_DEPTH_LOST,))
    alpha = values[..., 3].copy() if values.shape[2] == 4 else None
    if grey:
        return Channels(values[..., 0].copy(), "L", alpha)
    return Channels(np.ascontiguousarray(values[..., :3]), "RGB", alpha)


def _picture(image: Image.Image, file: BinaryIO, channels: Channels, as_stored: bool) -> Picture:
    source = collecting.collect(image, file, (channels.colour.shape[1], channels.colour.shape[0]))
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


def turn(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation to (H, W) or (H, W, C) pixels; the result is contiguous."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    contiguous: Any = np.ascontiguousarray(pixels)
    return contiguous  # type: ignore[no-any-return]
