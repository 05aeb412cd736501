"""BMP: the profile of version 5, and run lengths in all their spellings."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import RestoreError
from app.images import ImageLimits, Picture, read_header
from app.images.decode import DecodeOptions, decode_file
from tests import picture_factory as make
from tests.test_images_colour import seen, through

HEIGHT, WIDTH = 24, 31
INDEXES = np.random.default_rng(8).integers(0, 16, (HEIGHT, WIDTH), np.uint8)
PALETTE = np.array([[(7 * i) & 255, 9 * i, 255 - 3 * i] for i in range(16)], np.uint8)
END_OF_ROW, END = b"\0\0", b"\0\1"
LEFT_OUT = "The photo's colour profile is broken or too large, and was left out."


def decoded(folder: Path, data: bytes, *, keep: bool = False) -> Picture:
    (folder / "photo.bmp").write_bytes(data)
    header = read_header(folder / "photo.bmp", ImageLimits())
    picture = decode_file(folder / "photo.bmp", ImageLimits(), DecodeOptions(keep_partial=keep))
    assert (header.width, header.height) == (picture.width, picture.height)
    return picture


def with_profile(rgb: Any, profile: bytes, *, bits: int = 24, kind: bytes = b"DEBM", size: int | None = None) -> bytes:
    """A BMP of version 5 whose profile stands behind its pixels."""
    pixels = rgb[::-1, :, ::-1]
    if bits == 32:
        pixels = np.dstack([pixels, np.full(rgb.shape[:2], 255, np.uint8)])
    rows = b"".join(row.tobytes().ljust(-(-row.size // 4) * 4, b"\0") for row in pixels)
    head = struct.pack("<IiiHHIIiiII", 124, rgb.shape[1], rgb.shape[0], 1, bits, 3 if bits == 32 else 0, 0, 0, 0, 0, 0)
    head += struct.pack("<4I4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, kind) + bytes(48)
    head += struct.pack("<4I", 4, 124 + len(rows), len(profile) if size is None else size, 0)
    return b"BM" + struct.pack("<IHHI", 138 + len(rows) + len(profile), 0, 0, 138) + head + rows + profile


@pytest.mark.parametrize("bits", [24, 32])
def test_the_profile_in_a_bmp_says_what_its_colours_are(bits: int, tmp_path: Path) -> None:
    vivid = make.vivid()
    picture = decoded(tmp_path, with_profile(vivid, make.display_p3(), bits=bits))
    assert np.abs(seen(picture) - through(vivid, make.display_p3())).mean() < 1
    assert np.abs(seen(picture) - vivid).mean() > 2
    assert picture.notes == ()


def test_a_profile_that_is_linked_is_not_looked_for_and_one_that_is_not_whole_is_told(tmp_path: Path) -> None:
    photo = make.photo()
    linked = decoded(tmp_path, with_profile(photo, b"/etc/passwd\0", kind=b"KNIL"))
    assert (linked.rgb == photo).all()
    assert linked.icc_profile is None
    assert linked.notes == ()
    for size in (len(make.display_p3()) + 1, 0xFFFFFFFF):
        cut = decoded(tmp_path, with_profile(photo, make.display_p3(), size=size))
        assert (cut.rgb == photo).all()
        assert [notice.message for notice in cut.notes] == [LEFT_OUT]


def run_lengths(bits: int, coded: bytes) -> bytes:
    """A BMP of 16 colours whose pixels are these run lengths."""
    palette = b"".join(bytes([*colour[::-1], 0]) for colour in PALETTE.tolist()).ljust(4 << bits, b"\0")
    method = 1 if bits == 8 else 2
    head = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, bits, method, len(coded), 0, 0, 1 << bits, 0)
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(coded), 0, 0, start) + head + palette + coded


def literal(bits: int, row: Any) -> bytes:
    """A run of indexes as they are, an odd number of them, filled up to an even number of bytes."""
    values = bytes(row.tolist())
    if bits == 4:
        pairs = (*row.tolist(), 0)
        values = bytes(pairs[i] << 4 | pairs[i + 1] for i in range(0, len(row), 2))
    return bytes([0, len(row)]) + values + bytes(len(values) % 2)


def repeated(bits: int, row: Any) -> bytes:
    return b"".join(bytes([1, index << 4 if bits == 4 else index]) for index in row.tolist())


def shown(indexes: Any) -> Any:
    return PALETTE[indexes]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("spelling", [literal, repeated])
def test_run_lengths_are_read_in_each_spelling(bits: int, spelling: Any, tmp_path: Path) -> None:
    coded = b"".join(spelling(bits, row) + END_OF_ROW for row in INDEXES[::-1])
    for ended in (coded + END, coded):
        picture = decoded(tmp_path, run_lengths(bits, ended))
        assert (picture.rgb == shown(INDEXES)).all()
        assert picture.notes == ()


@pytest.mark.parametrize("bits", [4, 8])
def test_what_no_run_tells_is_the_colour_of_index_0(bits: int, tmp_path: Path) -> None:
    """Rows without a run, jumps to the right and up, and an early end."""
    expected = INDEXES.copy()
    rows = [literal(bits, row) + END_OF_ROW for row in INDEXES[::-1]]
    rows[3] = END_OF_ROW
    rows[5] = b"\0\2\5\0" + repeated(bits, INDEXES[-6, 5:]) + END_OF_ROW
    rows[7] = b"\0\2\0\2"
    rows[8] = b""
    rows[10] = literal(bits, INDEXES[-11, :9]) + b"\0\2\4\1"
    rows[11] = repeated(bits, INDEXES[-12, 13:]) + END_OF_ROW
    expected[[-4, -8, -9]] = 0
    expected[-6, :5] = expected[-11, 9:] = expected[-12, :13] = 0
    whole = b"".join(rows) + END
    assert (decoded(tmp_path, run_lengths(bits, whole)).rgb == shown(expected)).all()
    early = b"".join(rows[:20]) + literal(bits, INDEXES[-21, :5]) + END
    expected[:-21] = expected[-21, 5:] = 0
    assert (decoded(tmp_path, run_lengths(bits, early)).rgb == shown(expected)).all()


def test_runs_that_are_too_long_end_with_their_row(tmp_path: Path) -> None:
    coded = b"".join(literal(8, row) + bytes([255, 9]) + END_OF_ROW for row in INDEXES[::-1]) + b"\0\2\xff\xff" + END
    assert (decoded(tmp_path, run_lengths(8, coded)).rgb == shown(INDEXES)).all()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("lost", [1, 2, 3, 20])
def test_run_lengths_that_are_cut_off_are_refused_or_kept(bits: int, lost: int, tmp_path: Path) -> None:
    rows = [literal(bits, row) + END_OF_ROW for row in INDEXES[::-1]]
    cut = literal(bits, INDEXES[5])
    data = run_lengths(bits, b"".join(rows[: HEIGHT - 6]) + cut)[: -min(lost, len(cut))]
    with pytest.raises(RestoreError, match=r"25 % of the photo's rows are missing.*partial=keep"):
        decoded(tmp_path, data)
    picture = decoded(tmp_path, data, keep=True)
    assert (picture.rgb[6:] == shown(INDEXES)[6:]).all()
    assert (picture.rgb[:6] == 128).all()
    assert [notice.message for notice in picture.notes] == [
        "The file is cut off: 25 % of the photo's rows are missing and stay grey."
    ]
