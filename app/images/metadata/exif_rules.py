"""What of a photo's EXIF may travel: what describes the source file is rewritten or dropped, the place on request."""

from __future__ import annotations

import math
import struct

from app.images.metadata import exif_tags as tags
from app.images.metadata.exif import (
    ASCII,
    BYTE,
    DOUBLE,
    FLOAT,
    RATIONAL,
    SHORT,
    SIGNED_RATIONAL,
    UNDEFINED,
    Exif,
    Value,
)
from app.images.metadata.exif_writing import MAX_MAKER_NOTE_START
from app.images.metadata.place import tells_place
from app.images.metadata.regions import turned_box

_CENTIMETRES_PER_INCH = 2.54
_INCH, _CENTIMETRE = 2, 3
_MAX_UNSIGNED = 0xFFFFFFFF
# Maker notes whose offsets count from their own start, so that they may stand anywhere.
_MOVABLE_NOTES = (
    b"Nikon\0\2",
    b"OLYMPUS\0",
    b"OM SYSTEM\0",
    b"FUJIFILM",
    b"Apple iOS\0",
    b"PENTAX \0",
    b"SIGMA\0\0\0\1",
)
_TEXT_CODES = {b"ASCII\0\0\0": "ascii", b"UNICODE\0": "utf-16", b"JIS\0\0\0\0\0": "iso2022_jp"}


def make_upright(block: Exif, orientation: int, width: int, height: int) -> None:
    """Reset the orientation and set the stated sizes to those of the upright picture, `width` x `height` pixels.

    Subject areas are turned from the stored picture of that orientation.
    """
    if tags.ORIENTATION in block.main:
        block.main[tags.ORIENTATION] = block.shorts(1)
    block.photo.pop(tags.ORIENTATION, None)
    if tags.YCBCR_POSITIONING in block.main:
        block.main[tags.YCBCR_POSITIONING] = block.shorts(1)  # centred, as every encoder here does it
    stored = (height, width) if orientation >= 5 else (width, height)
    for tag in (tags.SUBJECT_AREA, tags.SUBJECT_LOCATION):
        if tag in block.photo:
            _map_area(block, tag, stored, orientation, (width, height))
    if tags.SUBJECT_AREA in block.photo or tags.SUBJECT_LOCATION in block.photo:
        # They are in pixels of the picture whose size stands here, and are scaled by it later.
        block.photo[tags.PIXEL_WIDTH], block.photo[tags.PIXEL_HEIGHT] = block.shorts(width), block.shorts(height)
    _set_sizes(block, width, height)


def set_sizes(block: Exif, width: int, height: int) -> None:
    """Set the stated sizes, and what is given in pixels, to a result of `width` x `height` pixels."""
    stated = [block.photo.get(tag) for tag in (tags.PIXEL_WIDTH, tags.PIXEL_HEIGHT)]
    numbers = [number for value in stated if value for number in value.integers(block.order)[:1]]
    for tag in (tags.SUBJECT_AREA, tags.SUBJECT_LOCATION):
        if tag in block.photo:
            if len(numbers) == 2 and all(numbers):
                _map_area(block, tag, (numbers[0], numbers[1]), 1, (width, height))
            else:
                del block.photo[tag]
    _set_sizes(block, width, height)


def _set_sizes(block: Exif, width: int, height: int) -> None:
    pairs = (
        (block.main, tags.IMAGE_WIDTH, tags.IMAGE_HEIGHT),
        (block.photo, tags.PIXEL_WIDTH, tags.PIXEL_HEIGHT),
        (block.interop, tags.RELATED_WIDTH, tags.RELATED_HEIGHT),
    )
    for directory, wide, high in pairs:
        for tag, size in ((wide, width), (high, height)):
            if tag in directory:
                directory[tag] = block.shorts(size)


def _map_area(block: Exif, tag: int, stored: tuple[int, int], orientation: int, size: tuple[int, int]) -> None:
    """Turn and scale a point, a circle (centre, diameter) or a box (centre, sides) in pixels; drop what is none."""
    numbers = block.photo[tag].integers(block.order)
    if not 2 <= len(numbers) <= 4 or not all(stored):
        del block.photo[tag]
        return
    x, y = numbers[0] / stored[0], numbers[1] / stored[1]
    w, h = (numbers[2] / stored[0], numbers[-1] / stored[1]) if len(numbers) > 2 else (0.0, 0.0)
    x, y, w, h = turned_box(x, y, w, h, orientation)
    scaled = [round(part * side) for part, side in zip((x, y, w, h), (*size, *size), strict=True)]
    block.photo[tag] = block.shorts(*(min(max(number, 0), _MAX_UNSIGNED) for number in scaled[: len(numbers)]))


def dpi(block: Exif) -> tuple[float, float] | None:
    """Pixels per inch in x and y, or None where the block does not give both."""
    unit = block.main.get(tags.RESOLUTION_UNIT)
    numbers = unit.integers(block.order)[:1] if unit else (_INCH,)
    factor = {_INCH: 1.0, _CENTIMETRE: _CENTIMETRES_PER_INCH}.get(numbers[0] if numbers else 0)
    found = [_rational(block, tag) for tag in (tags.X_RESOLUTION, tags.Y_RESOLUTION)]
    if factor is None or not all(found):
        return None
    return (found[0] or 0.0) * factor, (found[1] or 0.0) * factor


def _rational(block: Exif, tag: int) -> float | None:
    """A positive number of whichever type, or None."""
    value = block.main.get(tag)
    if value is None:
        return None
    try:
        if value.type in (RATIONAL, SIGNED_RATIONAL):
            top, bottom = struct.unpack_from(block.order + ("II" if value.type == RATIONAL else "ii"), value.data)
            number = top / bottom
        elif value.type in (FLOAT, DOUBLE):
            number = struct.unpack_from(block.order + ("f" if value.type == FLOAT else "d"), value.data)[0]
        else:
            number = float(value.integers(block.order)[0])
    except (ZeroDivisionError, struct.error, IndexError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def drop_odd_resolution(block: Exif) -> None:
    """Take a resolution out that is no number (0/0, as some scanners write it), or of an odd type."""
    types = {tags.X_RESOLUTION: RATIONAL, tags.Y_RESOLUTION: RATIONAL, tags.RESOLUTION_UNIT: SHORT}
    found = {tag: block.main[tag] for tag in types if tag in block.main}
    if any((value.type, value.count) != (types[tag], 1) or not _rational(block, tag) for tag, value in found.items()):
        for tag in found:
            del block.main[tag]


def set_dpi(block: Exif, value: tuple[float, float]) -> None:
    """State pixels per inch in IFD0."""
    for tag, number in zip((tags.X_RESOLUTION, tags.Y_RESOLUTION), value, strict=True):
        block.main[tag] = block.rationals(as_rational(number))
    block.main[tags.RESOLUTION_UNIT] = block.shorts(_INCH)


def as_rational(number: float) -> tuple[int, int]:
    """A positive number as numerator and denominator of 32 bits, clamped to what they hold."""
    denominator = next((part for part in (1000, 1) if number * part <= _MAX_UNSIGNED), 1)
    if number == round(number):
        denominator = 1
    return min(round(number * denominator), _MAX_UNSIGNED), denominator


def drop_unmovable_note(block: Exif) -> bool:
    """Take out a maker note that cannot stand where it stood and counts its offsets from there; whether one was."""
    note, start = block.photo.get(tags.MAKER_NOTE), block.maker_note_start
    stays = start is not None and start <= MAX_MAKER_NOTE_START
    if note is None or stays or note.data.startswith(_MOVABLE_NOTES):
        return False
    del block.photo[tags.MAKER_NOTE]
    return True


def without_place(block: Exif) -> list[str]:
    """Take the place out, in place: the GPS directory, the maker note, unknown tags, and texts that tell it.

    Returns:
        What went with it that may have said something else, in words.
    """
    block.gps.clear()
    lost = []
    if block.photo.pop(tags.MAKER_NOTE, None):
        lost.append("the camera maker's own notes")
    unknown = False
    for directory, known in ((block.main, tags.MAIN), (block.photo, tags.PHOTO), (block.interop, tags.INTEROP)):
        for tag in list(directory):
            told = _tells_place(block, tag, directory[tag])
            if tag not in known or told:
                unknown |= not told
                lost += ["an EXIF text that tells the place"] if told else []
                del directory[tag]
    if unknown:
        lost.append("unknown EXIF tags")
    return list(dict.fromkeys(lost))


def _tells_place(block: Exif, tag: int, value: Value) -> bool:
    return value.type in (BYTE, ASCII, UNDEFINED) and any(tells_place(text) for text in _texts(block, tag, value))


def _texts(block: Exif, tag: int, value: Value) -> list[str]:
    """What bytes may read as: each encoding that EXIF's texts have."""
    code = _TEXT_CODES.get(value.data[:8])
    if tag in tags.WIDE_TEXTS:
        return [value.data.decode("utf-16-le", "replace")]
    if code == "utf-16":
        return [value.data[8:].decode(f"utf-16-{end}", "replace") for end in ("le", "be")]
    if code:
        return [value.data[8:].decode(code, "replace")]
    return [value.text()]
