"""One file to one `Picture`: every mode and depth of the formats we open, upright, colours settled.

This is the work that happens inside the killable child. It knows nothing of processes, limits of time or networks.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.errors import RestoreError, Unprocessable
from app.images import alpha as alpha_channel
from app.images import colour, metadata
from app.images.header import ImageLimits, format_name, open_picture, undecodable
from app.images.picture import Picture, Pixels

_PLAIN_MODES = {"1": "L", "PA": "RGBA", "RGBa": "RGBA", "La": "LA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB"}
_MAX_16_BIT = 65535
_PNG_GREY_ALPHA = 4
_BITS_TAG, _PHOTOMETRIC_TAG, _SAMPLE_FORMAT_TAG, _EXTRA_SAMPLES_TAG = 258, 262, 339, 338
_WHITE_IS_ZERO, _RGB_PHOTOMETRIC, _PREMULTIPLIED = 0, 2, 1


@dataclasses.dataclass(frozen=True)
class Channels:
    """What a file's pixels are before orientation and colour: `colour` is (H, W) or (H, W, C) in `mode`."""

    colour: Pixels
    mode: str
    alpha: Pixels | None = None
    notes: tuple[str, ...] = ()


def decode_file(path: Path, limits: ImageLimits) -> Picture:
    """Decode the first picture of a file.

    Raises:
        RestoreError: those of `read_header`; `undecodable_image`, `unsupported_depth` or `decode_memory`.
    """
    with guard(), path.open("rb") as file, open_picture(file, limits) as image:
        image.load()
        deep = _deep_channels(image, file)
        channels = deep if deep is not None else plain_channels(image)
        return _picture(image, channels)


class guard:  # noqa: N801 - reads as a word in a with statement
    """Turns whatever a decoder throws into a `RestoreError`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, RestoreError) or not isinstance(error, Exception):
            return
        if isinstance(error, MemoryError | cv2.error) and "memory" in f"{kind} {error}".lower():
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


def _deep_channels(image: Image.Image, file: BinaryIO) -> Channels | None:
    """The channels of a photo of more than 8 bits, or None; Pillow keeps 16 bits for grey only, OpenCV for colour."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _deep_grey(image)
    if image.format == "PNG" and _png_header(file)[0] == 16:
        return _deep_colour(file, grey_alpha=_png_header(file)[1] == _PNG_GREY_ALPHA, premultiplied=False, image=image)
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_TAG, ())
    integers = set(tags.get(_SAMPLE_FORMAT_TAG, (1,))) == {1}
    if len(bits) >= 3 and set(bits) == {16} and tags.get(_PHOTOMETRIC_TAG) == _RGB_PHOTOMETRIC and integers:
        extra = tags.get(_EXTRA_SAMPLES_TAG, ())
        return _deep_colour(file, grey_alpha=False, premultiplied=_PREMULTIPLIED in tuple(extra), image=image)
    return None


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


def _deep_colour(file: BinaryIO, *, grey_alpha: bool, premultiplied: bool, image: Image.Image) -> Channels:
    file.seek(0)
    values = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    size = (image.height, image.width)
    if values is None or values.dtype != np.uint16 or values.ndim != 3 or values.shape[:2] != size:
        plain = plain_channels(image)
        return dataclasses.replace(plain, notes=("The photo's 16-bit colours could be read with 8 bits only.",))
    alpha = values[..., 3].copy() if values.shape[2] == 4 else None
    if grey_alpha:
        return Channels(values[..., 0].copy(), "L", alpha)
    rgb: NDArray[np.uint16] = cv2.cvtColor(values, cv2.COLOR_BGRA2RGB if alpha is not None else cv2.COLOR_BGR2RGB)
    if premultiplied and alpha is not None:
        alpha_channel.unmultiply(rgb, alpha)
    return Channels(rgb, "RGB", alpha)


def _picture(image: Image.Image, channels: Channels) -> Picture:
    source = metadata.collect(image)
    settled = _settle(channels, image.info.get("icc_profile"))
    grey = settled.pixels.ndim == 2
    pixels = turn(settled.pixels, source.orientation)
    rgb = np.repeat(pixels[..., None], 3, axis=2) if grey else pixels
    alpha = None if channels.alpha is None else turn(channels.alpha, source.orientation)
    if alpha is not None:
        alpha_channel.bleed(rgb, alpha)
    return Picture(
        rgb=rgb,
        alpha=alpha,
        grey=grey,
        icc_profile=settled.icc_profile,
        exif=source.exif,
        xmp=source.xmp,
        dpi=source.dpi,
        source_format=format_name(image),
        notes=channels.notes + settled.notes + source.notes,
    )


def _settle(channels: Channels, icc_profile: object) -> colour.Settled:
    """Colours of 8-bit photos are settled; 16-bit photos keep their numbers and their profile."""
    profile = icc_profile if isinstance(icc_profile, bytes) and icc_profile else None
    if channels.colour.dtype == np.uint8:
        return colour.settle(channels.colour.view(np.uint8), channels.mode, profile)
    notes: tuple[str, ...] = ()
    if profile and colour.profile_space(profile) != ("GRAY" if channels.mode == "L" else "RGB"):
        profile, notes = None, (colour.BROKEN_PROFILE,)
    return colour.Settled(channels.colour, profile, notes)


def turn(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation to (H, W) or (H, W, C) pixels; the result is contiguous."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def picture_from_bytes(data: bytes, limits: ImageLimits) -> Image.Image:
    """Open bytes of our own making (tests and previews)."""
    return open_picture(io.BytesIO(data), limits)
