"""EXIF, XMP and DPI: collected from an opened photo, and made fit for its result (kept, without the place, or none).

Metadata never fails a photo: what cannot be understood is dropped with a note.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from PIL import Image

from app.images.metadata import exif

MAX_XMP_BYTES = 1024 * 1024
_MAX_DPI = 100_000.0
# Tags that describe a TIFF photo; the others describe the file's own strips and must not travel.
_TIFF_TAGS = (270, 271, 272, 274, 305, 306, 315, 316, 33432)
_TIFF_DIRECTORIES = (exif.EXIF_POINTER, exif.GPS_POINTER)
# Local names of XMP properties that say where a photo was taken, in whatever namespace prefix.
_PLACE = (
    rb"(?:GPS[A-Za-z]*|Gps[A-Za-z]*|Latitude|Longitude|AbsoluteAltitude|RelativeAltitude|City|State|Country|CountryCode"
    rb"|Location|Sublocation|LocationCreated|LocationShown|LocationName)"
)
_PREFIX = rb"[A-Za-z_][\w.-]*:"
_PLACE_ATTRIBUTE = re.compile(rb"\s" + _PREFIX + _PLACE + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_PLACE_EMPTY = re.compile(rb"<" + _PREFIX + _PLACE + rb"(?:\s[^<>]*)?/>")
_PLACE_OPENING = re.compile(rb"<(" + _PREFIX + _PLACE + rb")(?:\s[^<>]*)?>")
_MAX_PLACE_ELEMENTS = 200
_COORDINATES_LEFT = re.compile(rb"gps|latitude|longitude", re.IGNORECASE)
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[1-8]")


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What travels beside the pixels; `orientation` is what the source had, `exif` and `xmp` are already upright."""

    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    orientation: int = 1
    notes: tuple[str, ...] = ()


def collect(image: Image.Image) -> Metadata:
    """Read the metadata of a photo whose pixels are loaded (some formats hold it behind them)."""
    notes: list[str] = []
    block = _exif_block(image, notes)
    orientation = exif.orientation(block) if block else 1
    if block:
        block = _edit_exif(exif.upright, block, notes)
    xmp = _xmp_packet(image, notes)
    if xmp and orientation != 1:
        xmp = _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)
    return Metadata(block, xmp, _dpi(image), orientation, tuple(notes))


def for_result(source: Metadata, width: int, height: int, policy: str) -> Metadata:
    """What the result of `width` x `height` pixels carries under a policy: keep, strip_gps or strip.

    `strip_gps` takes GPS and embedded IPTC out of EXIF, and coordinates and place names out of XMP. Where coordinates
    seem to be left, the whole packet goes.
    """
    if policy == "strip":
        return Metadata()
    notes: list[str] = []
    block, xmp = source.exif, source.xmp
    if block:
        block = _edit_exif(lambda data: exif.resized(data, width, height), block, notes)
    if block and policy == "strip_gps":
        block = _edit_exif(exif.without_place, block, notes)
    if xmp and policy == "strip_gps":
        xmp = _xmp_without_place(xmp, notes)
    return Metadata(block, xmp, source.dpi, 1, tuple(notes))


def _edit_exif(edit: Any, block: bytes, notes: list[str]) -> bytes | None:
    try:
        edited: bytes = edit(block)
    except ValueError:
        notes.append("The photo's EXIF data is broken and was left out.")
        return None
    return edited


def _exif_block(image: Image.Image, notes: list[str]) -> bytes | None:
    """The raw EXIF block, from its TIFF header on; a TIFF's own tags are gathered into one."""
    try:
        if image.format == "TIFF":
            return _tiff_block(image)
        raw = image.info.get("exif")
        if raw is None and "Raw profile type exif" in image.info:
            raw = image.getexif().tobytes()
    except Exception:  # noqa: BLE001 - broken tags raise nearly every class there is
        notes.append("The photo's EXIF data is broken and was left out.")
        return None
    return exif.without_prefix(raw) if isinstance(raw, bytes) and raw else None


def _tiff_block(image: Image.Image) -> bytes | None:
    source = image.getexif()
    block = Image.Exif()
    for tag in _TIFF_TAGS:
        if tag in source:
            block[tag] = source[tag]
    for pointer in _TIFF_DIRECTORIES:
        directory = source.get_ifd(pointer)
        if directory:
            block[pointer] = dict(directory)
    return exif.without_prefix(block.tobytes()) if len(block) else None


def _xmp_packet(image: Image.Image, notes: list[str]) -> bytes | None:
    raw = image.info.get("xmp")
    if isinstance(raw, str):
        raw = raw.encode("utf-8", "replace")
    if not isinstance(raw, bytes) or not raw.strip(b"\0 \r\n\t"):
        return None
    packet = raw.strip(b"\0")
    try:
        packet.decode("utf-8")
    except UnicodeDecodeError:
        notes.append("The photo's XMP data is not UTF-8 and was left out.")
        return None
    if len(packet) > MAX_XMP_BYTES or b"\0" in packet:
        notes.append("The photo's XMP data is too large or broken and was left out.")
        return None
    return packet


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    value = image.info.get("dpi")
    try:
        x, y = (float(part) for part in value)  # type: ignore[union-attr]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    # 1 is what Pillow says of a TIFF without resolution.
    valid = all(math.isfinite(part) and 1 < part <= _MAX_DPI for part in (x, y))
    return (x, y) if valid else None


def _xmp_without_place(packet: bytes, notes: list[str]) -> bytes | None:
    for pattern in (_PLACE_ATTRIBUTE, _PLACE_EMPTY):
        packet = pattern.sub(b"", packet)
    packet, whole = _without_place_elements(packet)
    if not whole or _COORDINATES_LEFT.search(packet):
        notes.append("The photo's XMP data holds coordinates in an unknown form and was left out.")
        return None
    return packet


def _without_place_elements(packet: bytes) -> tuple[bytes, bool]:
    """Cut out place elements up to their closing tags; False when one is not closed or there are absurdly many.

    A regular expression over opening and closing tag would take hours on a packet of opening tags alone.
    """
    for _ in range(_MAX_PLACE_ELEMENTS):
        opening = _PLACE_OPENING.search(packet)
        if opening is None:
            return packet, True
        closing = packet.find(b"</" + opening[1], opening.end())
        stop = packet.find(b">", closing) if closing >= 0 else -1
        if stop < 0:
            return packet, False
        packet = packet[: opening.start()] + packet[stop + 1 :]
    return packet, False
