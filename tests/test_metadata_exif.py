"""EXIF blocks: parsed entry by entry, and written anew; one fault costs its part only."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.images import ImageLimits, Picture, encode
from app.images.decode import decode_file
from app.images.metadata import exif, exif_rules, exif_tags, exif_writing
from tests import picture_factory as make

LIMITS = ImageLimits()
FORMATS = ["jpg", "png", "webp", "tiff", "avif"]
NOTE = b"MakerCo\0" + bytes(range(200))


def segment(body: bytes, marker: int = 0xE1) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segments(*bodies: bytes) -> bytes:
    data = make.jpeg()
    return data[:2] + b"".join(segment(body) for body in bodies) + data[2:]


def entry(tag: int, kind: int, count: int, field: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + field.ljust(4, b"\0")


def directory(entries: list[bytes], following: int = 0) -> bytes:
    return struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", following)


def block_of(entries: list[bytes], tail: bytes = b"", following: int = 0) -> bytes:
    """A block whose IFD0 stands at 8, with `tail` behind it."""
    return b"II*\0\x08\0\0\0" + directory(entries, following) + tail


def decoded(folder: Path, data: bytes) -> Picture:
    (folder / "photo").write_bytes(data)
    return decode_file(folder / "photo", LIMITS)


def result_of(folder: Path, data: bytes, output_format: str = "jpg", metadata: str = "keep") -> bytes:
    encode(decoded(folder, data), folder / "result", output_format, 95, metadata)
    return (folder / "result").read_bytes()


def kept(block: bytes) -> exif.Exif:
    parsed = exif.parse(block)
    again = exif_writing.serialized(parsed)
    assert again
    return exif.parse(again)


def test_every_type_survives_in_both_byte_orders() -> None:
    kinds = {
        1: "2B",
        2: "2s",
        3: "2H",
        4: "2I",
        5: "2I",
        6: "2b",
        7: "2s",
        8: "2h",
        9: "2i",
        10: "2i",
        11: "2f",
        12: "2d",
    }
    for order in "<>":
        block = exif.Exif(order)
        for number, (kind, code) in enumerate(kinds.items()):
            values = (b"ab",) if code == "2s" else (1, 2)
            block.photo[0x9000 + number] = exif.Value(kind, struct.pack(order + code, *values))
        data = exif_writing.serialized(block)
        assert data
        assert exif.parse(data).photo == block.photo


def test_a_block_with_odd_values_at_every_known_tag_fails_no_format(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    for kind in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12):
        block = exif.Exif()
        for tags, target in ((exif_tags.MAIN, block.main), (exif_tags.PHOTO, block.photo), (exif_tags.GPS, block.gps)):
            target |= {tag: exif.Value(kind, rng.bytes(8 * int(rng.integers(1, 4)))) for tag in tags}
        data = exif_writing.serialized(block)
        for output_format in FORMATS:
            (tmp_path / "photo").write_bytes(make.jpeg(exif=b"Exif\0\0" + (data or b"")))
            picture = decode_file(tmp_path / "photo", LIMITS)
            encode(picture, tmp_path / "result", output_format, 80, "keep")
            again = decode_file(tmp_path / "result", LIMITS)
            assert len(exif.parse(again.exif or b"").photo) > len(exif_tags.PHOTO) - 10


@pytest.mark.parametrize("following", [8, 0xFFFFFF, 9])
def test_a_link_to_nowhere_or_back_costs_nothing(following: int, tmp_path: Path) -> None:
    tail = b"Camera Works\0"
    block = block_of([entry(0x010F, 2, 13, struct.pack("<I", 26))], tail, following)
    assert b"Camera Works" in result_of(tmp_path, with_segments(b"Exif\0\0" + block))


@pytest.mark.parametrize(
    "broken",
    [
        entry(0x0110, 2, 50, struct.pack("<I", 0xFFFFF0)),  # outside
        entry(0x0110, 99, 4, b"abcd"),  # no such type
        entry(0x0110, 5, 0x20000000, struct.pack("<I", 8)),  # a count that overflows
        entry(exif_tags.EXIF_POINTER, 4, 1, struct.pack("<I", 8)),  # a circle
        entry(exif_tags.GPS_POINTER, 4, 1, struct.pack("<I", 0xFFFF)),
        entry(exif_tags.EXIF_POINTER, 2, 4, b"abc"),  # leads outside, whatever it means
    ],
)
def test_one_fault_costs_its_part_only_and_is_noted(broken: bytes, tmp_path: Path) -> None:
    first = entry(0x010E, 2, 4, b"Sea\0")
    block = block_of([first, broken])
    parsed = exif.parse(block)
    assert parsed.main[0x010E].text() == "Sea"
    assert 0x0110 not in parsed.main
    assert not parsed.photo
    photo = decoded(tmp_path, with_segments(b"Exif\0\0" + block))
    assert exif.parse(photo.exif or b"").main.keys() == {0x010E}
    assert [note.message for note in photo.notes] == (
        ["Part of the photo's EXIF data is broken and was left out."] if b"abc\0" not in broken else []
    )


def test_a_directory_cut_off_gives_what_is_there() -> None:
    block = block_of([entry(0x010E, 2, 4, b"Sea\0"), entry(0x010F, 2, 4, b"Abc\0")])
    parsed = exif.parse(block[: 8 + 2 + 12 + 5])
    assert parsed.main.keys() == {0x010E}
    assert parsed.damaged


def test_a_second_segment_fills_gaps_and_a_long_one_goes_on(tmp_path: Path) -> None:
    first = block_of([entry(0x010E, 2, 4, b"Sea\0")])
    second = b"MM\0*\0\0\0\x08" + struct.pack(">H", 2)
    second += (
        struct.pack(">HHI4s", 0x010E, 2, 4, b"No\0\0") + struct.pack(">HHI4s", 0x4746, 3, 1, b"\0\5\0\0") + bytes(4)
    )
    parsed = exif.parse(decoded(tmp_path, with_segments(b"Exif\0\0" + first, b"Exif\0\0" + second)).exif or b"")
    assert parsed.main[0x010E].text() == "Sea"
    assert parsed.main[0x4746].integers(parsed.order) == (5,)
    text = b"x" * 80_000
    long = block_of([entry(0x010E, 2, len(text), struct.pack("<I", 26))], text)
    parts = [b"Exif\0\0" + long[start : start + 60_000] for start in range(0, len(long), 60_000)]
    assert exif.parse(decoded(tmp_path, with_segments(*parts)).exif or b"").main[0x010E].data == text


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("start", [200, 4000])
def test_a_maker_note_stays_where_it_stood(start: int, output_format: str, tmp_path: Path) -> None:
    photo = directory([entry(exif_tags.MAKER_NOTE, 7, len(NOTE), struct.pack("<I", start))])
    block = block_of([entry(0x010F, 2, 4, b"Abc\0"), entry(exif_tags.EXIF_POINTER, 4, 1, struct.pack("<I", 38))])
    block = (block + photo).ljust(start, b"\0") + NOTE
    result = result_of(tmp_path, with_segments(b"Exif\0\0" + block), output_format)
    where = result.index(NOTE)
    with Image.open(io.BytesIO(result)) as image:
        image.load()
        data = image.info.get("exif", b"").removeprefix(b"Exif\0\0") or result
    assert data.index(NOTE) == start
    assert where >= start


def test_a_maker_note_from_far_inside_a_tiff_goes_with_a_note_unless_it_may_move() -> None:
    for note, moves in ((NOTE, False), (b"Nikon\0\2" + bytes(90), True)):
        block = exif.Exif()
        block.photo[exif_tags.MAKER_NOTE] = exif.Value(7, note)
        block.maker_note_start = 5_000_000
        assert exif_rules.drop_unmovable_note(block) is not moves
        assert (exif_tags.MAKER_NOTE in block.photo) is moves
        block.main[0x010F] = exif.Value(2, b"Abc\0")
        assert len(exif_writing.serialized(block) or b"") < 300


def test_subject_areas_turn_and_grow_with_the_picture(tmp_path: Path) -> None:
    source = Image.Exif()
    source[0x0112] = 6
    source[0x8769] = {0x9214: (6, 4, 12, 8), 0xA214: (18, 4)}
    photo = decoded(tmp_path, make.jpeg(exif=source.tobytes()))
    larger = Picture(np.repeat(np.repeat(photo.rgb, 2, 0), 2, 1), exif=photo.exif)
    encode(larger, tmp_path / "result", "jpg", 95, "keep")
    with Image.open(tmp_path / "result") as image:
        details = image.getexif().get_ifd(0x8769)
        assert image.size == (32, 48)
        # (6, 4) of 24 x 16 is (1/4, 1/4), turned (3/4, 1/4); the sides 1/2 and 1/2 change places.
        assert tuple(details[0x9214]) == (24, 12, 16, 24)
        assert tuple(details[0xA214]) == (24, 36)
        assert (details[0xA002], details[0xA003]) == (32, 48)


def test_what_describes_the_file_does_not_travel(tmp_path: Path) -> None:
    rows = [(0x0103, 6), (0x0201, 9), (0x0202, 9), (0x0102, 8), (0x0213, 2), (0x0112, 1)]
    entries = [entry(tag, 3, 1, struct.pack("<H", value)) for tag, value in rows]
    parsed = exif.parse(decoded(tmp_path, with_segments(b"Exif\0\0" + block_of(sorted(entries)))).exif or b"")
    assert parsed.main.keys() == {0x0213, 0x0112}
    assert parsed.main[0x0213].integers("<") == (1,)


def test_a_big_tiff_gives_its_tags(tmp_path: Path) -> None:
    data = make.tiff(make.photo(), bigtiff=True, byteorder="<", description="At the lake", software="Scanner 3")
    parsed = exif.parse(decoded(tmp_path, data).exif or b"")
    assert {tag: value.text() for tag, value in parsed.main.items() if value.type == 2} == {
        0x010E: "At the lake",
        0x0131: "Scanner 3",
    }


def test_tiff_tags_survive_and_those_of_one_program_are_named(tmp_path: Path) -> None:
    wide = "Titel\0".encode("utf-16-le")
    extra = [(269, "s", 0, "Album 3", True), (285, "s", 0, "Page 7", True), (18246, "H", 1, 5, True)]
    extra += [(40091, "B", len(wide), wide, True), (36867, "s", 0, "1931:07:04 12:00:00", True)]
    extra += [(33723, "B", 0, make.iptc_block({120: "Caption"}), True), (65000, "s", 0, "private", True)]
    photo = decoded(tmp_path, make.tiff(make.photo(), extratags=extra))
    assert any("65000" in note.message for note in photo.notes)
    encode(photo, tmp_path / "result", "tiff", 95, "keep")
    with Image.open(tmp_path / "result") as image:
        assert {269, 285, 18246, 40091, 36867, 33723} <= image.tag_v2.keys()  # type: ignore[attr-defined]
        assert image.tag_v2[18246] == 5  # type: ignore[attr-defined]
    encode(photo, tmp_path / "jpeg", "jpg", 95, "keep")
    with Image.open(tmp_path / "jpeg") as image:
        assert image.getexif()[285] == "Page 7"
        assert b"Caption" in (tmp_path / "jpeg").read_bytes()
