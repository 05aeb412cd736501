"""IPTC records (IIM) and the Photoshop resources that carry them: parsed, cleaned, written anew, and mapped to XMP.

Sources: IPTC-NAA Information Interchange Model 4.2; Adobe Photoshop File Formats; IPTC Photo Metadata mappings 2023.1.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from app.images.metadata import xmp
from app.images.metadata.place import IPTC_PLACES, tells_place

MAX_BLOCK_BYTES = 256 * 1024
_MAX_DATA_SETS = 10_000
_MARK = 0x1C
_ENVELOPE, _APPLICATION = 1, 2
_CHARACTER_SET = (1, 90)
_UTF8 = b"\x1b%G"
_PREVIEWS = frozenset({200, 201, 202})
# Data sets of the application record that hold something else than text of people.
_KNOWN = frozenset(
    {0, 3, 4, 5, 7, 8, 10, 12, 15, 20, 22, 25, 30, 35, 37, 38, 40, 42, 45, 47, 50, 55, 60, 62, 63, 65, 70, 75}
)
_KNOWN_PEOPLE = frozenset({80, 85, 103, 105, 110, 115, 116, 118, 120, 121, 122, 130, 131, 135, 184, 187, 188})
_RESOURCE_MARK = b"8BIM"
_IPTC_RESOURCE, _DIGEST_RESOURCE = 0x0404, 0x0425
XMP_RESOURCE, EXIF_RESOURCE = 0x0424, 0x0422
COPYRIGHT_FLAG_RESOURCE, URL_RESOURCE = 0x040A, 0x040B

DataSet = tuple[int, int, bytes]


def parse(data: bytes) -> tuple[list[DataSet], bool]:
    """The data sets (record, number, value) of a block in their order, and whether all of it could be read.

    Previews and the records of other media, whose contents describe another file, are passed over.
    """
    found: list[DataSet] = []
    position = 0
    while position + 5 <= len(data) and data[position] == _MARK and len(found) < _MAX_DATA_SETS:
        record, number, length = struct.unpack_from(">BBH", data, position + 1)
        position += 5
        if length & 0x8000:  # the length of a length
            digits = length & 0x7FFF
            length = int.from_bytes(data[position : position + digits], "big") if digits <= 4 else len(data)
            position += digits
        if position + length > len(data):
            return found, False
        if record in (_ENVELOPE, _APPLICATION) and not (record == _APPLICATION and number in _PREVIEWS):
            found.append((record, number, data[position : position + length]))
        position += length
    return found, not data[position:].strip(b"\0")


def serialized(data_sets: list[DataSet]) -> bytes | None:
    """One block of data sets, records in ascending order, or None when there are none of the application record."""
    if not any(record == _APPLICATION for record, _, _ in data_sets):
        return None
    parts = []
    for record, number, value in sorted(data_sets, key=lambda one: one[0]):
        length = struct.pack(">H", len(value)) if len(value) < 0x8000 else struct.pack(">HI", 0x8004, len(value))
        parts.append(bytes((_MARK, record, number)) + length + value)
    return b"".join(parts)


def text_of(data_sets: list[DataSet], value: bytes) -> str:
    """A value as text: UTF-8 where the block says so or where it reads as that, else Latin-1."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        says_utf8 = any((record, number) == _CHARACTER_SET and one == _UTF8 for record, number, one in data_sets)
        return value.decode("utf-8", "replace") if says_utf8 else value.decode("latin-1")


def without_place(data_sets: list[DataSet]) -> tuple[list[DataSet], bool]:
    """The data sets that are known and tell no place, and whether anything but places went with them."""
    kept = []
    lost = False
    for record, number, value in data_sets:
        if record == _APPLICATION:
            if number in IPTC_PLACES:
                continue
            if number not in _KNOWN | _KNOWN_PEOPLE or tells_place(text_of(data_sets, value)):
                lost = True
                continue
        elif (record, number) != _CHARACTER_SET and number != 0:
            continue  # the envelope's routing, which is of no use outside a news agency's wire
        kept.append((record, number, value))
    return kept, lost


def resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and contents of each Photoshop resource, as far as they can be read."""
    position = 0
    while data[position : position + 4] == _RESOURCE_MARK and position + 12 <= len(data):
        number = int.from_bytes(data[position + 4 : position + 6], "big")
        position += 6 + 1 + data[position + 6]
        position += position % 2
        size = int.from_bytes(data[position : position + 4], "big")
        if position + 4 + size > len(data):
            return
        yield number, data[position + 4 : position + 4 + size]
        position += 4 + size + size % 2


def resource_block(block: bytes) -> bytes:
    """An IPTC block as Photoshop resources, with the digest by which Adobe's programs trust it."""
    return _resource(_IPTC_RESOURCE, block) + _resource(
        _DIGEST_RESOURCE, hashlib.md5(block, usedforsecurity=False).digest()
    )


def _resource(number: int, contents: bytes) -> bytes:
    head = _RESOURCE_MARK + struct.pack(">HHI", number, 0, len(contents))
    return head + contents + bytes(len(contents) % 2)


def is_iptc(resource: int) -> bool:
    """Whether a Photoshop resource of this number holds an IPTC block."""
    return resource == _IPTC_RESOURCE


_TEXTS: dict[int, xmp.Name] = {
    10: (xmp.PHOTOSHOP, "Urgency"),
    15: (xmp.PHOTOSHOP, "Category"),
    40: (xmp.PHOTOSHOP, "Instructions"),
    85: (xmp.PHOTOSHOP, "AuthorsPosition"),
    90: (xmp.PHOTOSHOP, "City"),
    92: (xmp.IPTC_CORE, "Location"),
    95: (xmp.PHOTOSHOP, "State"),
    100: (xmp.IPTC_CORE, "CountryCode"),
    101: (xmp.PHOTOSHOP, "Country"),
    103: (xmp.PHOTOSHOP, "TransmissionReference"),
    105: (xmp.PHOTOSHOP, "Headline"),
    110: (xmp.PHOTOSHOP, "Credit"),
    115: (xmp.PHOTOSHOP, "Source"),
    122: (xmp.PHOTOSHOP, "CaptionWriter"),
}
_LANGUAGE_TEXTS: dict[int, xmp.Name] = {5: (xmp.DC, "title"), 116: (xmp.DC, "rights"), 120: (xmp.DC, "description")}
_LISTS: dict[int, tuple[xmp.Name, str]] = {
    20: ((xmp.PHOTOSHOP, "SupplementalCategories"), "Bag"),
    25: ((xmp.DC, "subject"), "Bag"),
    80: ((xmp.DC, "creator"), "Seq"),
}
_DATE, _TIME = 55, 60
_NO_LOSS = frozenset({0})  # the record's version


def property_of(number: int) -> xmp.Name | None:
    """The property of XMP that means the same as a data set of the application record."""
    if number in (_DATE, _TIME):
        return xmp.PHOTOSHOP, "DateCreated"
    return _TEXTS.get(number) or _LANGUAGE_TEXTS.get(number) or _LISTS.get(number, (None, ""))[0]


def as_properties(data_sets: list[DataSet]) -> tuple[dict[xmp.Name, xmp.Value], list[int]]:
    """The properties that mean the same in XMP, and the numbers of the data sets that have none."""
    texts: dict[int, list[str]] = {}
    for record, number, value in data_sets:
        if record == _APPLICATION:
            texts.setdefault(number, []).append(text_of(data_sets, value))
    properties = {name: xmp.Value(texts[number][0]) for number, name in _TEXTS.items() if number in texts}
    properties |= {
        name: xmp.default_text(texts[number][0]) for number, name in _LANGUAGE_TEXTS.items() if number in texts
    }
    properties |= {
        name: xmp.text_list(texts[number], kind) for number, (name, kind) in _LISTS.items() if number in texts
    }
    if _DATE in texts:
        properties[xmp.PHOTOSHOP, "DateCreated"] = xmp.Value(_date(texts[_DATE][0], texts.get(_TIME, [""])[0]))
    return properties, sorted(number for number in set(texts) - _NO_LOSS if property_of(number) not in properties)


def _date(date: str, time: str) -> str:
    """20240131 and 120000+0100 as 2024-01-31T12:00:00+01:00; what looks otherwise stays as it is."""
    if not (len(date) == 8 and date.isascii() and date.isdigit()):
        return date
    day = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    clock, zone = time[:6], time[6:]
    if not (len(clock) == 6 and clock.isascii() and clock.isdigit()):
        return day
    written = f"{day}T{clock[:2]}:{clock[2:4]}:{clock[4:]}"
    return f"{written}{zone[:3]}:{zone[3:]}" if len(zone) == 5 and zone[0] in "+-" else written
