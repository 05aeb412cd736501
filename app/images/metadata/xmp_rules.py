"""What of a photo's XMP may travel: what describes the source file is rewritten or dropped, the place on request."""

from __future__ import annotations

from app.images.metadata import regions
from app.images.metadata.exif_colour import SRGB, UNCALIBRATED
from app.images.metadata.place import is_place_property, tells_place
from app.images.metadata.xmp import (
    DC,
    EXIF,
    IPTC_CORE,
    IPTC_EXT,
    PHOTOSHOP,
    RDF,
    RIGHTS,
    TIFF,
    XAP,
    XML,
    Name,
    Packet,
    Value,
)

_CAMERA = "http://ns.google.com/photos/1.0/camera/"
_PANORAMA = "http://ns.google.com/photos/1.0/panorama/"
# What these say is of other things in the same file: films, depth and gain maps, second pictures, further packets.
_OTHER_THINGS = (
    "http://ns.google.com/photos/1.0/container/",
    "http://ns.google.com/photos/1.0/depthmap/",
    "http://ns.google.com/photos/1.0/image/",
    "http://ns.google.com/photos/1.0/audio/",
    "http://ns.google.com/photos/1.0/focus/",
    "http://ns.google.com/photos/dd/",
    "http://ns.adobe.com/hdr-gain-map/",
    "http://ns.apple.com/HDRGainMap/",
    "http://ns.apple.com/pixeldatainfo/",
    "http://ns.xiaomi.com/photos/",
    "http://ns.oplus.com/photos/",
    "http://ns.samsung.com/",
    "http://ns.adobe.com/xmp/note/",
)
_FILM = ("MotionPhoto", "MicroVideo")
_OTHER_THINGS_OF_CAMERA = (*_FILM, "hdrp_", "shot_log_data")
_ABOUT_THE_FILE: frozenset[Name] = frozenset(
    {
        *((TIFF, name) for name in ("Compression", "BitsPerSample", "PhotometricInterpretation", "SamplesPerPixel")),
        *((TIFF, name) for name in ("PlanarConfiguration", "YCbCrSubSampling", "YCbCrPositioning", "NativeDigest")),
        *((TIFF, name) for name in ("YCbCrCoefficients", "ReferenceBlackWhite", "TransferFunction")),
        *((TIFF, name) for name in ("WhitePoint", "PrimaryChromaticities")),
        *((EXIF, name) for name in ("NativeDigest", "CompressedBitsPerPixel", "SubjectArea", "SubjectLocation")),
        *((PHOTOSHOP, name) for name in ("LegacyIPTCDigest", "ColorMode", "ICCProfile")),
        (XAP, "Thumbnails"),
    }
)
_WIDTHS: frozenset[Name] = frozenset({(TIFF, "ImageWidth"), (EXIF, "PixelXDimension")})
_HEIGHTS: frozenset[Name] = frozenset({(TIFF, "ImageLength"), (EXIF, "PixelYDimension")})
_COLOUR_SPACE: Name = (EXIF, "ColorSpace")  # as EXIF numbers it
_WIDE_OF_PANORAMA = (
    "FullPanoWidthPixels",
    "CroppedAreaLeftPixels",
    "LargestValidInteriorRectLeft",
    "LargestValidInteriorRectWidth",
)
_HIGH_OF_PANORAMA = (
    "FullPanoHeightPixels",
    "CroppedAreaTopPixels",
    "LargestValidInteriorRectTop",
    "LargestValidInteriorRectHeight",
)
# Schemas whose properties are known well enough to say which of them name a place.
_KNOWN = frozenset(
    {
        *(RDF, XML, DC, XAP, RIGHTS, TIFF, EXIF, PHOTOSHOP, IPTC_CORE, IPTC_EXT, _CAMERA, _PANORAMA),
        "http://ns.adobe.com/xap/1.0/mm/",
        "http://ns.adobe.com/xap/1.0/bj/",
        *(f"http://ns.adobe.com/xap/1.0/sType/{part}#" for part in ("ResourceRef", "ResourceEvent", "Version", "Job")),
        *(f"http://ns.adobe.com/{part}#" for part in ("xap/1.0/sType/Dimensions", "xmp/sType/Area", "xap/1.0/g")),
        "http://ns.adobe.com/xmp/Identifier/qual/1.0/",
        "http://cipa.jp/exif/1.0/",
        "http://ns.adobe.com/exif/1.0/aux/",
        "http://ns.adobe.com/lightroom/1.0/",
        "http://ns.adobe.com/camera-raw-settings/1.0/",
        "http://ns.adobe.com/pdf/1.3/",
        "http://ns.useplus.org/ldf/xmp/1.0/",
        "http://creativecommons.org/ns#",
        "http://www.metadataworkinggroup.com/schemas/regions/",
        "http://www.metadataworkinggroup.com/schemas/keywords/",
        "http://ns.microsoft.com/photo/1.0/",
        "http://ns.microsoft.com/photo/1.2/",
        *(f"http://ns.microsoft.com/photo/1.2/t/{part}#" for part in ("RegionInfo", "Region")),
        "http://www.digikam.org/ns/1.0/",
        "http://ns.acdsee.com/iptc/1.0/",
        "http://ns.acdsee.com/regions/",
        "http://ns.acdsee.com/sType/Area#",
    }
)


def make_upright(packet: Packet, orientation: int, size: tuple[int, int]) -> bool:
    """Take out what describes the source file, and turn what describes the picture.

    Args:
        packet: changed in place.
        orientation: 1 to 8, of the stored picture; size: its width and height in pixels.

    Returns:
        Whether the packet spoke of a film in the same file.
    """
    had_film = False
    for mapping in packet.mappings():
        for name in list(mapping):
            other = name[0].startswith(_OTHER_THINGS) or (
                name[0] == _CAMERA and name[1].startswith(_OTHER_THINGS_OF_CAMERA)
            )
            had_film |= other and name[1].startswith(_FILM)
            turned_panorama = name[0] == _PANORAMA and orientation != 1
            if other or turned_panorama or name in _ABOUT_THE_FILE:
                del mapping[name]
            elif name == (TIFF, "Orientation"):
                mapping[name] = Value("1")
    regions.turn(packet, orientation, size)
    return had_film


def fit(packet: Packet, width: int, height: int, mime: str) -> None:
    """Set sizes, regions' sizes and the format to those of the result; sizes in pixels."""
    _scale_panorama(packet, width, height)
    for mapping in packet.mappings():
        for name in mapping:
            if name in _WIDTHS | _HEIGHTS:
                mapping[name] = Value(str(width if name in _WIDTHS else height))
    if (DC, "format") in packet.properties:
        packet.properties[DC, "format"] = Value(mime)
    regions.set_sizes(packet, width, height)


def set_colour_space(packet: Packet, *, own_space: bool) -> None:
    """Put right what a packet says: sRGB, or beside the profile of another space none that it could name."""
    if _COLOUR_SPACE in packet.properties:
        packet.properties[_COLOUR_SPACE] = Value(str(UNCALIBRATED if own_space else SRGB))


def _scale_panorama(packet: Packet, width: int, height: int) -> None:
    """The picture is the cropped area of a sphere or cylinder, whose sizes are given in pixels of the picture."""
    properties = packet.properties
    if not any(name[0] == _PANORAMA for name in properties):
        return
    area = [(_PANORAMA, f"CroppedAreaImage{side}Pixels") for side in ("Width", "Height")]
    try:
        factors = [size / float(properties[name].text) for size, name in zip((width, height), area, strict=True)]
        for factor, names in zip(factors, (_WIDE_OF_PANORAMA, _HIGH_OF_PANORAMA), strict=True):
            for name in ((_PANORAMA, local) for local in names):
                if name in properties:
                    properties[name] = Value(str(round(float(properties[name].text) * factor)))
    except (KeyError, ValueError, ZeroDivisionError, OverflowError):
        for name in [name for name in properties if name[0] == _PANORAMA]:
            del properties[name]
        return
    properties |= {name: Value(str(size)) for name, size in zip(area, (width, height), strict=True)}


def without_place(packet: Packet) -> bool:
    """Take the place out of a packet, in place; schemas that are not known go whole.

    Returns:
        Whether anything but places was taken out with them.
    """
    kept, dropped = _clean_fields(packet.properties)
    packet.properties = kept
    return dropped


def _clean_fields(fields: dict[Name, Value]) -> tuple[dict[Name, Value], bool]:
    kept: dict[Name, Value] = {}
    dropped = False
    for name, value in fields.items():
        if is_place_property(name[1]):
            continue
        if name[0] not in _KNOWN:
            dropped = True
            continue
        cleaned, lost = _clean_value(value)
        dropped |= lost
        if cleaned is not None:
            kept[name] = cleaned
    return kept, dropped


def _clean_value(value: Value) -> tuple[Value | None, bool]:
    """The value without places, or None when nothing is left of it; and whether more than places went."""
    if value.items is not None:
        cleaned = [_clean_value(item) for item in value.items]
        items = [item for item, _ in cleaned if item is not None]
        return (Value(items=items, kind=value.kind) if items or not value.items else None), any(
            lost for _, lost in cleaned
        )
    qualifiers, lost = _clean_fields(value.qualifiers)
    if value.fields is not None:
        fields, lost_below = _clean_fields(value.fields)
        gone = value.fields and not fields
        return (None if gone else Value(fields=fields, qualifiers=qualifiers)), lost or lost_below
    if tells_place(value.text):
        return None, True
    return Value(value.text, value.is_uri, qualifiers=qualifiers), lost
