"""The formats of results: extension, MIME type, and how large a picture each holds.

A limit is the smaller of what the format can say and what its common readers open, so that no result is written that
nothing shows.
"""

from __future__ import annotations

import dataclasses
import math

from app.errors import Unprocessable
from app.options import output_size

_MEBIBYTE = 1 << 20
_SCALE_STEPS = 10  # a scale that fits is told in tenths


@dataclasses.dataclass(frozen=True)
class OutputFormat:
    """One format that is written. A limit of None means that no picture of ours comes near it.

    Attributes:
        label: what people call it.
        extension: of its files, without a dot.
        mime: MIME type.
        deep: whether it keeps 16 bits a channel.
        max_side_pixels: longest side.
        max_pixels: width times height.
        max_raw_bytes: width times height times bytes a pixel, before compression.
    """

    label: str
    extension: str
    mime: str
    max_side_pixels: int
    deep: bool = False
    max_pixels: int | None = None
    max_raw_bytes: int | None = None

    def holds(self, width: int, height: int, pixel_bytes: int = 1) -> bool:
        """Whether a picture of so many pixels, of so many bytes each, can be written and opened again."""
        return max(width, height) <= self.max_side_pixels and width * height <= self.max_area(pixel_bytes)

    def max_area(self, pixel_bytes: int) -> float:
        """The most pixels of so many bytes each."""
        raw = math.inf if self.max_raw_bytes is None else self.max_raw_bytes / pixel_bytes
        return raw if self.max_pixels is None else min(raw, self.max_pixels)

    def limit_words(self, width: int, height: int) -> str:
        """The limit that a picture of this size is over, for a sentence."""
        if max(width, height) > self.max_side_pixels:
            return f"{self.max_side_pixels} pixels a side"
        if self.max_pixels is not None and width * height > self.max_pixels:
            return f"{self.max_pixels // 1_000_000} megapixels"
        return "4 gibibytes of pixels"


FORMATS = {
    # libjpeg and libjpeg-turbo stop at JPEG_MAX_DIMENSION, a little below the 65,535 that the format can say.
    "jpg": OutputFormat("JPEG", "jpg", "image/jpeg", 65_500),
    "png": OutputFormat("PNG", "png", "image/png", 2**31 - 1, deep=True),
    "webp": OutputFormat("WebP", "webp", "image/webp", 16_383),
    # Offsets have 32 bits; the room is for what deflate adds to noise, for the directory and the metadata.
    "tiff": OutputFormat("TIFF", "tif", "image/tiff", 2**31 - 1, deep=True, max_raw_bytes=(4096 - 64) * _MEBIBYTE),
    # Encoders go to 65,536; libavif, by which browsers and Pillow read, opens these by default and no more.
    "avif": OutputFormat("AVIF", "avif", "image/avif", 32_768, max_pixels=16_384 * 16_384),
}
_AUTO = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tiff", "BMP": "png", "AVIF": "avif", "HEIF": "jpg"}


def size_limits() -> dict[str, dict[str, int | None]]:
    """By the name of each format the longest side and the most pixels that it holds, JSON-ready."""
    return {
        name: {"max_side_pixels": one.max_side_pixels, "max_pixels": one.max_pixels} for name, one in FORMATS.items()
    }


def own_format(source_format: str, *, alpha: bool) -> str:
    """The format nearest to a photo's own (Pillow's name): BMP becomes PNG, HEIF becomes JPEG, or PNG with alpha."""
    chosen = _AUTO.get(source_format, "png")
    return "png" if chosen == "jpg" and alpha else chosen


def fitting_format(name: str, width: int, height: int, pixel_bytes: int, *, alpha: bool, deep: bool) -> str:
    """`name` if it holds the result; else JPEG where nothing but size is in its way; else PNG, which holds all."""
    if FORMATS[name].holds(width, height, pixel_bytes):
        return name
    plain = not alpha and not deep and name != "tiff"
    return "jpg" if plain and FORMATS["jpg"].holds(width, height, pixel_bytes) else "png"


def check_format(output_format: str, width: int, height: int, scale: float, pixel_bytes: int = 1) -> None:
    """Judge before the work whether the asked format holds the result of an upright photo; `auto` finds one that does.

    `pixel_bytes` are those of one pixel of the photo; 1, the least, before it is decoded.

    Raises:
        Unprocessable: `too_large_for_format`, with the largest scale and size that fit, and the formats that hold it.
    """
    chosen = FORMATS.get(output_format)
    size_out = output_size(width, height, scale)
    if chosen is None or chosen.holds(*size_out, pixel_bytes):
        return
    others = " or ".join(name for name, other in FORMATS.items() if other.holds(*size_out, pixel_bytes))
    fits = _fitting_scale(chosen, width, height, pixel_bytes)
    raise too_large(output_format, *size_out, f"{fits}choose {others}")


def too_large(name: str, width: int, height: int, remedy: str) -> Unprocessable:
    """The error for a result that the format `name` does not hold, and what to do."""
    return Unprocessable(
        "too_large_for_format",
        f"The result would have {width} x {height} pixels and {FORMATS[name].label} holds at most "
        f"{FORMATS[name].limit_words(width, height)}; {remedy}.",
    )


def _fitting_scale(chosen: OutputFormat, width: int, height: int, pixel_bytes: int) -> str:
    """The largest scale, in tenths and at least 1, whose result fits; empty when there is none."""
    bound = min(chosen.max_side_pixels / max(width, height), math.sqrt(chosen.max_area(pixel_bytes) / (width * height)))
    for tenths in range(math.ceil(bound * _SCALE_STEPS), _SCALE_STEPS - 1, -1):
        size_out = output_size(width, height, tenths / _SCALE_STEPS)
        if chosen.holds(*size_out, pixel_bytes):
            return f"the largest scale that fits is {tenths / _SCALE_STEPS:g} ({size_out[0]} x {size_out[1]}), or "
    return ""
