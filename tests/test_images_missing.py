"""Files that are cut off or damaged: whole photos are restored, missing pixels are refused or counted, never hidden."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.errors import RestoreError
from app.images import Decoder, ImageLimits, Picture, read_header
from app.images.decode import DecodeOptions, decode_file
from tests import picture_factory as make

LIMITS = ImageLimits()
WIDTH, HEIGHT = 120, 96


def image() -> Image.Image:
    return Image.fromarray(make.photo(WIDTH, HEIGHT))


JPEGS: dict[str, Callable[[], bytes]] = {
    "baseline": lambda: make.saved(image(), "JPEG", quality=90, subsampling=0),
    "subsampled": lambda: make.saved(image(), "JPEG", quality=90, subsampling=2),
    "restart markers": lambda: make.saved(image(), "JPEG", quality=90, restart_marker_blocks=4),
    "grey": lambda: make.saved(image().convert("L"), "JPEG", quality=90),
    "cmyk": lambda: make.saved(image().convert("CMYK"), "JPEG", quality=90),
    "progressive": lambda: make.saved(image(), "JPEG", quality=90, progressive=True),
}
PNGS: dict[str, Callable[[], bytes]] = {
    "rgb": lambda: make.saved(image(), "PNG"),
    "grey": lambda: make.saved(image().convert("L"), "PNG"),
    "palette": lambda: make.saved(image().quantize(16), "PNG"),
    "1 bit": lambda: make.saved(image().convert("1"), "PNG"),
    "16 bit": lambda: make.deep_png(make.deep(make.photo(WIDTH, HEIGHT))),
    "16 bit grey": lambda: make.deep_png(make.deep(make.photo(WIDTH, HEIGHT))[..., 0]),
}


def decoded(folder: Path, data: bytes, *, keep: bool = False) -> Picture:
    (folder / "photo").write_bytes(data)
    return decode_file(folder / "photo", LIMITS, DecodeOptions(keep_partial=keep))


def sentences(picture: Picture) -> list[str]:
    return [notice.message for notice in picture.notes]


def first_difference(one: NDArray[Any], other: NDArray[Any]) -> int:
    differs = (one != other).reshape(len(one), -1).any(axis=1)
    return int(differs.argmax()) if differs.any() else len(one)


def said_percent(sentence: str) -> float:
    """What a sentence says is missing, in percent of the rows."""
    if "less than 1 %" in sentence:
        return 0.5
    found = re.search(r"(\d+) %", sentence)
    return float(found[1]) if found else 100.0


def assert_refused(folder: Path, data: bytes) -> str:
    with pytest.raises(RestoreError) as caught:
        decoded(folder, data)
    assert (caught.value.status, caught.value.code) == (422, "undecodable_image")
    return caught.value.detail


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_without_its_end_is_whole(kind: str, tmp_path: Path) -> None:
    data = JPEGS[kind]()
    picture = decoded(tmp_path, data[:-2])
    np.testing.assert_array_equal(picture.rgb, decoded(tmp_path, data).rgb)
    assert "end mark" in sentences(picture)[0]
    assert sentences(decoded(tmp_path, data[:-1])) == sentences(picture)


@pytest.mark.parametrize("end", ["cut", "zeros"])
@pytest.mark.parametrize("kind", [kind for kind in JPEGS if kind != "progressive"])
def test_missing_rows_of_a_jpeg_are_counted_exactly(kind: str, end: str, tmp_path: Path) -> None:
    data = JPEGS[kind]()
    whole = decoded(tmp_path, data)
    tail = {"cut": b"", "zeros": bytes(4096)}[end]
    for length in cuts(data):
        cut = data[:length].rstrip(b"\0") + tail
        detail = assert_refused(tmp_path, cut)
        picture = decoded(tmp_path, cut, keep=True)
        first = first_difference(picture.rgb, whole.rgb)
        share = 100 * (HEIGHT - first) / HEIGHT
        assert "cut off" in detail
        assert (
            abs(said_percent(detail) - share) <= 9 * 100 / HEIGHT
        )  # a row of blocks, where the cut fell into its last
        assert said_percent(sentences(picture)[0]) == said_percent(detail)


def cuts(data: bytes) -> range:
    """Lengths at which coded data is cut off: before the last block, see `looks_cut`."""
    start = data.index(b"\xff\xda") + 40
    return range(start, len(data) - 40, (len(data) - start) // 14)


DAMAGED = "The file is damaged: some pixels of the photo are missing or wrong."


@pytest.mark.parametrize("kind", [kind for kind in JPEGS if kind != "progressive"])
def test_a_jpeg_that_lacks_bits_and_has_its_end_mark_is_damaged(kind: str, tmp_path: Path) -> None:
    """Nothing says where bits were lost, so no share of the rows is named, and nobody is asked for the whole file."""
    data = JPEGS[kind]()
    for length in cuts(data):
        detail = assert_refused(tmp_path, data[:length] + b"\xff\xd9")
        assert detail.startswith(DAMAGED[:-1])
        assert "whole file" not in detail
        assert sentences(decoded(tmp_path, data[:length] + b"\xff\xd9", keep=True)) == [DAMAGED]


@pytest.mark.parametrize("kind", ["baseline", "subsampled", "grey", "cmyk"])
def test_a_jpeg_that_is_damaged_in_the_middle_is_not_cut_off(kind: str, tmp_path: Path) -> None:
    data = JPEGS[kind]()
    middle = (data.index(b"\xff\xda") + len(data)) // 2
    damaged = data[:middle] + bytes(256) + data[middle + 256 :]
    assert assert_refused(tmp_path, damaged).startswith(DAMAGED[:-1])
    assert sentences(decoded(tmp_path, damaged, keep=True)) == [DAMAGED]


def test_a_progressive_jpeg_that_lacks_a_scan_and_has_its_end_mark_is_damaged(tmp_path: Path) -> None:
    data = JPEGS["progressive"]()
    scans = [found.start() for found in re.finditer(b"\xff\xda", data)]
    (note,) = sentences(decoded(tmp_path, data[: scans[4]] + b"\xff\xd9"))
    assert note == "The file is damaged: the fine detail of all of the photo's rows is missing."


def with_sector(data: bytes, sector: bytes) -> bytes:
    """A JPEG one of whose sectors holds something else, from the middle of its coded data on."""
    at = (data.index(b"\xff\xda") + len(data)) // 2 // 512 * 512
    return data[:at] + sector + data[at + len(sector) :]


def test_a_lost_sector_that_the_decoder_gets_over_is_told(tmp_path: Path) -> None:
    """Too many bits are left behind it, and restart markers lead back: the decoder misses nothing."""
    photo = Image.fromarray(make.photo(480, 360))
    data = make.saved(photo, "JPEG", quality=97, restart_marker_rows=1)
    picture = decoded(tmp_path, with_sector(data, bytes(512)))
    assert sentences(picture) == [DAMAGED]
    # Other damage that leaves all bits there cannot be seen.
    assert decoded(tmp_path, with_sector(data, b"\x11" * 512)).notes == ()


@pytest.mark.parametrize("progressive", [False, True])
def test_long_zeros_that_flat_colours_are_coded_as_are_no_damage(progressive: bool, tmp_path: Path) -> None:
    pixels = np.full((1200, 2000, 3), 250, np.uint8)
    pixels[500:596, 900:1020] = make.photo(WIDTH, HEIGHT)
    data = make.saved(Image.fromarray(pixels), "JPEG", quality=90, optimize=True, progressive=progressive)
    assert bytes(1024) in data
    assert decoded(tmp_path, data).notes == ()


def test_a_jpeg_that_is_cut_at_a_restart_marker_is_not_whole(tmp_path: Path) -> None:
    """No bit of the last interval is missing, and none of the next one is there."""
    data = JPEGS["restart markers"]()
    markers = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    for place in (markers[3], markers[3] + 2, markers[-1], markers[-1] + 2):
        assert "missing" in assert_refused(tmp_path, data[:place])
        assert "missing" in sentences(decoded(tmp_path, data[:place] + b"\xff\xd9", keep=True))[0]


def test_a_progressive_jpeg_lacks_detail_or_rows(tmp_path: Path) -> None:
    data = JPEGS["progressive"]()
    scans = [found.start() for found in re.finditer(b"\xff\xda", data)]
    middle = assert_refused(tmp_path, data[: scans[4] + 60])
    assert "cut off: the fine detail of all of the photo's rows is missing" in middle
    first = data[: (scans[0] + scans[1]) // 2]
    assert re.search(r"\d+ % of the photo's rows are missing", assert_refused(tmp_path, first))
    last = assert_refused(tmp_path, data[:-40])
    assert re.search(r"the fine detail of \d+ % of", last)
    kept = decoded(tmp_path, data[: scans[4] + 60], keep=True)
    difference = np.abs(kept.rgb.astype(int) - make.photo(WIDTH, HEIGHT)).mean()
    assert difference < 20
    assert "fine detail" in sentences(kept)[0]


def test_a_photo_that_really_ends_in_grey_is_whole(tmp_path: Path) -> None:
    pixels = make.photo(WIDTH, HEIGHT).copy()
    pixels[-40:] = 128
    picture = decoded(tmp_path, make.saved(Image.fromarray(pixels), "JPEG", quality=95))
    assert picture.notes == ()


def test_things_behind_the_end_of_a_jpeg_do_no_harm(tmp_path: Path) -> None:
    data = JPEGS["baseline"]()
    for tail in (b"PK\3\4" + bytes(500), bytes(4000), b"\xff\xd8\xff\xe0" + bytes(90), b"\xff"):
        picture = decoded(tmp_path, data + tail)
        np.testing.assert_array_equal(picture.rgb, decoded(tmp_path, data).rgb)
        assert picture.notes == ()


@pytest.mark.parametrize("kind", PNGS)
def test_missing_rows_of_a_png_are_counted_exactly(kind: str, tmp_path: Path) -> None:
    data = PNGS[kind]()
    whole = decoded(tmp_path, data)
    start = data.index(b"IDAT") + len(data) // 8
    for length in range(start, len(data) - 60, (len(data) - start) // 9):
        detail = assert_refused(tmp_path, data[:length])
        picture = decoded(tmp_path, data[:length], keep=True)
        first = first_difference(picture.rgb, whole.rgb)
        assert "cut off" in detail
        assert abs(said_percent(detail) - 100 * (HEIGHT - first) / HEIGHT) <= 1
        assert picture.rgb.dtype == whole.rgb.dtype
        np.testing.assert_array_equal(np.unique(picture.rgb[first + 1 :]), [32768 if "16" in kind else 128])


@pytest.mark.parametrize("kind", PNGS)
def test_a_png_without_its_last_bytes_or_with_wrong_sums_is_whole(kind: str, tmp_path: Path) -> None:
    data = PNGS[kind]()
    whole = decoded(tmp_path, data)
    wrong_sum = bytearray(data)
    position = data.index(b"IDAT")
    wrong_sum[position + 4 + int.from_bytes(data[position - 4 : position], "big")] ^= 1
    for odd in (data[:-12], data[:-14], data[:-17], bytes(wrong_sum)):
        picture = decoded(tmp_path, odd)
        np.testing.assert_array_equal(picture.rgb, whole.rgb)
        assert picture.notes == ()


def with_wrong_sum(data: bytes, name: bytes) -> bytes:
    """A PNG whose first chunk of a name has another checksum."""
    at = data.index(name)
    end = at + 4 + int.from_bytes(data[at - 4 : at], "big")
    return data[:end] + bytes(value ^ 0xA5 for value in data[end : end + 4]) + data[end + 4 :]


@pytest.mark.parametrize("name", [b"IHDR", b"IEND"])
@pytest.mark.parametrize("kind", PNGS)
def test_a_png_whose_header_or_end_has_a_wrong_sum_is_whole(kind: str, name: bytes, tmp_path: Path) -> None:
    data = PNGS[kind]()
    wrong = with_wrong_sum(data, name)
    picture = decoded(tmp_path, wrong)
    np.testing.assert_array_equal(picture.rgb, decoded(tmp_path, data).rgb)
    assert picture.rgb.dtype == decoded(tmp_path, data).rgb.dtype
    assert picture.notes == ()
    (tmp_path / "photo").write_bytes(wrong)
    header = read_header(tmp_path / "photo", LIMITS)
    assert (header.width, header.height) == (WIDTH, HEIGHT)


def test_a_palette_with_a_wrong_sum_is_used_and_told(tmp_path: Path) -> None:
    data = PNGS["palette"]()
    damaged = with_wrong_sum(data, b"PLTE")
    doubt = "The checksum of the photo's palette is wrong; some of its colours may be wrong too."
    picture = decoded(tmp_path, damaged)
    np.testing.assert_array_equal(picture.rgb, decoded(tmp_path, data).rgb)
    assert sentences(picture) == [doubt]
    kept = sentences(decoded(tmp_path, damaged[: len(data) * 3 // 4], keep=True))  # packed again
    assert len(kept) == 2
    assert doubt in kept


def test_a_suggested_palette_with_a_wrong_sum_says_nothing_of_the_colours(tmp_path: Path) -> None:
    data = PNGS["rgb"]()
    palette = with_wrong_sum(make.chunk(b"PLTE", bytes(range(48))), b"PLTE")
    picture = decoded(tmp_path, data[:33] + palette + data[33:])
    np.testing.assert_array_equal(picture.rgb, make.photo(WIDTH, HEIGHT))
    assert picture.notes == ()


def with_header(data: bytes, **changed: int) -> bytes:
    """A PNG with another header, under the checksum of the one it had."""
    fields = dict(zip(HEADER, struct.unpack(">IIBBBBB", data[16:29]), strict=True)) | changed
    return data[:16] + struct.pack(">IIBBBBB", *fields.values()) + data[29:]


HEADER = ("width", "height", "depth", "kind", "compression", "filters", "interlaced")


@pytest.mark.parametrize(
    "changed",
    [
        {"width": WIDTH - 8},
        {"width": WIDTH + 8},
        {"height": HEIGHT - 16},
        {"height": HEIGHT + 16},
        {"depth": 16},
        {"kind": 0},
        {"kind": 6},
        {"interlaced": 1},
    ],
)
def test_a_damaged_header_that_the_pixels_contradict_is_refused(changed: dict[str, int], tmp_path: Path) -> None:
    for kind in ("rgb", "palette"):
        data = PNGS[kind]()
        if changed.get("kind") == 0 and kind == "palette":
            continue  # grey of as many bits: only the palette, which is there, speaks against it
        assert_refused(tmp_path, with_header(data, **changed))


@pytest.mark.parametrize("changed", [{"depth": 3}, {"kind": 1}, {"compression": 1}, {"filters": 2}, {"width": 0}])
def test_a_header_that_no_png_can_have_is_refused(changed: dict[str, int], tmp_path: Path) -> None:
    assert_refused(tmp_path, with_header(PNGS["rgb"](), **changed))


def test_a_png_with_wrong_pixels_says_so(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in make.photo())
    packed = bytearray(zlib.compress(rows))
    packed[-1] ^= 1
    header = struct.pack(">IIBBBBB", make.WIDTH, make.HEIGHT, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", bytes(packed)), (b"IEND", b""))
    data = make.PNG_SIGNATURE + b"".join(make.chunk(*part) for part in parts)
    assert "damaged" in assert_refused(tmp_path, data)
    assert "damaged" in sentences(decoded(tmp_path, data, keep=True))[0]


def test_an_interlaced_png_is_counted_by_its_passes(tmp_path: Path) -> None:
    data = interlaced(make.photo(WIDTH, HEIGHT))
    np.testing.assert_array_equal(decoded(tmp_path, data).rgb, make.photo(WIDTH, HEIGHT))
    np.testing.assert_array_equal(decoded(tmp_path, data[:-20]).rgb, make.photo(WIDTH, HEIGHT))
    cut = data[: int(len(data) * 0.9)]
    assert "cut off" in assert_refused(tmp_path, cut)
    kept = decoded(tmp_path, cut, keep=True)
    assert "cut off" in sentences(kept)[0]
    np.testing.assert_array_equal(kept.rgb[::2], make.photo(WIDTH, HEIGHT)[::2])


def interlaced(pixels: NDArray[np.uint8]) -> bytes:
    """An RGB PNG of seven passes."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b""
    for left, top, across, down in passes:
        rows += b"".join(b"\0" + row.tobytes() for row in pixels[top::down, left::across])
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return make.PNG_SIGNATURE + b"".join(make.chunk(*part) for part in parts)


def test_black_rows_at_the_bottom_of_a_png_are_pixels(tmp_path: Path) -> None:
    pixels = make.photo(WIDTH, HEIGHT).copy()
    pixels[-30:] = 0
    picture = decoded(tmp_path, make.saved(Image.fromarray(pixels), "PNG"))
    np.testing.assert_array_equal(picture.rgb, pixels)
    assert picture.notes == ()


def test_metadata_behind_the_pixels_survives_the_repair(tmp_path: Path) -> None:
    data = PNGS["16 bit"]()
    resolution = make.chunk(b"eXIf", make.exif_block(6))
    odd = bytearray(data[:-12] + resolution + data[-12:])
    position = data.index(b"IDAT")
    odd[position + 4 + int.from_bytes(data[position - 4 : position], "big")] ^= 1
    picture = decoded(tmp_path, bytes(odd))
    assert (picture.width, picture.height) == (HEIGHT, WIDTH)
    assert picture.rgb.dtype == np.uint16


def test_the_child_keeps_what_is_there_when_asked(tmp_path: Path) -> None:
    data = JPEGS["baseline"]()
    (tmp_path / "photo").write_bytes(data[: len(data) // 2])
    decoder = Decoder(LIMITS)
    try:
        with pytest.raises(RestoreError, match="partial=keep"):
            decoder.decode(tmp_path / "photo")
        assert "missing" in sentences(decoder.decode(tmp_path / "photo", keep_partial=True))[0]
    finally:
        decoder.close()


def test_nothing_can_be_kept_of_a_file_without_pixels(tmp_path: Path) -> None:
    for data in (JPEGS["baseline"](), PNGS["rgb"]()):
        start = max(data.find(b"\xff\xda"), data.find(b"IDAT"))
        with pytest.raises(RestoreError):
            decoded(tmp_path, data[: start + 4], keep=True)


def test_a_jpeg_without_huffman_tables_is_read_with_the_usual_ones(tmp_path: Path) -> None:
    """Frames of Motion JPEG leave them out."""
    data = make.saved(image(), "JPEG", quality=90, subsampling=0)
    segments = re.compile(rb"\xff\xc4(..)", re.DOTALL)
    while (found := segments.search(data)) is not None:
        data = data[: found.start()] + data[found.start() + 2 + int.from_bytes(found[1], "big") :]
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.size == (WIDTH, HEIGHT)
    assert np.abs(decoded(tmp_path, data).rgb.astype(int) - make.photo(WIDTH, HEIGHT)).mean() < 4
