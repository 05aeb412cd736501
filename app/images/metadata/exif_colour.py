"""What EXIF says of a photo's colours: sRGB, or the Adobe RGB of cameras, which write it without a profile.

Such files are the "option files" of DCF (CIPA DC-009, JEITA CP-3461): the interoperability index is R03, and the colour
space is none of those that EXIF can name.
"""

from __future__ import annotations

from app.images.metadata import exif_tags as tags
from app.images.metadata.exif import ASCII, Exif, Value

SRGB, UNCALIBRATED = 1, 0xFFFF
_ADOBE_RGB = 2  # of no standard, but what some cameras and programs write
_SRGB_FILE, _ADOBE_RGB_FILE = "R98", "R03"


def is_adobe_rgb(block: Exif) -> bool:
    """Whether the numbers mean Adobe RGB where nothing else in the file says what they mean.

    A file that names sRGB is believed: programs that convert a photo set the colour space and forget the index.
    """
    space = _colour_space(block)
    return space == _ADOBE_RGB or (space != SRGB and _index(block) == _ADOBE_RGB_FILE)


def set_colour_space(block: Exif, *, own_space: bool) -> None:
    """Put right what the block says, where it says something: sRGB, or beside the profile of another space nothing."""
    for directory in (block.main, block.photo):
        if tags.COLOUR_SPACE in directory:
            directory[tags.COLOUR_SPACE] = block.shorts(UNCALIBRATED if own_space else SRGB)
    index = _index(block)
    if index == _ADOBE_RGB_FILE and not own_space:
        block.interop[tags.INTEROP_INDEX] = Value(ASCII, _SRGB_FILE.encode("ascii") + b"\0")
    elif index == _SRGB_FILE and own_space:
        del block.interop[tags.INTEROP_INDEX]


def _colour_space(block: Exif) -> int | None:
    value = block.photo.get(tags.COLOUR_SPACE) or block.main.get(tags.COLOUR_SPACE)
    numbers = value.integers(block.order) if value else ()
    return numbers[0] if numbers else None


def _index(block: Exif) -> str:
    value = block.interop.get(tags.INTEROP_INDEX)
    return value.text().strip("\0 ").upper() if value else ""
