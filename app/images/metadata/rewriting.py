"""Metadata of a photo made fit for its result: kept, without the place, or none; nothing is edited in place.

Metadata never fails a photo: what cannot be understood, or has no place in the result, is named in a note.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from app.images.metadata import (
    exif,
    exif_colour,
    exif_rules,
    exif_writing,
    iptc,
    xmp_parsing,
    xmp_rules,
    xmp_writing,
)
from app.images.metadata.place import is_place_property, tells_place
from app.notices import NoticeKind, say

_BROKEN = "The photo's {part} data is broken and was left out."
_LEFT_OUT = "Left out with the place, since it may tell it: {names}."


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What travels beside the pixels, already upright.

    Attributes:
        exif: an EXIF block (TIFF header first). xmp: a packet in UTF-8. iptc: IPTC data sets (IIM).
        dpi: pixels per inch in x and y.
        orientation: what the source's pixels still have, 1 to 8.
        texts: keyword and text of a PNG's text chunks; a JPEG's comment has the keyword Comment.
        notes: what had to be left out, in sentences.
        adobe_rgb: the camera says that numbers without a profile mean Adobe RGB.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    orientation: int = 1
    notes: tuple[str, ...] = ()
    iptc: bytes | None = None
    texts: tuple[tuple[str, str], ...] = ()
    adobe_rgb: bool = False


def for_result(
    source: Metadata, width: int, height: int, policy: str, mime: str, *, own_space: bool = False
) -> Metadata:
    """What a result may carry.

    Args:
        source: what the photo carried, upright.
        width: of the result in pixels; height likewise.
        policy: keep, strip_gps (EXIF, XMP, IPTC and texts are built again from what is known, without the place) or
            strip (nothing but the resolution).
        mime: the result's MIME type.
        own_space: its numbers mean a space other than sRGB, which a profile in the file names.
    """
    if policy == "strip":
        return Metadata(dpi=source.dpi)
    notes: list[str] = []
    lost: list[str] = []
    anywhere = policy != "strip_gps"
    form = _Form(width, height, mime, own_space)
    result = Metadata(
        exif=_exif(source.exif, form, anywhere, notes, lost),
        xmp=_xmp(source.xmp, form, anywhere, notes, lost),
        dpi=source.dpi,
        iptc=source.iptc if anywhere else _iptc_without_place(source.iptc, lost),
        texts=source.texts if anywhere else _texts_without_place(source.texts, lost),
    )
    if lost:
        notes.append(say(NoticeKind.LEFT_OUT_WITH_PLACE, _LEFT_OUT, names=", ".join(dict.fromkeys(lost))))
    return dataclasses.replace(result, notes=tuple(notes))


class _Form(NamedTuple):
    """What a result is: its size in pixels, its MIME type, and whether it keeps a space of its own."""

    width: int
    height: int
    mime: str
    own_space: bool


def _exif(data: bytes | None, form: _Form, anywhere: bool, notes: list[str], lost: list[str]) -> bytes | None:
    if not data:
        return None
    try:
        block = exif.parse(data)
    except ValueError:
        notes.append(say(NoticeKind.METADATA_BROKEN, _BROKEN, part="EXIF"))
        return None
    exif_rules.set_sizes(block, form.width, form.height)
    exif_colour.set_colour_space(block, own_space=form.own_space)
    if not anywhere:
        lost += exif_rules.without_place(block)
    return exif_writing.serialized(block)


def _xmp(data: bytes | None, form: _Form, anywhere: bool, notes: list[str], lost: list[str]) -> bytes | None:
    if not data:
        return None
    try:
        packet = xmp_parsing.parse(data)
    except ValueError:
        notes.append(say(NoticeKind.METADATA_BROKEN, _BROKEN, part="XMP"))
        return None
    xmp_rules.fit(packet, form.width, form.height, form.mime)
    xmp_rules.set_colour_space(packet, own_space=form.own_space)
    if not anywhere and xmp_rules.without_place(packet):
        lost.append("XMP that is unknown or tells the place in its texts")
    return xmp_writing.serialized(packet)


def _iptc_without_place(data: bytes | None, lost: list[str]) -> bytes | None:
    if not data:
        return None
    kept, more = iptc.without_place(iptc.parse(data)[0])
    if more:
        lost.append("IPTC that is unknown or tells the place in its texts")
    return iptc.serialized(kept)


def _texts_without_place(texts: tuple[tuple[str, str], ...], lost: list[str]) -> tuple[tuple[str, str], ...]:
    """The texts that tell no place; the keyword may be a property of EXIF or XMP, as ImageMagick writes them."""
    named = {
        keyword: any(is_place_property(part) for part in keyword.replace(":", " ").split()) for keyword, _ in texts
    }
    telling = {keyword for keyword, text in texts if tells_place(text) or tells_place(keyword)}
    lost += [f"the text '{keyword[:40]}'" for keyword in sorted(telling) if not named[keyword]]
    return tuple((keyword, text) for keyword, text in texts if not named[keyword] and keyword not in telling)
