"""What ExifTool read from a photo it reads from the result too, in every format; what it does not is listed here."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from app.images import ImageLimits, encode
from app.images.decode import decode_file
from tests import exiftool
from tests import picture_factory as make

pytestmark = exiftool.needs_exiftool

LIMITS = ImageLimits()
FORMATS = ["jpg", "png", "webp", "tiff", "avif"]
EXIF = [
    *(
        "IFD0:Make=Canon",
        "IFD0:Model=Camera 7",
        "IFD0:Artist=Anna Ö",
        "IFD0:Copyright=(c) Anna",
        "IFD0:Software=Firm 1",
    ),
    *("IFD0:ImageDescription=At the lake", "IFD0:ModifyDate=2020:01:02 03:04:05", "IFD0:XPTitle=Titel ä"),
    *("IFD0:XPKeywords=lake;summer", "IFD0:Rating=4", "IFD0:RatingPercent=75", "IFD0:HostComputer=desk"),
    *("IFD0:XResolution=240", "IFD0:YResolution=240", "IFD0:ResolutionUnit=2", "IFD0:DocumentName=Album 3"),
    *("ExifIFD:DateTimeOriginal=2020:01:02 03:04:05", "ExifIFD:OffsetTimeOriginal=+02:00", "ExifIFD:SubSecTime=12"),
    *("ExifIFD:ExposureTime=0.005", "ExifIFD:FNumber=2.8", "ExifIFD:ISO=400", "ExifIFD:FocalLength=50"),
    *(
        "ExifIFD:LensModel=EF 50mm",
        "ExifIFD:LensInfo=24 70 2.8 4",
        "ExifIFD:SerialNumber=0815",
        "ExifIFD:OwnerName=Otto",
    ),
    *(
        "ExifIFD:UserComment=a comment ö",
        "ExifIFD:Flash=16",
        "ExifIFD:MeteringMode=5",
        "ExifIFD:ExposureCompensation=-0.5",
    ),
    *(
        "ExifIFD:ImageUniqueID=0123456789abcdef0123456789abcdef",
        "ExifIFD:ColorSpace=1",
        "ExifIFD:AmbientTemperature=-3.5",
    ),
    *("ExifIFD:SceneType=1", "ExifIFD:GainControl=2", "ExifIFD:SubjectDistance=3.25", "InteropIFD:InteropIndex=R98"),
    *("GPS:GPSLatitude=48.8583", "GPS:GPSLatitudeRef=N", "GPS:GPSLongitude=2.2944", "GPS:GPSLongitudeRef=E"),
    *("GPS:GPSAltitude=330.5", "GPS:GPSAltitudeRef=0", "GPS:GPSTimeStamp=12:30:45.5", "GPS:GPSDateStamp=2020:01:02"),
    *("GPS:GPSImgDirection=181.5", "GPS:GPSMapDatum=WGS-84", "GPS:GPSProcessingMethod=GPS"),
]
XMP = [
    *("XMP-dc:Title-de=Am See", "XMP-dc:Title=At the lake", "XMP-dc:Creator=Anna", "XMP-dc:Creator=Otto"),
    *("XMP-dc:Subject=lake", "XMP-dc:Subject=summer", "XMP-dc:Rights=(c) Anna & Otto <all>", "XMP-dc:Description=Text"),
    *("XMP-xmp:CreatorTool=Tool 3", "XMP-xmp:Rating=4", "XMP-xmp:Label=Red", "XMP-xmp:CreateDate=2020:01:02 03:04:05"),
    *("XMP-photoshop:Headline=Headline", "XMP-photoshop:City=Paris", "XMP-photoshop:Country=France"),
    *(
        "XMP-iptcCore:CreatorContactInfo={CiEmailWork=a@example.org}",
        "XMP-iptcCore:Location=Quai",
        "XMP-iptcExt:PersonInImage=Otto",
    ),
    *(
        "XMP-iptcExt:LocationCreated={City=Paris,CountryName=France}",
        "XMP-xmpRights:UsageTerms=none",
        "XMP-aux:Lens=EF",
    ),
    *(
        "XMP-exif:GPSLatitude=48.8583",
        "XMP-exif:ExposureTime=0.005",
        "XMP-tiff:Make=Canon",
        "XMP-lr:HierarchicalSubject=a|b",
    ),
    "XMP-xmpMM:History={Action=saved,When=2020:01:02 03:04:05,SoftwareAgent=Tool}",
    "XMP-mwg-rs:RegionInfo={AppliedToDimensions={W=24,H=16,Unit=pixel},RegionList=[{Name=Otto,Type=Face,"
    "Area={X=0.5,Y=0.5,W=0.25,H=0.25,Unit=normalized}}]}",
    *("XMP-xmpMM:DocumentID=xmp.did:1", "XMP-crs:Exposure2012=0.5", "XMP-plus:LicenseID=x", "XMP-digiKam:TagsList=a/b"),
]
IPTC = [
    *("IPTC:Caption-Abstract=At the lake ö", "IPTC:Keywords=lake", "IPTC:Keywords=summer", "IPTC:By-line=Anna"),
    *("IPTC:CopyrightNotice=(c) Anna", "IPTC:City=Paris", "IPTC:Country-PrimaryLocationName=France", "IPTC:Headline=H"),
    *("IPTC:DateCreated=2020:01:02", "IPTC:TimeCreated=03:04:05+01:00", "IPTC:Source=Archive", "IPTC:Credit=Press"),
    *("IPTC:Sub-location=Quai", "IPTC:Province-State=IDF", "IPTC:SpecialInstructions=none", "IPTC:ObjectName=Lake"),
    *("IPTC:Writer-Editor=W", "IPTC:Category=T", "IPTC:Urgency=5", "IPTC:OriginalTransmissionReference=R"),
]
PNG_TEXT = [
    *(
        "PNG:Title=Lake",
        "PNG:Author=Anna",
        "PNG:Description=At the lake ö",
        "PNG:Copyright=(c) Anna",
        "PNG:Comment=Box 7",
    ),
    *("PNG:Software=Tool 3", "PNG:Source=Scanner", "PNG:Disclaimer=none"),
]
# Groups that describe the file as a file, what ExifTool derives, or the colour profile.
FILE_GROUPS = ("System", "ExifTool", "Composite", "JFIF", "ICC", "RIFF", "Meta", "Jpeg", "QuickTime", "Track", "IFD1")
# What is another in the result, or is not there, and why.
EXCEPTIONS = {
    "IFD0:Orientation": "the pixels are turned",
    "IFD0:YCbCrPositioning": "describes the samples of the file",
    "IFD0:ExifByteOrder": "of the file",
    "XMP-x:XMPToolkit": "the packet is written by this service",
    "XMP-mwg-rs:RegionInfo": "its size is the result's; tested in test_metadata_xmp.py",
    "Photoshop:IPTCDigest": "computed again",
    "Photoshop:CurrentIPTCDigest": "computed again",
    "PNG-pHYs:": "the same resolution, rounded to pixels per metre once; tested below",
    "ExifIFD:ExifVersion": "EXIF's version stands in photos that had it; ExifTool adds it to those it fills",
}
# Data sets of the inputs that say something else than the same property of their XMP; the result keeps XMP's, and a
# note names the others.
IPTC_NUMBERS = {"Headline": 105, "ObjectName": 5, "By-line": 80, "CopyrightNotice": 116, "Caption-Abstract": 120}
# In formats without IPTC.
OF_THE_IPTC_BLOCK = {
    "IPTC:CodedCharacterSet": "of the block",
    "IPTC:EnvelopeRecordVersion": "of the block",
    "IPTC:ApplicationRecordVersion": "of the block",
    "IPTC:DateCreated": "joined with the time in XMP-photoshop:DateCreated; tested in test_metadata_texts.py",
    "IPTC:TimeCreated": "joined with the date",
}
STRUCTURE = {
    *("ImageWidth", "ImageHeight", "BitsPerSample", "Compression", "PhotometricInterpretation", "StripOffsets"),
    *(
        "SamplesPerPixel",
        "RowsPerStrip",
        "StripByteCounts",
        "PlanarConfiguration",
        "SubfileType",
        "Predictor",
        "BitDepth",
    ),
    *("ColorType", "Filter", "Interlace", "SampleFormat", "PageNumber"),
}
# Where a format has no place of its own for IPTC or texts, the property of XMP that means the same.
EQUAL_IN_XMP = {
    "IPTC:Caption-Abstract": "XMP-dc:Description",
    "IPTC:Keywords": "XMP-dc:Subject",
    "IPTC:By-line": "XMP-dc:Creator",
    "IPTC:CopyrightNotice": "XMP-dc:Rights",
    "IPTC:City": "XMP-photoshop:City",
    "IPTC:Country-PrimaryLocationName": "XMP-photoshop:Country",
    "IPTC:Headline": "XMP-photoshop:Headline",
    "IPTC:Source": "XMP-photoshop:Source",
    "IPTC:Credit": "XMP-photoshop:Credit",
    "IPTC:Sub-location": "XMP-iptcCore:Location",
    "IPTC:Province-State": "XMP-photoshop:State",
    "IPTC:SpecialInstructions": "XMP-photoshop:Instructions",
    "IPTC:ObjectName": "XMP-dc:Title",
    "IPTC:Writer-Editor": "XMP-photoshop:CaptionWriter",
    "IPTC:Category": "XMP-photoshop:Category",
    "IPTC:Urgency": "XMP-photoshop:Urgency",
    "IPTC:OriginalTransmissionReference": "XMP-photoshop:TransmissionReference",
    "PNG:Title": "XMP-dc:Title",
    "PNG:Author": "XMP-dc:Creator",
    "PNG:Description": "XMP-dc:Description",
    "PNG:Copyright": "XMP-dc:Rights",
    "PNG:Software": "XMP-xmp:CreatorTool",
    "PNG:Comment": "XMP-exif:UserComment",
    "File:Comment": "XMP-exif:UserComment",
}


def inputs() -> dict[str, tuple[bytes, list[str]]]:
    """Bytes and tags of each kind of photo."""
    return {
        "everything.jpg": (make.jpeg(), [*EXIF, *XMP, *IPTC, "Comment=Box 7"]),
        "iptc alone.jpg": (make.jpeg(), IPTC),
        "big endian.jpg": (make.jpeg(exif=b"Exif\0\0" + make.exif_block(order=">")), [*EXIF, "Comment=Box ö"]),
        "everything.png": (make.saved(make.rgb_image(), "PNG"), [*EXIF, *XMP, *IPTC]),
        "texts.png": (make.saved(make.rgb_image(), "PNG"), PNG_TEXT),
        "everything.tif": (make.saved(make.rgb_image(), "TIFF"), [*EXIF, *XMP, *IPTC, "IFD0:PageName=7"]),
        "everything.webp": (make.saved(make.rgb_image(), "WEBP"), [*EXIF, *XMP]),
    }


def unlisted(before: dict[str, Any], after: dict[str, Any], notes: str, output_format: str = "jpg") -> list[str]:
    """Tags of the photo that the result lacks or says otherwise, without a listed reason or a note."""
    lost = []
    for key, value in before.items():
        group, _, name = key.partition(":")
        if group.startswith(FILE_GROUPS) or any(key.startswith(listed) for listed in EXCEPTIONS):
            continue
        if output_format in ("webp", "avif") and key in OF_THE_IPTC_BLOCK:
            continue
        if name in STRUCTURE or (group == "File" and name != "Comment"):
            continue
        named = ["PNG:Comment", "File:Comment", EQUAL_IN_XMP.get(key, key)]
        places = [key, *(named if key in EQUAL_IN_XMP else [])]
        noted = f"'{name}'" in notes or (group == "IPTC" and f"IPTC 2:{IPTC_NUMBERS.get(name, 0):02}" in notes)
        if not noted and not any(place in after and same(after[place], value) for place in places):
            lost.append(f"{key}: {value!r} became {[after.get(place) for place in places]}")
    return lost


def same(after: object, before: object) -> bool:
    """All of it is there; a single value and a list of it say the same, and so do numbers that were text before."""
    one, other = (value if isinstance(value, list) else [value] for value in (after, before))
    return set(map(str, other)) <= set(map(str, one))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    for name, (data, tags) in inputs().items():
        (folder / name).write_bytes(data)
        exiftool.fill(folder / name, tags)
    return folder


@pytest.mark.parametrize("name", list(inputs()))
def test_what_exiftool_read_it_reads_again(name: str, filled: Path, tmp_path: Path) -> None:
    before = exiftool.read(filled / name)[0]
    said = [tag.split("=")[0].removesuffix("-de") for tag in inputs()[name][1]]
    absent = [
        tag for tag in said if tag not in {*before, *(f"File:{key}" for key in said)} and f"File:{tag}" not in before
    ]
    assert not absent, "the photo does not hold what it should"
    picture = decode_file(filled / name, LIMITS)
    files = [tmp_path / output_format for output_format in FORMATS]
    notes = {file: encode(picture, file, file.name, 90, "keep").notes for file in files}
    for file, after in zip(files, exiftool.read(*files), strict=True):
        said_notes = " ".join(notice.message for notice in (*picture.notes, *notes[file]))
        assert not unlisted(before, after, said_notes, file.name), (file.name, said_notes)
        assert after.get("ExifTool:Warning") == before.get("ExifTool:Warning")
        assert "ExifTool:Error" not in after


RESOLUTION = {
    *("IFD0:XResolution", "IFD0:YResolution", "IFD0:ResolutionUnit", "IFD0:Orientation"),
    *("PNG-pHYs:PixelsPerUnitX", "PNG-pHYs:PixelsPerUnitY", "PNG-pHYs:PixelUnits"),
}


@pytest.mark.parametrize("name", list(inputs()))
def test_strip_leaves_the_resolution_and_nothing_else(name: str, filled: Path, tmp_path: Path) -> None:
    picture = decode_file(filled / name, LIMITS)
    files = [tmp_path / output_format for output_format in FORMATS]
    for file in files:
        assert not encode(picture, file, file.name, 90, "strip").notes
    for file, after in zip(files, exiftool.read(*files), strict=True):
        own = {key for key in after if not key.startswith((*FILE_GROUPS, "File:"))}
        left = {key for key in own - RESOLUTION if key.partition(":")[2] not in STRUCTURE}
        assert not left, file.name


def test_a_lost_tag_is_seen() -> None:
    before = {"IFD0:Make": "Canon", "IPTC:City": "Paris", "PNG:Odd": 1, "IFD0:Orientation": 6}
    assert not unlisted(before, {"IFD0:Make": "Canon", "XMP-photoshop:City": "Paris"}, "the text 'Odd'")
    assert len(unlisted(before, {"IFD0:Make": "Other"}, "")) == 3


def canon_photo() -> bytes:
    """A photo whose maker note has, as Canon's, offsets that count from the start of the EXIF block."""
    note_start = 300
    texts = b"Canon Camera 7\0Firmware 1.2\0\0Otto\0"
    table_bytes = 2 + 3 * 12 + 4
    entries, position = [], 0
    for tag, length in ((6, 15), (7, 14), (9, 5)):
        entries.append(struct.pack("<HHII", tag, 2, length, note_start + table_bytes + position))
        position += length
    note = struct.pack("<H", 3) + b"".join(entries) + bytes(4) + texts
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", 2)
    block += struct.pack("<HHII", 0x010F, 2, 6, 60) + struct.pack("<HHII", 0x8769, 4, 1, 80) + bytes(4)
    block = block.ljust(60, b"\0") + b"Canon\0"
    block = block.ljust(80, b"\0") + struct.pack("<H", 1) + struct.pack("<HHII", 0x927C, 7, len(note), note_start)
    return make.jpeg(exif=b"Exif\0\0" + block.ljust(note_start, b"\0") + note)


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_maker_note_is_read_from_the_result(output_format: str, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(canon_photo())
    encode(decode_file(tmp_path / "photo.jpg", LIMITS), tmp_path / "result", output_format, 90, "keep")
    for found in exiftool.read(tmp_path / "photo.jpg", tmp_path / "result"):
        assert {key: value for key, value in found.items() if key.startswith("Canon:")} == {
            "Canon:CanonImageType": "Canon Camera 7",
            "Canon:CanonFirmwareVersion": "Firmware 1.2",
            "Canon:OwnerName": "Otto",
        }
        assert not [key for key in found if key.endswith((":Warning", ":Error"))]


@pytest.mark.parametrize("dpi", [(300.0, 150.0), (72.0, 72.0), (1.5, 2.0), (90_000.0, 90_000.0), (5e7, 5e7)])
@pytest.mark.parametrize("output_format", FORMATS)
def test_the_resolution_is_kept_or_clamped(output_format: str, dpi: tuple[float, float], tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(make.deep_png(make.deep(make.photo()), make.physical_size(*dpi)))
    picture = decode_file(tmp_path / "photo", LIMITS)
    for policy in ("keep", "strip_gps", "strip"):
        notes = encode(picture, tmp_path / "result", output_format, 90, policy).notes
        found = exiftool.read(tmp_path / "result")[0]
        if output_format == "png":
            read = [found[f"PNG-pHYs:PixelsPerUnit{side}"] * 0.0254 for side in "XY"]
        else:
            group = "JFIF" if output_format == "jpg" else "IFD0"
            read = [found[f"{group}:{side}Resolution"] for side in "XY"]
        limit = 65_535 if output_format == "jpg" else 4_294_967_295
        expected = [min(part, limit) for part in dpi]
        slack = 0.51 if output_format == "jpg" else 0.02
        assert read == pytest.approx(expected, abs=slack)
        assert any("dots per inch" in notice.message for notice in notes) == (max(dpi) > limit)
