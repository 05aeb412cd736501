"""IPTC data sets, PNG texts and JPEG comments: kept, moved to where they have a place, or named in a note."""

from __future__ import annotations

import struct
import time
import zlib
from pathlib import Path

import pytest

from app.images import ImageLimits, Picture, encode
from app.images.decode import decode_file
from app.images.metadata import iptc, jpeg_metadata, png_text, xmp, xmp_parsing
from app.images.metadata.place import tells_place
from tests import picture_factory as make

LIMITS = ImageLimits()


def png_with(*chunks: tuple[bytes, bytes], behind: bool = False) -> bytes:
    data = make.saved(make.rgb_image(), "PNG")
    added = b"".join(make.chunk(name, body) for name, body in chunks)
    return data[:-12] + added + data[-12:] if behind else data[:33] + added + data[33:]


def decoded(folder: Path, data: bytes) -> Picture:
    (folder / "photo").write_bytes(data)
    return decode_file(folder / "photo", LIMITS)


def again(picture: Picture, folder: Path, output_format: str, metadata: str = "keep") -> Picture:
    encode(picture, folder / "result", output_format, 90, metadata)
    return decode_file(folder / "result", LIMITS)


def test_iptc_survives_where_it_has_a_place_and_becomes_xmp_elsewhere(tmp_path: Path) -> None:
    sets = {
        120: "At the lake ö",
        25: "lake",
        80: "Anna",
        116: "(c) Anna",
        55: "20200102",
        60: "030405+0100",
        118: "Tel",
    }
    photo = decoded(tmp_path, make.jpeg(extra=make.iptc_segment(sets)))
    assert not photo.notes
    for output_format in ("jpg", "png", "tiff"):
        assert again(photo, tmp_path, output_format).iptc == photo.iptc
    for output_format in ("webp", "avif"):
        notes = encode(photo, tmp_path / "result", output_format, 90, "keep").notes
        assert [notice.message for notice in notes] == [
            f"A {output_format} file has no place for IPTC 2:118; left out."
        ]
        properties = xmp_parsing.parse(decode_file(tmp_path / "result", LIMITS).xmp or b"").properties
        assert properties[xmp.DC, "description"].first_text() == "At the lake ö"
        assert properties[xmp.DC, "subject"].texts() == ["lake"]
        assert properties[xmp.PHOTOSHOP, "DateCreated"].text == "2020-01-02T03:04:05+01:00"


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("20200102", "", "2020-01-02"),
        ("20200102", "030405", "2020-01-02T03:04:05"),
        ("20200102", "030405-0530", "2020-01-02T03:04:05-05:30"),
        ("20200102", "x", "2020-01-02"),
        ("1931", "030405", "1931"),
    ],
)
def test_iptc_dates_in_xmp(date: str, time: str, expected: str) -> None:
    sets = [(2, 55, date.encode()), (2, 60, time.encode())]
    assert iptc.as_properties(sets)[0][xmp.PHOTOSHOP, "DateCreated"].text == expected


def test_iptc_in_latin_1_long_values_and_previews() -> None:
    long = b"x" * 40_000
    sets = [(2, 120, "Größe".encode("latin-1")), (2, 122, long), (2, 25, b"")]
    block = iptc.serialized(sets)
    assert block
    assert iptc.parse(block) == (sets, True)
    assert iptc.text_of(sets, sets[0][2]) == "Größe"
    preview = struct.pack(">BBBH", 0x1C, 2, 202, 4) + b"\xff\xd8\xff\xd9"
    other_media = struct.pack(">BBBH", 0x1C, 3, 20, 2) + b"\0\1"
    assert iptc.parse(preview + other_media + block) == (sets, True)
    assert iptc.serialized(iptc.parse(preview)[0]) is None


@pytest.mark.parametrize("cut", [1, 3, 30])
def test_a_block_cut_off_gives_what_is_there_and_a_note(cut: int, tmp_path: Path) -> None:
    block = make.iptc_block({120: "At the lake", 116: "(c) Archive of the town, all rights"})[:-cut]
    body = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(block)) + block + bytes(len(block) % 2)
    photo = decoded(tmp_path, make.jpeg(extra=struct.pack(">BBH", 0xFF, 0xED, len(body) + 2) + body))
    assert b"At the lake" in (photo.iptc or b"")
    assert ["IPTC" in notice.message for notice in photo.notes] == [True]


def test_iptc_of_several_segments_and_photoshops_rights_are_read(tmp_path: Path) -> None:
    block = make.iptc_block({120: "y" * 30_000, 116: "z" * 30_000, 25: "w" * 10_000})
    resources = iptc.resource_block(block) + b"8BIM\x04\x0a\0\0\0\0\0\1\1\0" + b"8BIM\x04\x0b\0\0\0\0\0\6http:x"
    photo = decoded(tmp_path, make.jpeg(extra=jpeg_metadata.photoshop_segments(resources)))
    assert photo.iptc == block
    properties = xmp_parsing.parse(photo.xmp or b"").properties
    assert properties[xmp.RIGHTS, "Marked"].text == "True"
    assert properties[xmp.RIGHTS, "WebStatement"].text == "http:x"
    assert again(photo, tmp_path, "jpg").iptc == block


@pytest.mark.parametrize("name", [b"tEXt", b"zTXt", b"iTXt"])
@pytest.mark.parametrize("behind", [False, True])
def test_png_texts_of_each_kind_survive(name: bytes, behind: bool, tmp_path: Path) -> None:
    text = "Größe" if name == b"iTXt" else "words"
    body = {b"tEXt": b"", b"zTXt": b"\0", b"iTXt": b"\1\0de\0Wort\0"}[name]
    packed = text.encode() if name == b"tEXt" else zlib.compress(text.encode())
    photo = decoded(tmp_path, png_with((name, b"My key\0" + body + packed), behind=behind))
    assert photo.texts == (("My key", text),)
    assert again(photo, tmp_path, "png").texts == photo.texts
    notes = encode(photo, tmp_path / "result", "jpg", 90, "keep").notes
    assert [notice.message for notice in notes] == ["A jpg file has no place for the text 'My key'; left out."]


def test_texts_of_any_length_and_alphabet_survive(tmp_path: Path) -> None:
    texts = (("Comment", "a" * 1025), ("Title", "漢字" * 20), ("Description", "ö" * 400_000), ("Author", "x\ny"))
    picture = Picture(make.photo(), texts=texts)
    assert again(picture, tmp_path, "png").texts[:2] == texts[:2]
    found = decode_file(tmp_path / "result", LIMITS)
    assert found.texts[-1] == texts[-1]


@pytest.mark.parametrize("output_format", ["jpg", "webp", "tiff", "avif"])
def test_the_usual_texts_become_xmp(output_format: str, tmp_path: Path) -> None:
    texts = (("Title", "T"), ("Author", "A"), ("Description", "D"), ("Copyright", "C"), ("Software", "S"))
    picture = Picture(make.photo(), texts=(*texts, ("comment", "Box 7")))
    assert not encode(picture, tmp_path / "result", output_format, 90, "keep").notes
    found = decode_file(tmp_path / "result", LIMITS)
    properties = xmp_parsing.parse(found.xmp or b"").properties
    assert {name[1]: value.first_text() for name, value in properties.items()}.items() >= {
        ("title", "T"),
        ("creator", "A"),
        ("description", "D"),
        ("rights", "C"),
        ("CreatorTool", "S"),
    }
    assert found.texts == ((("Comment", "Box 7"),) if output_format == "jpg" else ())


def test_jpeg_comments_go_to_png_and_back(tmp_path: Path) -> None:
    photo = decoded(tmp_path, make.jpeg(comment="Größe\0".encode()))
    assert photo.texts == (("Comment", "Größe"),)
    assert again(photo, tmp_path, "png").texts == photo.texts
    assert again(again(photo, tmp_path, "png"), tmp_path, "jpg").texts == photo.texts
    assert decoded(tmp_path, make.jpeg(comment="Größe".encode("latin-1"))).texts == photo.texts


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt"])
def test_a_text_that_is_too_large_is_named(name: bytes) -> None:
    body = b"Graph\0" + (b"\0" if name == b"zTXt" else b"\1\0\0\0") + zlib.compress(bytes(2_000_000))
    blocks = png_text.read_chunks(png_with((name, body), (b"tEXt", b"Title\0T")))
    assert (blocks.too_large, blocks.texts, blocks.complete) == (["Graph"], [("Title", "T")], True)


@pytest.mark.parametrize(
    "body", [b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  4\nzz\n"), b"k\0\0no deflate", b"k"]
)
def test_a_broken_text_costs_itself(body: bytes) -> None:
    blocks = png_text.read_chunks(png_with((b"zTXt", body), (b"tEXt", b"Title\0T")))
    assert blocks.texts == [("Title", "T")]
    assert not blocks.complete


def test_raw_profiles_are_read(tmp_path: Path) -> None:
    exif = b"Exif\0\0" + make.exif_block(6)
    xmp_profile = b"http://ns.adobe.com/xap/1.0/\0" + make.XMP
    chunks = [png_text.raw_profile_chunk(kind, block) for kind, block in (("exif", exif), ("APP1", xmp_profile))]
    photo = decoded(tmp_path, png_with(*chunks, png_text.raw_profile_chunk("iptc", make.iptc_block({120: "Caption"}))))
    assert (photo.width, photo.height) == (make.HEIGHT, make.WIDTH)
    assert b"Camera Works" in (photo.exif or b"")
    assert b"Grandmother" in (photo.xmp or b"")
    assert b"Caption" in (photo.iptc or b"")
    assert not photo.texts


def test_very_many_segments_and_chunks_are_bounded(tmp_path: Path) -> None:
    data = make.jpeg()
    many = data[:2] + (struct.pack(">BBH", 0xFF, 0xFE, 3) + b"x") * 3000 + data[2:]
    photo = decoded(tmp_path, many)
    assert len(photo.texts) <= 8
    assert any("more parts" in notice.message for notice in photo.notes)
    photo = decoded(tmp_path, png_with(*[(b"tEXt", b"k\0v")] * 5000))
    assert len(photo.texts) == 1000


def test_content_credentials_are_left_out_with_a_note(tmp_path: Path) -> None:
    box = b"JP\0\1\0\0\0\1\0\0\0\x20jumb" + bytes(20)
    for data in (make.jpeg(extra=struct.pack(">BBH", 0xFF, 0xEB, len(box) + 2) + box), png_with((b"caBX", box))):
        assert ["C2PA" in notice.message for notice in decoded(tmp_path, data).notes] == [True]


@pytest.mark.parametrize(("unit", "expected"), [(0, None), (1, (118.0, 59.0)), (2, (118 * 2.54, 59 * 2.54)), (3, None)])
def test_the_density_of_jfif(unit: int, expected: tuple[float, float] | None, tmp_path: Path) -> None:
    data = bytearray(make.jpeg())
    data[13:18] = struct.pack(">BHH", unit, 118, 59)
    assert decoded(tmp_path, bytes(data)).dpi == expected


@pytest.mark.parametrize(
    "text",
    [
        "48.85837, 2.29448",
        "at 48.8583° N, 2.2944° E",
        "48°51'29.6\"N",
        "48,51.502N",
        "N48 51.502 E2 17.668",
        "+48.8583+002.2944/",
        "geo:48.85,2.29",
        '{"lat": 48.8, "lon": 2.3}',
        "GPSLatitude",
        "https://maps.google.com/?q=x",
        "https://www.google.com/maps/@48",
        "8FW4V75V+8Q",
        "City: Paris",
        "Places|France|Paris",
        "Location = Quai Branly",
    ],
)
def test_texts_that_tell_a_place(text: str) -> None:
    assert tells_place(text)


@pytest.mark.parametrize(
    "text",
    [
        "At the lake, summer 1931",
        "2020-01-02T03:04:05+01:00",
        "f/2.8, 1/200 s, ISO 400, 50 mm",
        "Steps: 20, CFG scale: 7.5, Seed: 1234567890, Size: 512x512",
        "Box 7, folder 12, page 3",
        "(c) 1998-2004 Archive of the town",
        "xmp.iid:0a1b2c3d-1234-5678-9abc-def012345678",
        "Replace: nothing",
        "Canon EF 24-70mm f/2.8L II USM, 3.5 x 4.5 in",
    ],
)
def test_texts_that_tell_none(text: str) -> None:
    assert not tells_place(text)


@pytest.mark.parametrize(
    "text",
    [
        "1.2345" + " " * 500_000,
        "N1 " * 200_000,
        "google." * 150_000,
        "1.2345,1.23 " * 80_000,
        "+12" * 300_000,
        "lat" * 300_000,
    ],
)
def test_no_text_costs_more_than_its_length(text: str) -> None:
    started = time.monotonic()
    tells_place(text[: 256 * 1024])
    assert time.monotonic() - started < 2
    assert tells_place(text)  # too long to be searched
