"""The header check: what is refused before a pixel is decoded, and what is let through."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from app.errors import RestoreError
from app.images import ImageLimits, read_header
from app.images.jpeg_segments import scans
from tests import picture_factory as make
from tests.hostile_files import HOSTILE, ODD_BUT_GOOD, scan_bomb

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
