"""TIFF files that lack pixels: refused by default, and with `partial=keep` restored as far as they are there."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from app.errors import RestoreError
from app.images import ImageLimits, Picture
from app.images.decode import DecodeOptions, decode_file

HEIGHT, WIDTH = 64, 48
CHANCE = np.random.default_rng(7)
PHOTO = CHANCE.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GREY = 128


def tiff(photo: NDArray[Any] = PHOTO, **options: Any) -> bytes:
    """A TIFF whose directory stands before its pixels."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, photo, photometric="rgb" if photo.ndim == 3 else "minisblack", **options)
    return buffer.getvalue()


def decoded(folder: Path, data: bytes, *, keep_partial: bool) -> Picture:
    (folder / "photo.tif").write_bytes(data)
    return decode_file(folder / "photo.tif", ImageLimits(), DecodeOptions(keep_partial=keep_partial))


def cut(data: bytes, rows: float, row_bytes: int = 3 * WIDTH) -> bytes:
    """Without the bytes of the last rows of uncompressed pixels, which end the file."""
    return data[: len(data) - round(rows * row_bytes)]


@pytest.mark.parametrize("rows_a_strip", [8, HEIGHT])
def test_of_a_cut_off_tiff_every_whole_row_is_kept(rows_a_strip: int, tmp_path: Path) -> None:
    data = cut(tiff(rowsperstrip=rows_a_strip), 15.5)
    picture = decoded(tmp_path, data, keep_partial=True)
    there = HEIGHT - 16
    np.testing.assert_array_equal(picture.rgb[:there], PHOTO[:there])
    assert (picture.rgb[there:] == GREY).all()
    (note,) = [notice.message for notice in picture.notes]
    assert note == "The file is cut off: 25 % of the photo's rows are missing and stay grey."


def test_of_deflated_strips_the_rows_that_unpack_are_kept(tmp_path: Path) -> None:
    data = tiff(rowsperstrip=16, compression="zlib")
    picture = decoded(tmp_path, data[: len(data) - 1200], keep_partial=True)
    rows = int((picture.rgb == PHOTO).all(axis=(1, 2)).argmin())
    assert HEIGHT - 16 <= rows < HEIGHT
    assert (picture.rgb[rows:] == GREY).all()
    assert "are missing and stay grey" in picture.notes[0].message


def test_a_strip_that_is_lost_within_the_photo_is_told_without_a_share(tmp_path: Path) -> None:
    data = bytearray(tiff(rowsperstrip=16))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        tag = file.pages[0].tags["StripOffsets"]
    struct.pack_into("<I", data, tag.valueoffset + 4, 0)
    picture = decoded(tmp_path, bytes(data), keep_partial=True)
    assert (picture.rgb[16:32] == GREY).all()
    np.testing.assert_array_equal(
        np.delete(picture.rgb, slice(16, 32), axis=0), np.delete(PHOTO, slice(16, 32), axis=0)
    )
    assert picture.notes[0].message == "The file is damaged: some pixels of the photo are missing or wrong."


def test_sixteen_bits_and_tiles_are_kept_too(tmp_path: Path) -> None:
    deep = CHANCE.integers(0, 65536, (HEIGHT, WIDTH), np.uint16)
    picture = decoded(tmp_path, cut(tiff(deep, rowsperstrip=8), 8, 2 * WIDTH), keep_partial=True)
    np.testing.assert_array_equal(picture.rgb[: HEIGHT - 8, :, 0], deep[: HEIGHT - 8])
    assert (picture.rgb[HEIGHT - 8 :] == 32768).all()
    tiles = tiff(tile=(16, 16))
    picture = decoded(tmp_path, tiles[: len(tiles) - 16 * 16 * 3], keep_partial=True)
    np.testing.assert_array_equal(picture.rgb[: HEIGHT - 16], PHOTO[: HEIGHT - 16])
    assert (picture.rgb[HEIGHT - 16 :, WIDTH - 16 :] == GREY).all()
    np.testing.assert_array_equal(picture.rgb[HEIGHT - 16 :, : WIDTH - 16], PHOTO[HEIGHT - 16 :, : WIDTH - 16])


def test_by_default_it_is_refused_and_the_way_to_keep_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="partial=keep") as refused:
        decoded(tmp_path, cut(tiff(rowsperstrip=8), 16), keep_partial=False)
    assert refused.value.code == "undecodable_image"


def test_a_whole_photo_gets_no_note(tmp_path: Path) -> None:
    picture = decoded(tmp_path, tiff(rowsperstrip=8), keep_partial=True)
    np.testing.assert_array_equal(picture.rgb, PHOTO)
    assert picture.notes == ()
