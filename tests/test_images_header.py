"""The header check: what is refused before a pixel is decoded, and what is let through."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.errors import RestoreError
from app.images import ImageLimits, read_header, riff_chunks
from app.images.decode import decode_file
from app.images.jpeg_segments import scans
from tests import picture_factory as make
from tests.hostile_files import HOSTILE, ODD_BUT_GOOD, scan_bomb
from tests.timing import allowed

LIMITS = ImageLimits()


def written(folder: Path, data: bytes) -> Path:
    path = folder / "upload"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", make.KINDS)
def test_every_kind_is_recognised_with_its_size(kind: str, tmp_path: Path) -> None:
    header = read_header(written(tmp_path, make.KINDS[kind]()), LIMITS)
    assert header.format.lower() == kind.split()[0].rstrip("16")
    assert (header.width, header.height) == (make.WIDTH, make.HEIGHT)


@pytest.mark.parametrize("name", [name for name, case in HOSTILE.items() if case.stage == "submit"])
def test_a_hostile_file_is_refused_at_once_with_its_code(name: str, tmp_path: Path) -> None:
    case = HOSTILE[name]
    path = written(tmp_path, case.bytes())
    started = time.monotonic()
    with pytest.raises(RestoreError) as caught:
        read_header(path, LIMITS)
    assert (caught.value.status, caught.value.code) == (case.status, case.code)
    assert time.monotonic() - started < 1
    assert str(tmp_path) not in caught.value.detail


@pytest.mark.parametrize("name", [name for name, case in HOSTILE.items() if case.stage == "decode"])
def test_what_only_the_decoder_can_know_passes_the_header_check(name: str, tmp_path: Path) -> None:
    read_header(written(tmp_path, HOSTILE[name].bytes()), LIMITS)


@pytest.mark.parametrize("name", ODD_BUT_GOOD)
def test_odd_but_good_files_pass(name: str, tmp_path: Path) -> None:
    header = read_header(written(tmp_path, ODD_BUT_GOOD[name]()), LIMITS)
    assert header.width > 0
    assert header.height > 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_the_one_of_the_upright_photo(orientation: int, tmp_path: Path) -> None:
    header = read_header(written(tmp_path, make.jpeg(exif=b"Exif\0\0" + make.exif_block(orientation))), LIMITS)
    upright = (make.WIDTH, make.HEIGHT) if orientation < 5 else (make.HEIGHT, make.WIDTH)
    assert (header.width, header.height) == upright


def test_the_message_names_the_limit_and_the_photos_megapixels(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match=r"2500\.0 megapixels; at most 40 are"):
        read_header(written(tmp_path, HOSTILE["png bomb"].bytes()), LIMITS)


def test_a_limit_above_pillows_own_is_respected(tmp_path: Path) -> None:
    path = written(tmp_path, HOSTILE["png bomb"].bytes())
    header = read_header(path, ImageLimits(max_input_megapixels=2500, max_side_pixels=50_000))
    assert header.width == 50_000


def test_scans_are_counted_and_thumbnails_are_not(tmp_path: Path) -> None:
    assert scans(make.jpeg()).count == 1
    thumbnail = scan_bomb(50)
    data = make.jpeg(exif=b"Exif\0\0" + make.exif_block(thumbnail=thumbnail))
    assert thumbnail in data
    assert scans(data).count == 1
    assert 5 < scans(make.KINDS["jpeg progressive"]()).count < 15
    assert scans(scan_bomb(60)).count > 60


def test_heic_without_the_extra_gets_a_sentence_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.images.sniffing.heif_installed", lambda: False)
    path = written(tmp_path, b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(60))
    with pytest.raises(RestoreError, match="HEIC") as caught:
        read_header(path, LIMITS)
    assert caught.value.status == 415


@pytest.mark.parametrize("kind", ["webp lossy", "webp lossless", "webp alpha", "webp animated"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_webp_needs_no_plugin_for_its_header(
    kind: str, orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin makes room for the whole canvas, twice: seconds for 300 bytes that claim 40 megapixels."""
    with Image.open(io.BytesIO(make.KINDS[kind]()), formats=("WEBP",)) as image:
        data = make.saved(image, "WEBP", lossless=True, exif=make.exif_block(orientation))
    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile._open", lambda _: pytest.fail("opened"))
    header = read_header(written(tmp_path, data), LIMITS)
    upright = (make.WIDTH, make.HEIGHT) if orientation == 1 else (make.HEIGHT, make.WIDTH)
    assert (header.format, header.mime, header.width, header.height) == ("WEBP", "image/webp", *upright)


def test_a_webp_without_a_picture_is_refused(tmp_path: Path) -> None:
    data = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<IB3x", 10, 0) + bytes(6)
    with pytest.raises(RestoreError, match="WEBP") as caught:
        read_header(written(tmp_path, data), LIMITS)
    assert caught.value.code == "undecodable_image"


def test_a_cut_off_webp_is_filled_with_no_more_than_its_size_can_take() -> None:
    data = bytearray(make.KINDS["webp lossy"]())
    struct.pack_into("<I", data, 16, 15_000_000)  # the length of its picture
    found = riff_chunks.inspect(bytes(data))
    assert found.lacks_pixels
    assert len(found.closed(bytes(data), 0)) < 100_000


def test_junk_between_segments_costs_no_time_and_changes_nothing(tmp_path: Path) -> None:
    """Pillow steps over it byte by byte."""
    data = make.jpeg()
    junk = written(tmp_path, data[:2] + data[2:20] + b"\x10\0" * 4_000_000 + data[20:])
    began = time.thread_time()
    assert read_header(junk, LIMITS).width == make.WIDTH
    assert time.thread_time() - began < allowed(0.2)
    picture = decode_file(junk, LIMITS)
    np.testing.assert_array_equal(picture.rgb, decode_file(written(tmp_path, data), LIMITS).rgb)
    assert picture.notes == ()


def test_a_palette_that_comes_again_and_again_costs_no_time_and_changes_nothing(tmp_path: Path) -> None:
    data = make.palette_png()
    start = data.index(b"PLTE") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    other = make.chunk(b"PLTE", b"\1\2\3")
    crowded = written(tmp_path, data[:end] + other * 90_000 + data[end:])
    began = time.thread_time()
    assert read_header(crowded, LIMITS).width == make.WIDTH
    assert time.thread_time() - began < allowed(0.2)
    found = decode_file(crowded, LIMITS).rgb
    np.testing.assert_array_equal(found, decode_file(written(tmp_path, data), LIMITS).rgb)
