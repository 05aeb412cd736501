"""Small JPEG previews of files, in the decoder's child, with as little decoding as the format allows."""

from __future__ import annotations

from pathlib import Path

from app.images import colour
from app.images.decode import DecodeOptions, decode_file
from app.images.header import ImageLimits, open_picture
from app.images.picture import Picture, Pixels
from app.images.preview import PREVIEW_SIDE_PIXELS, encode_preview
from app.images.srgb_table import profile_space

_ANY_RESULT = ImageLimits(max_input_megapixels=10_000.0, max_side_pixels=1 << 20)


def preview_file(path: Path, limits: ImageLimits, max_side: int = PREVIEW_SIDE_PIXELS, rotate: int = 0) -> bytes:
    """JPEG bytes of a file's first picture, whatever of it is there, turned clockwise; same errors as `decode_file`.

    It is decoded as the photo is, only smaller: a JPEG at an eighth, if it may.
    """
    options = DecodeOptions(keep_partial=True, shrink_to=2 * max_side, rotate=rotate)
    return encode_preview(decode_file(path, limits, options), max_side)


def preview_part(rgb: Pixels, result: Path, max_side: int) -> bytes:
    """JPEG bytes of a part of a result, (h, w, 3) RGB in the colours of the result's profile; no pixel is decoded."""
    profile = read_profile(result)
    grey = profile is not None and profile_space(profile) == "GRAY"
    table = colour.srgb_table(profile, grey=grey)
    return encode_preview(Picture(rgb, icc_profile=profile, srgb_table=table), max_side)


def read_profile(path: Path) -> bytes | None:
    """The colour profile in the header of a result of our own; no pixel is decoded. Same errors as `read_header`."""
    with path.open("rb") as file, open_picture(file, _ANY_RESULT) as photo:
        profile = photo.image.info.get("icc_profile")
        return profile if isinstance(profile, bytes) and profile else None
