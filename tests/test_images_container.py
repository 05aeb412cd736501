"""What stands beside the pixels of a file: bounded, left out where broken, and named where it is more pictures."""

from __future__ import annotations

import contextlib
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.errors import RestoreError
from app.images import ImageLimits, Picture, read_header
from app.images.decode import DecodeOptions, decode_file
from app.images.decode.channels import turn
from app.images.jpeg_segments import inspect
from app.images.metadata import exif, exif_writing
from tests import picture_factory as make
from tests.test_images_colour import seen, through
from tests.timing import allowed

LIMITS = ImageLimits()
MAX_HEADER_SECONDS = 0.2
NOISE = np.random.default_rng(5).bytes


def decoded(folder: Path, data: bytes) -> Picture:
    (folder / "photo").write_bytes(data)
    return decode_file(folder / "photo", LIMITS)


def sentences(picture: Picture) -> list[str]:
    return [notice.message for notice in picture.notes]


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def with_segments(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


def png(extra: bytes = b"") -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in make.photo())
    return make.png(make.WIDTH, make.HEIGHT, 8, 2, rows, extra)


def with_tables(count: int) -> bytes:
    """A JPEG that says so often over what its quantization tables are."""
    data = make.jpeg()
    start = data.index(b"\xff\xdb")
    end = data.index(b"\xff\xc0")
    return data[:start] + data[start:end] * count + data[end:]


def deflated(size: int) -> bytes:
    return zlib.compress(NOISE(1000) * (size // 1000))


# Files that would keep a plugin busy for seconds before a pixel is read.
CROWDED: dict[str, Callable[[], bytes]] = {
    "1,000 profiles": lambda: png(make.chunk(b"iCCP", b"icc\0\0" + deflated(1_000_000)) * 1000),
    "1,000 texts": lambda: png(make.chunk(b"zTXt", b"Comment\0\0" + deflated(1_000_000)) * 1000),
    "100,000 chunks": lambda: png(make.chunk(b"prVt", b"") * 99_000),
    "130,000 segments": lambda: with_segments(make.jpeg(), segment(0xE5, b"sixteen bytes it") * 130_000),
    "4,000 tables": lambda: with_tables(4_000),
    "19,000 tables": lambda: with_tables(19_000),
    "5,000 segments": lambda: with_segments(make.jpeg(), segment(0xFE, b"note") * 5_000),
    "5,000 pieces of EXIF": lambda: with_segments(make.jpeg(), segment(0xE1, b"Exif\0\0" + bytes(400)) * 5_000),
    "7 MB of no segment": lambda: with_segments(make.jpeg(), bytes(7_000_000)),
    "7 MB of fill bytes": lambda: with_segments(make.jpeg(), b"\xff" * 7_000_000),
    "markers between scans": lambda: make.KINDS["jpeg progressive"]()[:-2] + segment(0xFE, b"") * 600_000 + b"\xff\xd9",
}


@pytest.mark.parametrize("kind", CROWDED)
def test_a_crowded_file_passes_its_header_check_at_once(kind: str, tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(CROWDED[kind]())
    took = []
    for _ in range(3):  # the machine of a test may be busy
        began = time.thread_time()
        with contextlib.suppress(RestoreError):
            assert read_header(tmp_path / "photo", LIMITS).width == make.WIDTH
        took.append(time.thread_time() - began)
    assert min(took) < allowed(MAX_HEADER_SECONDS)


@pytest.mark.parametrize("kind", ["1,000 profiles", "1,000 texts", "5,000 segments", "5,000 pieces of EXIF"])
def test_a_crowded_file_is_restored_with_a_note(kind: str, tmp_path: Path) -> None:
    picture = decoded(tmp_path, CROWDED[kind]())
    assert np.abs(picture.rgb.astype(int) - make.photo()).mean() < 4
    assert any("left out" in sentence for sentence in sentences(picture))


def test_tables_that_are_repeated_change_nothing_and_few_are_shown_to_a_plugin(tmp_path: Path) -> None:
    assert len(inspect(CROWDED["4,000 tables"](), 1000).kept) < 100
    with pytest.raises(ValueError, match="more segments"):
        inspect(CROWDED["19,000 tables"](), 1000)
    expected = decoded(tmp_path, make.jpeg())
    picture = decoded(tmp_path, CROWDED["4,000 tables"]())
    np.testing.assert_array_equal(picture.rgb, expected.rgb)
    assert picture.notes == expected.notes


def test_long_texts_do_not_fail_a_png(tmp_path: Path) -> None:
    text = zlib.compress(b'{"node": 1}' * 110_000)
    for chunk in (
        make.chunk(b"zTXt", b"Comment\0\0" + text),
        make.chunk(b"iTXt", b"workflow\0\1\0\0\0" + text),
        make.chunk(b"tEXt", b"Comment\0" + b"long " * 300_000),
    ):
        picture = decoded(tmp_path, png(chunk))
        np.testing.assert_array_equal(picture.rgb, make.photo())
        assert any("left out" in sentence for sentence in sentences(picture))


def test_a_large_profile_is_kept_and_a_huge_one_left_out(tmp_path: Path) -> None:
    large = make.display_p3() + NOISE(2_000_000)
    large = struct.pack(">I", len(large)) + large[4:]
    picture = decoded(tmp_path, make.png(24, 12, 8, 2, rows_of(make.vivid()), make.iccp(large)))
    assert picture.icc_profile == large
    huge = make.iccp(make.display_p3() + bytes(40_000_000))
    picture = decoded(tmp_path, make.png(24, 12, 8, 2, rows_of(make.vivid()), huge))
    assert picture.icc_profile is None
    assert any("profile" in sentence for sentence in sentences(picture))


def test_of_two_profiles_the_first_counts(tmp_path: Path) -> None:
    profiles = make.iccp(make.display_p3()) + make.iccp(make.adobe_rgb())
    picture = decoded(tmp_path, make.png(24, 12, 8, 2, rows_of(make.vivid()), profiles))
    assert picture.icc_profile == make.display_p3()


def rows_of(values: np.typing.NDArray[np.uint8]) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in values)


def test_what_a_plugin_stumbles_over_is_left_out(tmp_path: Path) -> None:
    broken_multi_picture = segment(0xE2, b"MPF\0MM\0*\0\0\0\x08" + struct.pack(">HHHII", 1, 0xB001, 4, 1, 5) + bytes(4))
    short_mark = segment(0xE0, b"JFIF")
    jpegs = [with_segments(make.jpeg(), part) for part in (broken_multi_picture, short_mark)]
    for data in (*jpegs, png(make.chunk(b"tEXt", b"transparency\0none"))):
        picture = decoded(tmp_path, data)
        assert np.abs(picture.rgb.astype(int) - make.photo()).mean() < 4


@pytest.mark.parametrize(
    "part",
    [
        segment(0xE0, b"JFIF"),
        segment(0xE2, b"MPF\0MM\0*\0\0\0\x08" + struct.pack(">HHHII", 1, 0xB001, 4, 1, 5) + bytes(4)),
        segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04"),  # resources that go on in the next segment, cut here
        segment(0xEE, b"Adobe"),
    ],
)
def test_a_broken_part_beside_the_pixels_does_not_cost_the_colours(part: bytes, tmp_path: Path) -> None:
    vivid = make.vivid()
    data = make.saved(Image.fromarray(vivid), "JPEG", quality=100, subsampling=0, icc_profile=make.display_p3())
    picture = decoded(tmp_path, with_segments(data, part))
    assert np.abs(seen(picture) - through(vivid, make.display_p3())).mean() < 1.5


def test_pieces_of_a_profile_are_counted(tmp_path: Path) -> None:
    profile = make.display_p3()
    pieces = [
        segment(0xE2, b"ICC_PROFILE\0" + bytes([number + 1, 3]) + profile[200 * number : 200 * number + 200])
        for number in range(3)
    ]
    assert len(profile) < 600
    data = make.saved(Image.fromarray(make.vivid()), "JPEG", quality=100, subsampling=0)
    for good in (pieces, pieces[::-1], [*pieces, pieces[1]]):
        picture = decoded(tmp_path, with_segments(data, *good))
        assert (picture.icc_profile, picture.notes) == (profile, ())
    picture = decoded(tmp_path, with_segments(data, pieces[0], pieces[2]))
    assert picture.icc_profile is None
    assert ["profile is incomplete" in sentence for sentence in sentences(picture)] == [True]


GAIN_MAPS = {
    "Ultra HDR": b'<x xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>',
    "container": b'<Container:Item xmlns:Container="c:" xmlns:Item="i:" Item:Semantic="GainMap"/>',
    "Apple": b'<p:AuxiliaryImageType xmlns:p="a:">urn:com:apple:photo:2020:aux:hdrgainmap</p:AuxiliaryImageType>',
}


@pytest.mark.parametrize("kind", GAIN_MAPS)
def test_of_a_photo_with_a_gain_map_the_ordinary_picture_is_restored(kind: str, tmp_path: Path) -> None:
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + GAIN_MAPS[kind])
    primary = make.jpeg()
    data = with_segments(primary, xmp) + with_segments(make.saved(Image.new("L", (12, 8)), "JPEG"), xmp)
    picture = decoded(tmp_path, data)
    np.testing.assert_array_equal(picture.rgb, decoded(tmp_path, primary).rgb)
    assert [("gain map" in sentence) for sentence in sentences(picture)].count(True) == 1


def test_a_gain_map_is_no_second_picture(tmp_path: Path) -> None:
    mpo = make.mpo()
    assert any("has 2 pictures" in sentence for sentence in sentences(decoded(tmp_path, mpo)))
    second = mpo.rindex(b"\xff\xd8\xff")
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + GAIN_MAPS["Ultra HDR"])
    with_map = mpo[: second + 2] + xmp + mpo[second + 2 :]
    assert [("gain map" in sentence) for sentence in sentences(decoded(tmp_path, with_map))] == [True]


def test_an_animated_png_gives_its_first_picture_and_their_number(tmp_path: Path) -> None:
    frames = [Image.fromarray(make.photo(seed=seed)) for seed in range(3)]
    data = make.saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    picture = decoded(tmp_path, data)
    np.testing.assert_array_equal(picture.rgb, make.photo(seed=0))
    assert any("has 3 frames" in sentence for sentence in sentences(picture))


@pytest.mark.parametrize(("position", "value", "word"), [(4, 12, "12 bits"), (1, 0xC3, "lossless")])
def test_jpegs_of_other_kinds_are_refused_by_their_kind(position: int, value: int, word: str, tmp_path: Path) -> None:
    data = bytearray(make.jpeg())
    data[data.index(b"\xff\xc0") + position] = value
    (tmp_path / "photo").write_bytes(data)
    with pytest.raises(RestoreError, match=word) as caught:
        read_header(tmp_path / "photo", LIMITS)
    assert caught.value.code == "unsupported_depth"


# EXIF that the plugin of an AVIF cannot read, or not write anew.


def avif_with(block: bytes, orientation: int, **options: Any) -> bytes:
    """An AVIF with a block, which its encoder does not touch, beside boxes that turn it."""
    silent = make.exif_of({0x010F: "x" * 200})
    said = exif.parse(silent)
    said.main[0x0112] = said.shorts(orientation)
    data = make.saved(make.rgb_image(), "AVIF", quality=95, exif=exif_writing.serialized(said), **options)
    start = data.index(b"\0\0\0\x06Exif\0\0") + 4  # the payload: a count of bytes to pass over, and the mark
    length = len(silent) + 6
    assert data[start:].startswith(b"Exif\0\0II*\0")
    return data[:start] + (b"Exif\0\0" + block).ljust(length, b"\0")[:length] + data[start + length :]


def odd_resolution(kind: int, data: bytes) -> bytes:
    block = exif.parse(make.exif_of({0x010F: "Camera Works"}))
    block.main[0x011A] = exif.Value(kind, data)
    return exif_writing.serialized(block) or b""


ODD_EXIF = {
    "no mark": b"XXXX" + make.exif_of({0x010F: "Camera Works"})[4:],
    "the head of a JPEG segment before it": b"\xff\xe1\x01\x00Exif\0\0" + make.exif_of({0x010F: "Camera Works"}),
    "a text for a resolution": odd_resolution(exif.ASCII, b"300 dpi\0"),
    "a resolution that is no number": odd_resolution(exif.DOUBLE, struct.pack("<d", float("nan"))),
}


@pytest.mark.parametrize("kind", ODD_EXIF)
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_no_exif_fails_an_avif(kind: str, orientation: int, tmp_path: Path) -> None:
    xmp = make.XMP.replace(b"tiff:Orientation", b"tiff:Nothing")
    picture = decoded(tmp_path, avif_with(ODD_EXIF[kind], orientation, xmp=xmp))
    header = read_header(tmp_path / "photo", LIMITS)
    expected = turn(make.photo(), orientation)
    assert (header.width, header.height) == (picture.width, picture.height)
    assert picture.rgb.shape == expected.shape
    assert np.abs(picture.rgb.astype(int) - expected).mean() < 6
    is_left_out = orientation != 1 or "resolution" not in kind  # the plugin writes it anew where it has to add a turn
    assert sentences(picture) == ["Data beside the photo's pixels is broken and was left out."] * is_left_out
    assert b"Grandmother" in (picture.xmp or b"")


def test_an_avif_that_is_cut_off_too_keeps_what_is_there(tmp_path: Path) -> None:
    data = avif_with(ODD_EXIF["no mark"], 6)
    (tmp_path / "photo").write_bytes(data[:-20])
    with pytest.raises(RestoreError, match="cut off"):
        decode_file(tmp_path / "photo", LIMITS)
    picture = decode_file(tmp_path / "photo", LIMITS, DecodeOptions(keep_partial=True))
    assert (picture.width, picture.height) == (make.HEIGHT, make.WIDTH)
    assert any("broken" in sentence for sentence in sentences(picture))


def test_a_broken_avif_with_exif_is_still_refused(tmp_path: Path) -> None:
    data = avif_with(ODD_EXIF["no mark"], 6)
    (tmp_path / "photo").write_bytes(data.replace(b"av1C", b"xxxx"))
    with pytest.raises(RestoreError) as caught:
        decode_file(tmp_path / "photo", LIMITS)
    assert caught.value.code == "undecodable_image"
