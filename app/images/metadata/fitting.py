"""Metadata cut to what a format of results holds: IPTC and texts become XMP where they have no room as they are.

What finds no place is named in one note.
"""

from __future__ import annotations

import dataclasses

from app.images.metadata import exif, exif_rules, exif_writing, iptc, jpeg_metadata, xmp, xmp_parsing, xmp_writing
from app.images.metadata import exif_tags as tags
from app.images.metadata.rewriting import Metadata
from app.notices import NoticeKind, say

_INCHES_PER_METRE = 1 / 0.0254
_MAX_JPEG_DPI = 65_535
_MAX_JPEG_EXIF_BYTES = jpeg_metadata.MAX_SEGMENT_BYTES - len(jpeg_metadata.EXIF_MARK)
_MAX_JPEG_XMP_BYTES = jpeg_metadata.MAX_SEGMENT_BYTES - len(jpeg_metadata.XMP_MARK)
_MAX_RATIONAL = 0xFFFFFFFF
_MAX_DPI = {"jpg": _MAX_JPEG_DPI, "png": _MAX_RATIONAL / _INCHES_PER_METRE}
_WRAPPER_BYTES = 300  # of a packet with one property, about
_COMMENT = "Comment"
_NAMED = 12
# PNG's own keywords (PNG 3rd edition, 11.3.3.1) in whichever case, and what they mean in XMP.
_TEXT_PROPERTIES: dict[str, xmp.Name] = {
    "Title": (xmp.DC, "title"),
    "Author": (xmp.DC, "creator"),
    "Description": (xmp.DC, "description"),
    "Copyright": (xmp.DC, "rights"),
    "Software": (xmp.XAP, "CreatorTool"),
    _COMMENT: (xmp.EXIF, "UserComment"),
}


def fitted(carried: Metadata, form: str) -> Metadata:
    """The metadata as a file of a format (jpg, png, webp, tiff, avif) holds it; nothing in it is too large then."""
    homeless: list[str] = []
    carried = _with_resolution(carried, form)
    if form != "png":
        carried = _texts_elsewhere(carried, form, homeless)
    if form in ("webp", "avif"):
        carried = _iptc_elsewhere(carried, homeless)
    if form == "jpg":
        carried = _within_segments(carried, homeless)
    if form == "avif":
        carried = dataclasses.replace(carried, exif=_without_orientation(carried.exif))
    if not homeless:
        return carried
    names = ", ".join(homeless[:_NAMED]) + (" and more" if len(homeless) > _NAMED else "")
    note = say(
        NoticeKind.NO_PLACE_IN_FORMAT, "A {format} file has no place for {names}; left out.", format=form, names=names
    )
    return dataclasses.replace(carried, notes=(*carried.notes, note))


def _with_resolution(carried: Metadata, form: str) -> Metadata:
    """Clamped to what the format's field holds; WebP and AVIF have none, so EXIF says it."""
    if carried.dpi is None:
        return carried
    x, y = carried.dpi
    notes = carried.notes
    limit = _MAX_DPI.get(form)
    if limit is not None and max(x, y) > limit:
        words = "A {format} file holds at most {limit} dots per inch; the photo says {dpi}."
        stated = {"limit": f"{limit:.0f}", "dpi": f"{max(x, y):.0f}"}
        notes = (*notes, say(NoticeKind.RESOLUTION_CLAMPED, words, format=form, **stated))
        x, y = min(x, limit), min(y, limit)
    if form in ("webp", "avif"):
        block = exif.parse(carried.exif) if carried.exif else exif.Exif()
        if tags.X_RESOLUTION not in block.main:
            exif_rules.set_dpi(block, (x, y))
            carried = dataclasses.replace(carried, exif=exif_writing.serialized(block))
    return dataclasses.replace(carried, dpi=(x, y), notes=notes)


def _without_orientation(block: bytes | None) -> bytes | None:
    """AVIF says it in a box of its own, and Pillow would re-write a block that has the tag, unknown types and all."""
    if block is None:
        return None
    parsed = exif.parse(block)
    parsed.main.pop(tags.ORIENTATION, None)
    return exif_writing.serialized(parsed)


def _texts_elsewhere(carried: Metadata, form: str, homeless: list[str]) -> Metadata:
    """Texts of PNG and JPEG comments: comments stay in a JPEG, what XMP has a property for goes there."""
    comments = tuple(text for text in carried.texts if form == "jpg" and text[0].capitalize() == _COMMENT)
    properties: dict[xmp.Name, xmp.Value] = {}
    labels: dict[xmp.Name, list[str]] = {}
    for keyword, text in carried.texts:
        name, label = _TEXT_PROPERTIES.get(keyword.capitalize()), f"the text '{keyword[:40]}'"
        if (keyword, text) in comments:
            continue
        if name is None or name in properties:
            homeless.append(label)
            continue
        labels[name] = [label]
        if name == (xmp.DC, "creator"):
            properties[name] = xmp.text_list([text], "Seq")
        else:
            properties[name] = xmp.Value(text) if name[0] == xmp.XAP else xmp.default_text(text)
    return dataclasses.replace(carried, texts=comments, xmp=_with_properties(carried.xmp, properties, labels, homeless))


def _iptc_elsewhere(carried: Metadata, homeless: list[str]) -> Metadata:
    if carried.iptc is None:
        return carried
    data_sets = iptc.parse(carried.iptc)[0]
    properties, unmapped = iptc.as_properties(data_sets)
    homeless += [f"IPTC 2:{number:02}" for number in unmapped]
    labels: dict[xmp.Name, list[str]] = {}
    for number in sorted({number for _, number, _ in data_sets}):
        name = iptc.property_of(number)
        if name:
            labels.setdefault(name, []).append(f"IPTC 2:{number:02}")
    return dataclasses.replace(carried, iptc=None, xmp=_with_properties(carried.xmp, properties, labels, homeless))


def _with_properties(
    packet: bytes | None, properties: dict[xmp.Name, xmp.Value], labels: dict[xmp.Name, list[str]], homeless: list[str]
) -> bytes | None:
    """A packet with properties that it does not have yet; where it says something else, theirs are left out."""
    if not properties:
        return packet
    parsed = xmp_parsing.parse(packet) if packet else xmp.Packet()
    for name, value in properties.items():
        if name in parsed.properties and not set(value.texts()) <= set(parsed.properties[name].texts()):
            homeless += labels[name]
    parsed.merge(xmp.Packet(properties))
    return xmp_writing.serialized(parsed)


def _within_segments(carried: Metadata, homeless: list[str]) -> Metadata:
    """A JPEG's segment holds 64 KiB: of EXIF and XMP the largest parts go first, until the rest fits."""
    block, packet = carried.exif, carried.xmp
    if block and len(block) > _MAX_JPEG_EXIF_BYTES:
        block = _smaller_exif(exif.parse(block), homeless)
    if packet and len(packet) > _MAX_JPEG_XMP_BYTES:
        packet = _smaller_xmp(xmp_parsing.parse(packet), homeless)
    comments = tuple(
        one for one in carried.texts if len(one[1].encode("utf-8", "replace")) <= jpeg_metadata.MAX_SEGMENT_BYTES
    )
    if len(comments) < len(carried.texts):
        homeless.append("a comment of more than 64 KiB")
    return dataclasses.replace(carried, exif=block, xmp=packet, texts=comments)


def _smaller_exif(block: exif.Exif, homeless: list[str]) -> bytes | None:
    data = exif_writing.serialized(block)
    while data and len(data) > _MAX_JPEG_EXIF_BYTES:
        values = [(len(value.data), tag, one) for one in block.directories() for tag, value in one.items()]
        excess = len(data) - _MAX_JPEG_EXIF_BYTES
        for size, tag, directory in sorted(values, key=lambda entry: -entry[0]):
            del directory[tag]
            homeless.append(f"the EXIF tag 0x{tag:04x}, which is too large")
            excess -= size
            if excess <= 0:
                break
        data = exif_writing.serialized(block)
    return data


def _smaller_xmp(packet: xmp.Packet, homeless: list[str]) -> bytes | None:
    data = xmp_writing.serialized(packet)
    while data and len(data) > _MAX_JPEG_XMP_BYTES:
        alone = {name: xmp.Packet({name: value}, packet.prefixes) for name, value in packet.properties.items()}
        sizes = {name: len(xmp_writing.serialized(one) or b"") - _WRAPPER_BYTES for name, one in alone.items()}
        excess = len(data) - _MAX_JPEG_XMP_BYTES
        for name in sorted(sizes, key=lambda name: -sizes[name]):
            del packet.properties[name]
            homeless.append(f"the XMP property {name[1][:40]}, which is too large")
            excess -= sizes[name]
            if excess <= 0:
                break
        data = xmp_writing.serialized(packet)
    return data
