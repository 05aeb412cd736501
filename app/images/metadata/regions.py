"""Rectangles that XMP lays on a picture (faces, subjects): turned with it, and their stated sizes set to the result's.

Three spellings: the Metadata Working Group's (and ACDSee's), Microsoft's, and IPTC's image regions. Source: MWG
Guidelines 2.0, section 5.9; Microsoft photo schema 1.2; IPTC Photo Metadata 2023.1.
"""

from __future__ import annotations

from collections.abc import Callable

from app.images.metadata.xmp import IPTC_EXT, Name, Packet, Value

_AREA_NAMESPACES = ("http://ns.adobe.com/xmp/sType/Area#", "http://ns.acdsee.com/sType/Area#")
_DIMENSIONS = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_MICROSOFT_RECTANGLE: Name = ("http://ns.microsoft.com/photo/1.2/t/Region#", "Rectangle")
_APPLIED_TO = "AppliedToDimensions"
_SWAPPING = (5, 6, 7, 8)
# A point of the stored picture, x and y in 0 to 1, on the upright one; by EXIF orientation.
_TURNS: dict[int, Callable[[float, float], tuple[float, float]]] = {
    1: lambda x, y: (x, y),
    2: lambda x, y: (1 - x, y),
    3: lambda x, y: (1 - x, 1 - y),
    4: lambda x, y: (x, 1 - y),
    5: lambda x, y: (y, x),
    6: lambda x, y: (1 - y, x),
    7: lambda x, y: (1 - y, 1 - x),
    8: lambda x, y: (y, 1 - x),
}


def turned_box(x: float, y: float, width: float, height: float, orientation: int) -> tuple[float, float, float, float]:
    """Centre and sides of a box (all as parts of the picture's sides) on the upright picture."""
    x, y = _TURNS[orientation](x, y)
    return (x, y, height, width) if orientation in _SWAPPING else (x, y, width, height)


def turn(packet: Packet, orientation: int, size: tuple[int, int]) -> None:
    """Turn every region of a packet; what gives pixels is brought to parts of the picture's sides.

    Args:
        packet: changed in place; a region whose numbers cannot be read is taken out.
        orientation: of the stored picture, 1 to 8.
        size: width and height in pixels of the stored picture.
    """
    stored = _applied_size(packet) or size
    if orientation in _SWAPPING and (stored[0] > stored[1]) != (size[0] > size[1]):
        orientation, size = 1, (size[1], size[0])  # some programs give regions of the picture as it is shown
    for mapping in packet.mappings():
        for name in list(mapping):
            try:
                _turn_field(mapping, name, orientation, stored)
            except (ValueError, KeyError, ZeroDivisionError, OverflowError):
                del mapping[name]


def set_sizes(packet: Packet, width: int, height: int) -> None:
    """State the result's size in pixels wherever a packet says what picture its regions were drawn on."""
    for mapping in packet.mappings():
        for name, value in mapping.items():
            if name[1] == _APPLIED_TO:
                value.fields = {
                    (_DIMENSIONS, "w"): Value(str(width)),
                    (_DIMENSIONS, "h"): Value(str(height)),
                    (_DIMENSIONS, "unit"): Value("pixel"),
                }


def _applied_size(packet: Packet) -> tuple[float, float] | None:
    for mapping in packet.mappings():
        for name, value in mapping.items():
            if name[1] == _APPLIED_TO and value.fields:
                numbers = {key[1]: one.text for key, one in value.fields.items()}
                try:
                    width, height = float(numbers["w"]), float(numbers["h"])
                except (KeyError, ValueError):
                    continue
                return (width, height) if width > 0 and height > 0 else None
    return None


def _turn_field(mapping: dict[Name, Value], name: Name, orientation: int, size: tuple[float, float]) -> None:
    value = mapping[name]
    if name == _MICROSOFT_RECTANGLE:
        mapping[name] = Value(_turned_rectangle(value.text, orientation))
    elif name == (IPTC_EXT, "RegionBoundary") and value.fields:
        _turn_boundary(value.fields, orientation, size)
    elif value.fields and any((space, "x") in value.fields for space in _AREA_NAMESPACES):
        space = next(space for space in _AREA_NAMESPACES if (space, "x") in value.fields)
        _turn_area(value.fields, space, orientation, size)


def _written(number: float) -> Value:
    if not abs(number) < 1e6:
        raise ValueError("no number of a region")
    return Value(f"{number:.6f}".rstrip("0").rstrip(".") or "0")


def _number(fields: dict[Name, Value], name: Name, default: float | None = None) -> float:
    if name not in fields and default is not None:
        return default
    return float(fields[name].text)


def _turn_area(fields: dict[Name, Value], space: str, orientation: int, size: tuple[float, float]) -> None:
    """A centre with sides, or a point."""
    x, y = _number(fields, (space, "x")), _number(fields, (space, "y"))
    w, h = _number(fields, (space, "w"), 0.0), _number(fields, (space, "h"), 0.0)
    unit = fields.get((space, "unit"))
    if unit is not None and unit.text == "pixel":
        x, y, w, h = x / size[0], y / size[1], w / size[0], h / size[1]
        fields[space, "unit"] = Value("normalized")
    for key, number in zip("xywh", turned_box(x, y, w, h, orientation), strict=True):
        if (space, key) in fields or key in "xy":
            fields[space, key] = _written(number)


def _turned_rectangle(text: str, orientation: int) -> str:
    """Left, top, width and height, each a part of a side."""
    left, top, width, height = (float(part) for part in text.split(","))
    x, y, width, height = turned_box(left + width / 2, top + height / 2, width, height, orientation)
    return ", ".join(_written(number).text for number in (x - width / 2, y - height / 2, width, height))


def _turn_boundary(fields: dict[Name, Value], orientation: int, size: tuple[float, float]) -> None:
    """A rectangle (its upper left corner with sides), a circle, or a polygon."""
    unit = (IPTC_EXT, "rbUnit")
    in_pixels = unit in fields and fields[unit].text == "pixel"
    across, down = size if in_pixels else (1.0, 1.0)
    fields[unit] = Value("relative")
    if (IPTC_EXT, "rbX") in fields:
        _turn_corner(fields, orientation, across, down)
    radius = (IPTC_EXT, "rbRx")
    if radius in fields:  # a part of the width, whichever side that is now
        width = size[1] if orientation in _SWAPPING else size[0]
        fields[radius] = _written(_number(fields, radius) / across * size[0] / width)
    vertices = fields.get((IPTC_EXT, "rbVertices"))
    for vertex in (vertices.items if vertices is not None else None) or ():
        if vertex.fields:
            _turn_corner(vertex.fields, orientation, across, down)


def _turn_corner(fields: dict[Name, Value], orientation: int, across: float, down: float) -> None:
    """An upper left corner with its sides, or a corner alone; `across` and `down` are what the numbers are parts of."""
    x, y, w, h = ((IPTC_EXT, key) for key in ("rbX", "rbY", "rbW", "rbH"))
    width, height = _number(fields, w, 0.0) / across, _number(fields, h, 0.0) / down
    left, top = _number(fields, x) / across, _number(fields, y) / down
    centre_x, centre_y, width, height = turned_box(left + width / 2, top + height / 2, width, height, orientation)
    has_sides = w in fields
    fields |= {x: _written(centre_x - width / 2), y: _written(centre_y - height / 2)}
    if has_sides:
        fields |= {w: _written(width), h: _written(height)}
