"""JPEG inside a TIFF: sampling that the tags do not say, or say wrongly, and segments that lack bits."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.errors import RestoreError
from app.images import ImageLimits, Picture
from app.images.decode import DecodeOptions, decode_file
from tests import picture_factory as make
from tests.tiff_writer import TiffWriter, Value

WIDTH, HEIGHT = 96, 64
PHOTO = make.photo(WIDTH, HEIGHT)
NO_TAG: tuple[int, ...] = ()
YCBCR, RGB, GREY = 6, 2, 1


def jpeg(pixels: NDArray[np.uint8] = PHOTO, subsampling: int = 2, **how: Any) -> bytes:
    return make.saved(Image.fromarray(pixels), "JPEG", quality=95, subsampling=subsampling, **how)


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    """(H, W, 3) what OpenCV sees in a JPEG."""
    bgr: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(bgr[..., ::-1])


def tiff(
    segments: Sequence[bytes],
    *,
    sampling: Sequence[int] = NO_TAG,
    photometric: int = YCBCR,
    rows: int = HEIGHT,
    tags: Mapping[int, Value] | None = None,
) -> bytes:
    """A page of JPEG strips, its directory in front of them."""
    samples = 1 if photometric == GREY else 3
    found: dict[int, Value] = {
        256: ("I", [WIDTH]), 257: ("I", [HEIGHT]), 258: ("H", [8] * samples), 259: ("H", [7]),
        262: ("H", [photometric]), 277: ("H", [samples]), 278: ("I", [rows]), 284: ("H", [1]),
        279: ("I", [len(segment) for segment in segments]), **(tags or {}),
    }  # fmt: skip
    if sampling:
        found[530] = ("H", list(sampling))
    start = 0
    for _ in range(2):  # first to see how long the directory is
        writer = TiffWriter()
        places = [start + sum(len(each) + len(each) % 2 for each in segments[:n]) for n in range(len(segments))]
        writer.directory({**found, 273: ("I", places)})
        start = len(writer.content()) + len(writer.content()) % 2
    for segment in segments:
        writer.put(segment)
    return writer.content()


def decoded(folder: Path, data: bytes, *, keep: bool = False) -> Picture:
    (folder / "photo.tif").write_bytes(data)
    return decode_file(folder / "photo.tif", ImageLimits(), DecodeOptions(keep_partial=keep))


def refusal(folder: Path, data: bytes) -> str:
    with pytest.raises(RestoreError) as caught:
        decoded(folder, data)
    assert caught.value.code == "undecodable_image"
    return caught.value.detail


def sentences(picture: Picture) -> list[str]:
    return [notice.message for notice in picture.notes]


# Sampling.


@pytest.mark.parametrize("tag", [NO_TAG, (1, 1), (2, 1), (2, 2), (1, 2), (4, 4), (3, 7), (2,)])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_the_stream_says_how_it_is_sampled(subsampling: int, tag: tuple[int, ...], tmp_path: Path) -> None:
    strips = [jpeg(PHOTO[top : top + 16], subsampling) for top in range(0, HEIGHT, 16)]
    picture = decoded(tmp_path, tiff(strips, sampling=tag, rows=16))
    expected = np.concatenate([np.asarray(Image.open(io.BytesIO(strip))) for strip in strips])
    assert np.abs(picture.rgb.astype(int) - expected).max() <= 1
    assert picture.notes == ()


@pytest.mark.parametrize("factors", [0x111111, 0x121111, 0x211111, 0x221111, 0x411111])
def test_every_sampling_of_opencv_is_read(factors: int, tmp_path: Path) -> None:
    bgr = cv2.cvtColor(PHOTO, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factors])[1]
    picture = decoded(tmp_path, tiff([data.tobytes()]))
    assert np.abs(picture.rgb.astype(int) - pixels_of(data.tobytes())).max() <= 1


def test_strips_may_be_sampled_differently(tmp_path: Path) -> None:
    strips = [jpeg(PHOTO[:32], 0), jpeg(PHOTO[32:], 2)]
    picture = decoded(tmp_path, tiff(strips, sampling=(2, 1), rows=32))
    assert np.abs(picture.rgb.astype(int) - PHOTO).mean() < 4


def test_tables_that_all_strips_share_are_used(tmp_path: Path) -> None:
    whole = [jpeg(PHOTO[:32], 1), jpeg(PHOTO[32:], 1)]
    data = tiff([without_tables(each) for each in whole], rows=32, tags={347: ("B", list(tables_alone(whole[0])))})
    assert np.abs(decoded(tmp_path, data).rgb.astype(int) - PHOTO).mean() < 4


def with_factors(data: bytes, *factors: int) -> bytes:
    """A JPEG whose frame claims other sampling factors."""
    frame = data.index(b"\xff\xc0")
    changed = bytearray(data)
    for number, factor in enumerate(factors):
        changed[frame + 11 + 3 * number] = factor
    return bytes(changed)


def test_factors_that_libtiff_refuses_are_read_as_a_plain_jpeg(tmp_path: Path) -> None:
    """Grey of one block a unit says 1 x 1 or 2 x 2 and means the same."""
    grey = with_factors(make.saved(Image.fromarray(PHOTO).convert("L"), "JPEG", quality=95), 0x22)
    picture = decoded(tmp_path, tiff([grey], photometric=GREY))
    assert np.abs(picture.rgb[..., 0].astype(int) - np.asarray(Image.fromarray(PHOTO).convert("L"))).mean() < 2


def test_coarser_colours_in_a_page_that_claims_rgb_are_ycbcr(tmp_path: Path) -> None:
    picture = decoded(tmp_path, tiff([jpeg(subsampling=2)], photometric=RGB))
    assert np.abs(picture.rgb.astype(int) - PHOTO).mean() < 4


def test_a_page_of_rgb_that_is_sampled_evenly_stays_rgb(tmp_path: Path) -> None:
    data = make.saved(Image.fromarray(PHOTO), "JPEG", quality=95, keep_rgb=True)
    picture = decoded(tmp_path, tiff([data], photometric=RGB))
    assert np.abs(picture.rgb.astype(int) - PHOTO).mean() < 4


def parts_of(data: bytes) -> list[tuple[int, bytes]]:
    """The code and the whole of each marker segment up to the scan, whose coded data goes with it."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((data[at + 1], data[at:end]))
        at = end
    return [*found, (0xDA, data[at:])]


def tables_alone(data: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(part for code, part in parts_of(data) if code in (0xC4, 0xDB)) + b"\xff\xd9"


def without_tables(data: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(part for code, part in parts_of(data) if code not in (0xC4, 0xDB))


# What is missing.


def test_a_broken_strip_in_a_whole_file_is_damaged_and_not_cut_off(tmp_path: Path) -> None:
    broken = jpeg(PHOTO[32:]).replace(b"\xff\xc0", b"\xff\xc7")
    detail = refusal(tmp_path, tiff([jpeg(PHOTO[:32]), broken], rows=32))
    assert detail.startswith("The file is damaged: ")
    assert "whole file" not in detail
    picture = decoded(tmp_path, tiff([jpeg(PHOTO[:32]), broken], rows=32), keep=True)
    assert np.abs(picture.rgb[:32].astype(int) - PHOTO[:32]).mean() < 4
    assert (picture.rgb[32:] == 128).all()
    assert sentences(picture) == ["The file is damaged: some pixels of the photo are missing or wrong."]


@pytest.mark.parametrize("tables", [False, True])
def test_a_strip_that_lacks_bits_is_not_filled_up_with_grey_in_silence(tables: bool, tmp_path: Path) -> None:
    last = jpeg(PHOTO[32:])
    for ended in (last[: len(last) // 2], last[: len(last) // 2] + b"\xff\xd9"):
        strips, tags = [jpeg(PHOTO[:32]), ended], {}
        if tables:
            tags = {347: ("B", list(tables_alone(last)))}
            strips = [without_tables(each) for each in strips]
        data = tiff(strips, rows=32, tags=tags)
        assert refusal(tmp_path, data).startswith("The file is damaged: ")
        picture = decoded(tmp_path, data, keep=True)
        assert np.abs(picture.rgb[:32].astype(int) - PHOTO[:32]).mean() < 4
        assert sentences(picture) == ["The file is damaged: some pixels of the photo are missing or wrong."]


@pytest.mark.parametrize("lost", [900, 400, 40, 5])
def test_a_file_that_is_cut_off_in_a_strip_keeps_the_rows_before(lost: int, tmp_path: Path) -> None:
    data = tiff([jpeg()])
    assert refusal(tmp_path, data[:-lost]).startswith("The file is cut off: ")
    picture = decoded(tmp_path, data[:-lost], keep=True)
    (note,) = sentences(picture)
    assert note.startswith("The file is cut off: ")
    assert note.endswith("% of the photo's rows are missing and stay grey.")
    whole = decoded(tmp_path, data).rgb
    first = int((picture.rgb == 128).all(axis=(1, 2)).argmax())
    assert 0 < first < HEIGHT
    # The row above the first missing one is mixed with it where colours are coarse.
    np.testing.assert_array_equal(picture.rgb[: first - 1], whole[: first - 1])


def test_a_file_that_lacks_only_the_end_mark_of_its_last_strip_is_whole(tmp_path: Path) -> None:
    data = tiff([jpeg()])
    picture = decoded(tmp_path, data[:-2])
    np.testing.assert_array_equal(picture.rgb, decoded(tmp_path, data).rgb)


def test_a_count_beyond_the_end_of_the_file_does_no_harm(tmp_path: Path) -> None:
    data = tiff([jpeg()], tags={279: ("I", [1 << 20])})
    np.testing.assert_array_equal(decoded(tmp_path, data).rgb, decoded(tmp_path, tiff([jpeg()])).rgb)


@pytest.mark.parametrize("how", [{}, {"restart_marker_blocks": 4}, {"progressive": True}], ids=str)
@pytest.mark.parametrize("photometric", [YCBCR, GREY])
def test_strips_that_really_end_in_grey_are_whole(photometric: int, how: dict[str, Any], tmp_path: Path) -> None:
    pixels = PHOTO.copy()
    pixels[[*range(20, 32), *range(44, HEIGHT)]] = 128
    image = Image.fromarray(pixels).convert("L" if photometric == GREY else "RGB")
    strips = [image.crop((0, top, WIDTH, top + 32)) for top in (0, 32)]
    data = tiff([make.saved(each, "JPEG", quality=95, **how) for each in strips], photometric=photometric, rows=32)
    assert decoded(tmp_path, data).notes == ()
