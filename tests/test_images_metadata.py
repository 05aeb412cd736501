"""EXIF, XMP and DPI of results: kept and put right, without the place, or none at all."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from app.images import ImageLimits, Picture, encode
from app.images.decode import DecodeOptions, decode_file
from app.images.metadata import exif, exif_writing
from app.images.metadata.rewriting import Metadata, for_result
from app.images.page_encoding import PagesEncoder
from tests import picture_factory as make

LIMITS = ImageLimits()
FORMATS = ["jpg", "png", "webp", "tiff", "avif"]
THUMBNAIL = b"\xff\xd8thumbnail of a face\xff\xd9"


def photo_with_everything(order: str = "<") -> bytes:
    block = make.exif_block(6, gps=True, thumbnail=THUMBNAIL, order=order)
    return make.jpeg(exif=b"Exif\0\0" + block, xmp=make.XMP, dpi=(300, 300))


def restored(folder: Path, output_format: str, metadata: str, order: str = "<") -> Path:
    (folder / "photo").write_bytes(photo_with_everything(order))
    source = decode_file(folder / "photo", LIMITS)
    larger = np.repeat(np.repeat(source.rgb, 4, axis=0), 4, axis=1)
    picture = Picture(larger, exif=source.exif, xmp=source.xmp, dpi=source.dpi, source_format="JPEG")
    encode(picture, folder / "result", output_format, 95, metadata)
    return folder / "result"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("output_format", FORMATS)
def test_kept_metadata_is_put_right(output_format: str, order: str, tmp_path: Path) -> None:
    result = restored(tmp_path, output_format, "keep", order)
    assert THUMBNAIL not in result.read_bytes()
    with Image.open(result) as image:
        width, height = image.size
        image.load()
        read = image.getexif()
        assert read[0x010F] == "Camera Works"
        assert read.get(0x0112, 1) == 1
        details = read.get_ifd(0x8769)
        assert (details[0xA002], details[0xA003]) == (width, height)
        assert details[0x9003] == "2020:01:02 03:04:05"
        assert details[0x927C] == b"maker note"
        assert [float(part) for part in read.get_ifd(0x8825)[2]] == [48, 51, 29.5]
        packet = image.info["xmp"]
        assert b"Grandmother" in packet
        assert b"48,51.5N" in packet
        assert b'tiff:Orientation="1"' in packet
        if output_format in ("jpg", "png", "tiff"):
            assert [round(float(part)) for part in image.info["dpi"]] == [300, 300]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("output_format", FORMATS)
def test_strip_gps_takes_the_place_out_and_leaves_the_rest(output_format: str, order: str, tmp_path: Path) -> None:
    result = restored(tmp_path, output_format, "strip_gps", order)
    data = result.read_bytes()
    for trace in (b"48,51.5N", b"2,17.6E", b"Paris", b"GPS"):
        assert trace not in data
    with Image.open(result) as image:
        image.load()
        read = image.getexif()
        assert not read.get_ifd(0x8825)
        assert read[0x010F] == "Camera Works"
        assert read.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
        assert b"Grandmother" in image.info["xmp"]
        assert b"dc:format" in image.info["xmp"]


@pytest.mark.parametrize("output_format", FORMATS)
def test_strip_leaves_nothing(output_format: str, tmp_path: Path) -> None:
    result = restored(tmp_path, output_format, "strip")
    data = result.read_bytes()
    for trace in (b"Camera Works", b"Grandmother", b"48,51.5N", b"maker note", b"2020:01"):
        assert trace not in data


def test_gps_numbers_are_gone_and_not_only_unlinked() -> None:
    block = make.exif_block(gps=True)
    degrees = (48).to_bytes(4, "little") + (1).to_bytes(4, "little") + (51).to_bytes(4, "little")
    assert degrees in block
    stripped = for_result(Metadata(exif=block), 8, 8, "strip_gps", "image/png").exif
    assert stripped
    assert degrees not in stripped


def test_sizes_beyond_sixteen_bits_fit() -> None:
    block = for_result(Metadata(exif=make.exif_block()), 70_000, 80_000, "keep", "image/png").exif
    reread = Image.Exif()
    reread.load(block)  # type: ignore[arg-type]
    assert (reread.get_ifd(0x8769)[0xA002], reread.get_ifd(0x8769)[0xA003]) == (70_000, 80_000)


def test_a_block_of_overlapping_claims_costs_no_more_than_its_size() -> None:
    count = 60_000
    entry = (
        (1).to_bytes(2, "little")
        + (7).to_bytes(2, "little")
        + (700_000).to_bytes(4, "little")
        + (8).to_bytes(4, "little")
    )
    gps = count.to_bytes(2, "little") + entry * count + bytes(4)
    first = (1).to_bytes(2, "little") + b"\x25\x88\x04\0\1\0\0\0" + (26).to_bytes(4, "little") + bytes(4)
    started = time.monotonic()
    block = exif.parse(b"II*\0\x08\0\0\0" + first + gps)
    assert time.monotonic() - started < 1
    assert block.damaged
    assert sum(len(value.data) for value in block.gps.values()) < len(gps)


@pytest.mark.parametrize(
    "packet",
    [
        b"<a:City>" * 100_000,
        b"<a:City></a:City>" * 60_000,
        b"<drone:unknown gpsish='1'/>",
        b"<a:City>Paris",
        b"<a:b" + b' a:City="' * 100_000,
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><x>&b;</x>',
        b"<x>" * 1000 + b"</x>" * 1000,
    ],
)
def test_a_packet_that_cannot_be_read_goes_whole_and_quickly(packet: bytes) -> None:
    started = time.monotonic()
    result = for_result(Metadata(xmp=packet), 8, 8, "strip_gps", "image/png")
    assert time.monotonic() - started < 1
    assert result.xmp is None
    assert "XMP" in result.notes[0]


def test_metadata_too_large_for_a_jpeg_is_left_out_with_a_note(tmp_path: Path) -> None:
    block = exif.parse(make.exif_block())
    block.photo[0x9286] = exif.Value(exif.UNDEFINED, b"ASCII\0\0\0" + b"long " * 20_000)
    packet = make.XMP.replace(b"Grandmother", b"long " * 20_000)
    picture = Picture(make.photo(), exif=exif_writing.serialized(block), xmp=packet)
    encoded = encode(picture, tmp_path / "result", "jpg", 95, "keep")
    assert len(encoded.notes) == 1
    assert "0x9286" in encoded.notes[0].message
    assert "title" in encoded.notes[0].message
    with Image.open(tmp_path / "result") as image:
        assert image.getexif()[0x010F] == "Camera Works"
        assert b"Paris" in image.info["xmp"]


def test_the_tags_of_a_tiff_are_gathered(tmp_path: Path) -> None:
    block = b"Exif\0\0" + make.exif_block(gps=True)
    (tmp_path / "photo").write_bytes(make.saved(make.rgb_image(), "TIFF", exif=block, dpi=(600, 600)))
    source = decode_file(tmp_path / "photo", LIMITS)
    encode(source, tmp_path / "result", "png", 95, "keep")
    with Image.open(tmp_path / "result") as image:
        image.load()
        assert image.getexif()[0x010F] == "Camera Works"
        assert image.getexif().get_ifd(0x8825)[1] == "N"
        assert 256 not in image.getexif()
        assert [round(float(part)) for part in image.info["dpi"]] == [600, 600]


def test_exif_behind_the_pixels_of_a_png_is_found(tmp_path: Path) -> None:
    data = make.saved(make.rgb_image(), "PNG")
    data = data[:-12] + make.chunk(b"eXIf", make.exif_block(6)) + data[-12:]
    (tmp_path / "photo").write_bytes(data)
    assert decode_file(tmp_path / "photo", LIMITS).width == make.HEIGHT


def test_broken_exif_is_left_out_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(make.jpeg(exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + bytes(20)))
    source = decode_file(tmp_path / "photo", LIMITS)
    assert source.exif is None
    assert "EXIF" in source.notes[0].message


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_metadata_of_a_result_is_a_fixed_point(output_format: str, tmp_path: Path) -> None:
    """A result that is decoded and written again, as a re-blend of its faces does, says the same."""
    texts = (("Comment", "Box 7"), ("Title", "Lake"))
    block, iptc = make.exif_block(6, gps=True, thumbnail=THUMBNAIL), make.iptc_block({120: "Caption", 90: "Paris"})
    picture = Picture(make.photo(), exif=block, xmp=make.XMP, dpi=(300, 150), iptc=iptc, texts=texts)
    for policy in ("keep", "strip_gps"):
        encode(picture, tmp_path / "first", output_format, 95, policy)
        first = decode_file(tmp_path / "first", LIMITS, DecodeOptions(as_stored=True))
        encode(first, tmp_path / "second", output_format, 95, policy)
        second = decode_file(tmp_path / "second", LIMITS, DecodeOptions(as_stored=True))
        for name in ("exif", "xmp", "iptc", "texts", "dpi"):
            assert getattr(first, name) == getattr(second, name), (policy, name)


def test_a_tiff_is_described_by_its_photo_first_and_then_by_its_first_directory(tmp_path: Path) -> None:
    small = {"subfiletype": 1, "description": "of the thumbnail", "datetime": "2020:01:02 03:04:05"}
    with tifffile.TiffWriter(tmp_path / "photo") as writer:
        writer.write(make.photo(12, 8), photometric="rgb", metadata=None, **small)
        writer.write(make.photo(), photometric="rgb", metadata=None, description="of the photo")
        writer.write(make.photo(), photometric="rgb", metadata=None, software="Scanner 3")
    first, second = (decode_file(tmp_path / "photo", LIMITS, DecodeOptions(page=page)) for page in (None, 1))
    texts = [
        {tag: value.text() for tag, value in exif.parse(picture.exif or b"").main.items() if value.type == exif.ASCII}
        for picture in (first, second)
    ]
    assert texts[0].items() >= {0x010E: "of the photo", 0x0132: "2020:01:02 03:04:05"}.items()
    assert texts[1] == {0x0131: "Scanner 3"}


@pytest.mark.parametrize("orders", ["<<", "<>", "><"])
def test_every_page_of_a_tiff_keeps_its_exif(orders: str, tmp_path: Path) -> None:
    blocks = []
    for number, order in enumerate(orders):
        block = exif.parse(make.exif_block(gps=True, order=order))
        block.main[0x010E] = exif.Value(exif.ASCII, b"page %d\0" % number)
        blocks.append(exif_writing.serialized(block))
    encoder = PagesEncoder(tmp_path / "photo", len(blocks), "keep")
    for data in blocks:
        encoder.add(Picture(make.photo(), exif=data, xmp=make.XMP))
    encoder.finish()
    for number in range(len(blocks)):
        page = decode_file(tmp_path / "photo", LIMITS, DecodeOptions(page=number))
        np.testing.assert_array_equal(page.rgb, make.photo())
        found = exif.parse(page.exif or b"").in_order("<")
        assert found.main[0x010E].text() == f"page {number}"
        assert found.photo[0x9003].text() == "2020:01:02 03:04:05"
        assert (0x927C in found.photo) == (number == 0)  # a maker note that may not stand elsewhere
        assert found.gps == exif.parse(make.exif_block(gps=True)).gps
    with Image.open(tmp_path / "photo") as image:
        image.seek(1)
        assert image.getexif().get_ifd(0x8825)[1] == "N"


def test_heic_regions_and_places_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    heif.register_heif_opener()
    source = Image.Exif()
    source[0x0112] = 6
    source[0x8769] = {0x9214: (20, 8, 8, 4)}
    source[0x8825] = {1: "N", 2: (48.0, 51.0, 29.5)}
    pixels = Image.fromarray(make.photo(64, 32))
    pixels.save(tmp_path / "photo", "HEIF", exif=source.tobytes(), xmp=make.XMP)
    photo = decode_file(tmp_path / "photo", LIMITS)
    assert (photo.width, photo.height) == (32, 64)
    block = exif.parse(photo.exif or b"")
    assert block.photo[0x9214].integers(block.order) == (24, 20, 4, 8)
    stripped = for_result(Metadata(photo.exif, photo.xmp), 32, 64, "strip_gps", "image/jpeg")
    assert not exif.parse(stripped.exif or b"").gps
    assert b"Paris" not in (stripped.xmp or b"")
    assert b"Grandmother" in (stripped.xmp or b"")
