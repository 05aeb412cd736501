"""XMP: read in each of RDF's spellings, written anew, and made to fit the result."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from xml.dom import minidom

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from app.images import ImageLimits, Picture, encode
from app.images.decode import decode_file
from app.images.metadata import xmp, xmp_parsing, xmp_rules, xmp_writing
from app.images.metadata.rewriting import Metadata, for_result
from tests import picture_factory as make

LIMITS = ImageLimits()
SPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "e": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "MP": "http://ns.microsoft.com/photo/1.2/",
    "MPRI": "http://ns.microsoft.com/photo/1.2/t/RegionInfo#",
    "MPReg": "http://ns.microsoft.com/photo/1.2/t/Region#",
    "note": "http://ns.adobe.com/xmp/note/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "xmpGImg": "http://ns.adobe.com/xap/1.0/g/img/",
}
HEAD = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about=""' + "".join(f' xmlns:{prefix}="{uri}"' for prefix, uri in SPACES.items())
)
TAIL = "</rdf:Description></rdf:RDF></x:xmpmeta>"
AREA = (
    '<mwg-rs:Regions rdf:parseType="Resource">'
    '<mwg-rs:AppliedToDimensions stDim:w="24" stDim:h="16" stDim:unit="pixel"/>'
    "<mwg-rs:RegionList><rdf:Bag><rdf:li>"
    '<rdf:Description mwg-rs:Name="Person One" mwg-rs:Type="Face"><mwg-rs:Area {}/></rdf:Description>'
    "</rdf:li></rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>"
)
NORMALIZED = 'stArea:x="0.75" stArea:y="0.25" stArea:w="0.2" stArea:h="0.5" stArea:unit="normalized"'
PIXELS = 'stArea:x="18" stArea:y="4" stArea:w="4.8" stArea:h="8" stArea:unit="pixel"'


def packet(body: str = "", attributes: str = "") -> bytes:
    return f"{HEAD} {attributes}>{body}{TAIL}".encode()


def reread(data: bytes | None) -> xmp.Packet:
    assert data
    minidom.parseString(data)
    return xmp_parsing.parse(data)


def decoded(folder: Path, data: bytes) -> Picture:
    (folder / "photo").write_bytes(data)
    return decode_file(folder / "photo", LIMITS)


def fitted(data: bytes, width: int = 96, height: int = 64, policy: str = "keep") -> xmp.Packet:
    return reread(for_result(Metadata(xmp=data), width, height, policy, "image/png").xmp)


@pytest.mark.parametrize(
    "body",
    [
        '<dc:source>a &lt;b&gt; &amp; "c"&#13;</dc:source>',
        "<dc:rights><rdf:Alt><rdf:li xml:lang='de'>Recht</rdf:li></rdf:Alt></dc:rights>",
        "<dc:creator><rdf:Seq><rdf:li>One</rdf:li><rdf:li>Two\n lines\tand a tab</rdf:li></rdf:Seq></dc:creator>",
        '<xmp:BaseURL rdf:resource="http://example.org/a?b=1&amp;c=2"/>',
        '<e:ArtworkOrObject><rdf:Bag><rdf:li rdf:parseType="Resource"><e:AOTitle><rdf:Alt>'
        '<rdf:li xml:lang="x-default">T</rdf:li></rdf:Alt></e:AOTitle><e:AOSource>S</e:AOSource></rdf:li></rdf:Bag>'
        "</e:ArtworkOrObject>",
        "<dc:identifier><rdf:Description><rdf:value>id</rdf:value><xmp:Scheme>isbn</xmp:Scheme></rdf:Description>"
        "</dc:identifier>",
        '<e:Empty rdf:parseType="Resource"/><dc:subject><rdf:Bag/></dc:subject>',
        "<dc:source/>",
    ],
)
def test_what_is_written_says_what_was_read(body: str) -> None:
    first = xmp_parsing.parse(packet(body))
    assert first.properties
    assert reread(xmp_writing.serialized(first)).properties == first.properties


def test_the_spellings_of_one_structure_are_one() -> None:
    inner = "<e:A>1</e:A><e:B>2</e:B>"
    spellings = [
        f'<e:S rdf:parseType="Resource">{inner}</e:S>',
        f"<e:S><rdf:Description>{inner}</rdf:Description></e:S>",
        '<e:S><rdf:Description e:A="1" e:B="2"/></e:S>',
        '<e:S e:A="1" e:B="2"/>',
        '<e:S><rdf:Description e:A="1"><e:B>2</e:B></rdf:Description></e:S>',
    ]
    found = [xmp_parsing.parse(packet(body)).properties for body in spellings]
    assert all(one == found[0] for one in found)
    assert set(found[0]) == {(xmp.IPTC_EXT, "S")}


def test_prefixes_survive_and_clashes_are_solved() -> None:
    source = packet('<a:b xmlns:a="urn:one:">1</a:b><a:b xmlns:a="urn:two:">2</a:b><b xmlns="urn:three:">3</b><c/>')
    data = xmp_writing.serialized(xmp_parsing.parse(source)) or b""
    assert b'a:b="1"' in data
    texts = {name: value.text for name, value in reread(data).properties.items()}
    assert texts == {("urn:one:", "b"): "1", ("urn:two:", "b"): "2", ("urn:three:", "b"): "3"}


def test_utf_16_and_padding_are_read_and_control_characters_not_written() -> None:
    text = packet("<dc:source>Größe</dc:source>").decode()
    wide = [text.encode(code) for code in ("utf-16", "utf-16-le", "utf-16-be")]
    wide.append(f'<?xml version="1.0" encoding="UTF-16"?>{text}'.encode("utf-16-be"))
    for data in (*wide, b"\0\0" + text.encode() + b" " * 50 + b"\0"):
        assert xmp_parsing.parse(data).properties[xmp.DC, "source"].text == "Größe"
    written = xmp_writing.serialized(xmp.Packet({(xmp.DC, "source"): xmp.Value("a\x00b\x1fc\ufffed")}))
    assert reread(written).properties[xmp.DC, "source"].text == "abcd"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no xml",
        b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]><a>&e;</a>',
        b"<!DOCTYPE a><a/>",
        b"<a>" * 200 + b"</a>" * 200,
        b"<a>" + b"<b/>" * 200_000 + b"</a>",
        b"<a>&unknown;</a>",
        b"<a" + b" " * (xmp_parsing.MAX_PACKET_BYTES) + b"/>",
    ],
)
def test_hostile_packets_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        xmp_parsing.parse(data)


# Where the area of a face stands once the picture is upright: centre, then sides.
TURNED = {
    1: (0.75, 0.25, 0.2, 0.5),
    2: (0.25, 0.25, 0.2, 0.5),
    3: (0.25, 0.75, 0.2, 0.5),
    4: (0.75, 0.75, 0.2, 0.5),
    5: (0.25, 0.75, 0.5, 0.2),
    6: (0.75, 0.75, 0.5, 0.2),
    7: (0.75, 0.25, 0.5, 0.2),
    8: (0.25, 0.25, 0.5, 0.2),
}


@pytest.mark.parametrize("area", [NORMALIZED, PIXELS])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_face_regions_turn_with_the_picture(orientation: int, area: str, tmp_path: Path) -> None:
    block = make.exif_block(orientation)
    mark = "<dc:title><rdf:Alt><rdf:li xml:lang='x-default'>T</rdf:li></rdf:Alt></dc:title>"
    photo = decoded(tmp_path, make.jpeg(exif=b"Exif\0\0" + block, xmp=packet(AREA.format(area) + mark)))
    regions = fitted(photo.xmp or b"").properties[SPACES["mwg-rs"], "Regions"]
    flat = {name[1]: value.text for mapping in regions.parts() for name, value in mapping.items() if value.is_plain}
    assert tuple(float(flat[key]) for key in "xy") == pytest.approx(TURNED[orientation][:2])
    sides = next(mapping for mapping in regions.parts() if (SPACES["stArea"], "x") in mapping)
    numbers = [float(sides[SPACES["stArea"], key].text) for key in "xywh"]
    assert numbers == pytest.approx(TURNED[orientation])
    assert (flat["Name"], flat["unit"]) in (("Person One", "normalized"), ("Person One", "pixel"))
    applied = next(mapping for mapping in regions.parts() if (SPACES["stDim"], "w") in mapping)
    assert [applied[SPACES["stDim"], key].text for key in ("w", "h", "unit")] == ["96", "64", "pixel"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_region_lies_on_the_same_pixels(orientation: int, tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[4:12, 36:54] = 255
    body = AREA.replace('"24"', '"60"').replace('"16"', '"40"')
    region = body.format('stArea:x="0.75" stArea:y="0.2" stArea:w="0.3" stArea:h="0.2" stArea:unit="normalized"')
    block = b"Exif\0\0" + make.exif_block(orientation)
    (tmp_path / "photo").write_bytes(make.saved(Image.fromarray(pixels), "PNG", exif=block, pnginfo=_xmp_chunk(region)))
    photo = decode_file(tmp_path / "photo", LIMITS)
    area = next(m for m in reread(photo.xmp).mappings() if (SPACES["stArea"], "x") in m)
    x, y, w, h = (float(area[SPACES["stArea"], key].text) for key in "xywh")
    rows, columns = np.nonzero(photo.rgb[..., 0])
    assert (columns.min() / photo.width, (columns.max() + 1) / photo.width) == pytest.approx((x - w / 2, x + w / 2))
    assert (rows.min() / photo.height, (rows.max() + 1) / photo.height) == pytest.approx((y - h / 2, y + h / 2))


def _xmp_chunk(body: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet(body).decode())
    return info


def test_regions_given_for_the_picture_as_shown_are_not_turned_twice(tmp_path: Path) -> None:
    shown = AREA.replace('stDim:w="24" stDim:h="16"', 'stDim:w="16" stDim:h="24"').format(NORMALIZED)
    photo = decoded(tmp_path, make.jpeg(exif=b"Exif\0\0" + make.exif_block(6), xmp=packet(shown)))
    assert b'stArea:x="0.75" stArea:y="0.25"' in (photo.xmp or b"")


def test_microsoft_and_iptc_regions_turn_too() -> None:
    body = (
        '<MP:RegionInfo rdf:parseType="Resource"><MPRI:Regions><rdf:Bag><rdf:li MPReg:Rectangle="0.1, 0.2, 0.3, 0.4" '
        'MPReg:PersonDisplayName="One"/></rdf:Bag></MPRI:Regions></MP:RegionInfo>'
        '<e:ImageRegion><rdf:Bag><rdf:li rdf:parseType="Resource"><e:RegionBoundary e:rbShape="rectangle" '
        'e:rbUnit="pixel" '
        'e:rbX="6" e:rbY="4" e:rbW="12" e:rbH="8"/></rdf:li><rdf:li rdf:parseType="Resource"><e:RegionBoundary '
        'rdf:parseType="Resource"><e:rbShape>polygon</e:rbShape><e:rbUnit>relative</e:rbUnit><e:rbVertices><rdf:Seq>'
        '<rdf:li e:rbX="0.1" e:rbY="0.2"/></rdf:Seq></e:rbVertices></e:RegionBoundary></rdf:li>'
        '<rdf:li rdf:parseType="Resource"><e:RegionBoundary e:rbShape="circle" e:rbUnit="relative" '
        'e:rbX="0.5" e:rbY="0.25" '
        'e:rbRx="0.1"/></rdf:li></rdf:Bag></e:ImageRegion>'
    )
    parsed = xmp_parsing.parse(packet(body))
    xmp_rules.make_upright(parsed, 6, (24, 16))
    data = (xmp_writing.serialized(parsed) or b"").decode()
    assert 'MPReg:Rectangle="0.4, 0.1, 0.4, 0.3"' in data
    assert 'e:rbX="0.25" e:rbY="0.25" e:rbW="0.5" e:rbH="0.5"' in data
    assert 'e:rbX="0.8" e:rbY="0.1"' in data
    assert 'e:rbX="0.75" e:rbY="0.5" e:rbRx="0.15"' in data


@pytest.mark.parametrize("area", ['stArea:x="a" stArea:y="0"', 'stArea:x="0.5"', 'stArea:x="nan" stArea:y="inf"'])
def test_a_region_that_cannot_be_read_is_taken_out(area: str) -> None:
    parsed = xmp_parsing.parse(packet(AREA.format(area)))
    xmp_rules.make_upright(parsed, 6, (24, 16))
    data = xmp_writing.serialized(parsed) or b""
    assert b"stArea" not in data
    assert b"Person One" in data


def test_sizes_format_and_orientation_are_the_results() -> None:
    attributes = (
        'tiff:ImageWidth="24" tiff:ImageLength="16" exif:PixelXDimension="24" exif:PixelYDimension="16" '
        'dc:format="image/x-old" tiff:Orientation="6" tiff:Compression="6" photoshop:LegacyIPTCDigest="AB" '
        'photoshop:ColorMode="4" exif:NativeDigest="x" xmp:CreatorTool="Phone"'
    )
    parsed = xmp_parsing.parse(
        packet("<xmp:Thumbnails><rdf:Alt><rdf:li xmpGImg:image='AA'/></rdf:Alt></xmp:Thumbnails>", attributes)
    )
    assert not xmp_rules.make_upright(parsed, 6, (24, 16))
    again = fitted(xmp_writing.serialized(parsed) or b"")
    assert {name[1]: value.text for name, value in again.properties.items()} == {
        "ImageWidth": "96",
        "ImageLength": "64",
        "PixelXDimension": "96",
        "PixelYDimension": "64",
        "format": "image/png",
        "Orientation": "1",
        "CreatorTool": "Phone",
    }


def test_films_and_gain_maps_are_no_longer_spoken_of(tmp_path: Path) -> None:
    body = (
        '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Container:Mime="video/mp4"/>'
        "</rdf:li></rdf:Seq></Container:Directory>"
    )
    attributes = 'GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="5000" GCamera:BurstID="7"'
    attributes += ' xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"'
    photo = decoded(tmp_path, make.jpeg(xmp=packet(body, attributes + ' xmp:CreatorTool="Phone"')))
    for gone in (b"MotionPhoto", b"MicroVideo", b"video/mp4", b"hdrgm"):
        assert gone not in (photo.xmp or b"")
    for stays in (b"BurstID", b"CreatorTool"):
        assert stays in (photo.xmp or b"")
    assert sorted("film" in note.message for note in photo.notes) == [False, True]  # the other tells of the gain map


def test_a_panorama_grows_with_its_picture_and_is_forgotten_when_turned(tmp_path: Path) -> None:
    attributes = (
        'GPano:ProjectionType="equirectangular" GPano:CroppedAreaImageWidthPixels="24" '
        'GPano:CroppedAreaImageHeightPixels="16" GPano:FullPanoWidthPixels="48" GPano:FullPanoHeightPixels="24" '
        'GPano:CroppedAreaLeftPixels="12" GPano:CroppedAreaTopPixels="4"'
    )
    grown = {name[1]: value.text for name, value in fitted(packet("", attributes)).properties.items()}
    assert [grown[f"FullPano{side}Pixels"] for side in ("Width", "Height")] == ["192", "96"]
    assert [grown[f"CroppedArea{side}Pixels"] for side in ("Left", "Top")] == ["48", "16"]
    assert [grown[f"CroppedAreaImage{side}Pixels"] for side in ("Width", "Height")] == ["96", "64"]
    turned = make.jpeg(exif=b"Exif\0\0" + make.exif_block(6), xmp=packet("", attributes))
    assert decoded(tmp_path, turned).xmp is None
    assert for_result(Metadata(xmp=packet("", 'GPano:FullPanoWidthPixels="4"')), 8, 8, "keep", "").xmp is None


def extended(body: bytes, guid: str, cut: int = 0) -> bytes:
    """A JPEG whose packet goes on in two further segments."""
    parts = [(start, body[start : start + 300]) for start in range(0, len(body) - cut, 300)]
    segments = [b"http://ns.adobe.com/xap/1.0/\0" + packet("", f'note:HasExtendedXMP="{guid}" dc:source="S"')]
    segments += [
        b"http://ns.adobe.com/xmp/extension/\0" + guid.encode() + struct.pack(">II", len(body), start) + part
        for start, part in reversed(parts)
    ]
    data = make.jpeg()
    return data[:2] + b"".join(struct.pack(">BBH", 0xFF, 0xE1, len(s) + 2) + s for s in segments) + data[2:]


def test_extended_packets_are_joined_or_noted(tmp_path: Path) -> None:
    body = packet(f"<dc:coverage>{'long ' * 200}</dc:coverage>")
    guid = hashlib.md5(body).hexdigest().upper()
    photo = decoded(tmp_path, extended(body, guid))
    assert not photo.notes
    assert b"long long" in (photo.xmp or b"")
    assert b"HasExtendedXMP" not in (photo.xmp or b"")
    for broken in (extended(body, guid, cut=300), extended(body + b" ", guid)):
        photo = decoded(tmp_path, broken)
        assert b"long" not in (photo.xmp or b"")
        assert b'dc:source="S"' in (photo.xmp or b"")
        assert ["extended" in note.message for note in photo.notes] == [True]


@pytest.mark.parametrize("output_format", ["jpg", "png", "webp", "tiff", "avif"])
def test_a_packet_survives_each_format(output_format: str, tmp_path: Path) -> None:
    body = "<dc:title><rdf:Alt><rdf:li xml:lang='x-default'>Am See &amp; Ufer äöü</rdf:li></rdf:Alt></dc:title>"
    encode(Picture(make.photo(), xmp=packet(body)), tmp_path / "result", output_format, 90, "keep")
    again = decode_file(tmp_path / "result", LIMITS)
    assert reread(again.xmp).properties[xmp.DC, "title"].first_text() == "Am See & Ufer äöü"


@pytest.mark.parametrize("encoding", ["no-such-thing", "rot13", "utf-7", "idna"])
def test_an_encoding_that_nobody_reads_costs_the_packet_and_not_the_photo(encoding: str, tmp_path: Path) -> None:
    data = f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + packet("<dc:title>Lake</dc:title>")
    photo = decoded(tmp_path, make.jpeg(xmp=data))
    assert photo.xmp is None
    assert ["XMP" in note.message for note in photo.notes] == [True]
