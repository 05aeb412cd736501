"""BMP files that lack pixels: refused by default, and with `partial=keep` restored as far as they are there."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.errors import RestoreError
from app.images import ImageLimits, Picture
from app.images.decode import DecodeOptions, decode_file

HEIGHT, WIDTH = 40, 20
PHOTO = np.random.default_rng(8).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GREY = 128


def plain() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "BMP")
    return buffer.getvalue()


def masked(*, top_down: bool) -> bytes:
    """32 bits with masks, in which the first row is the lowest one or the highest."""
    height = -HEIGHT if top_down else HEIGHT
    pixels = np.dstack([PHOTO[..., ::-1], np.full((HEIGHT, WIDTH), 255, np.uint8)])
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII", 108, WIDTH, height, 1, 32, 3, pixels.size, 2835, 2835, 0, 0) + masks
    head = head.ljust(108, b"\0")
    rows = pixels if top_down else pixels[::-1]
    return b"BM" + struct.pack("<IHHI", 14 + 108 + pixels.size, 0, 0, 14 + 108) + head + rows.tobytes()


def decoded(folder: Path, data: bytes, *, keep_partial: bool) -> Picture:
    (folder / "photo.bmp").write_bytes(data)
    return decode_file(folder / "photo.bmp", ImageLimits(), DecodeOptions(keep_partial=keep_partial))


@pytest.mark.parametrize("kind", ["plain", "masked", "masked, top down"])
def test_of_a_cut_off_bmp_every_whole_row_is_kept(kind: str, tmp_path: Path) -> None:
    whole = plain() if kind == "plain" else masked(top_down="top down" in kind)
    row_bytes = WIDTH * (3 if kind == "plain" else 4)
    data = whole[: len(whole) - 10 * row_bytes + 5]
    with pytest.raises(RestoreError, match=r"25 % of the photo's rows are missing.*partial=keep"):
        decoded(tmp_path, data, keep_partial=False)
    picture = decoded(tmp_path, data, keep_partial=True)
    lost = np.s_[HEIGHT - 10 :] if "top down" in kind else np.s_[:10]
    left = np.s_[: HEIGHT - 10] if "top down" in kind else np.s_[10:]
    np.testing.assert_array_equal(picture.rgb[left], PHOTO[left])
    assert (picture.rgb[lost] == GREY).all()
    assert [notice.message for notice in picture.notes] == [
        "The file is cut off: 25 % of the photo's rows are missing and stay grey."
    ]


def test_a_whole_bmp_gets_no_note(tmp_path: Path) -> None:
    for data in (plain(), masked(top_down=False)):
        picture = decoded(tmp_path, data, keep_partial=True)
        np.testing.assert_array_equal(picture.rgb, PHOTO)
        assert picture.notes == ()
