"""TIFF: which page is the photo, what its samples mean, and what is refused by the name of its kind."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.errors import RestoreError
from app.images import ImageLimits, Picture, read_header
from app.images.decode import decode_file
from tests import picture_factory as make
from tests.tiff_writer import TiffWriter, Value
from tests.timing import allowed

LIMITS = ImageLimits()
PHOTO = make.photo()
HEIGHT, WIDTH = PHOTO.shape[:2]
DEEP = make.deep(PHOTO)


def decoded(folder: Path, data: bytes) -> Picture:
    path = folder / "upload"
    path.write_bytes(data)
    return decode_file(path, LIMITS)


def size_of(folder: Path, data: bytes) -> tuple[int, int]:
    """Width and height by the header check and by the decoder, which must agree."""
    picture = decoded(folder, data)
    header = read_header(folder / "upload", LIMITS)
    assert (header.width, header.height) == (picture.width, picture.height)
    return header.width, header.height


def refusal(folder: Path, data: bytes) -> RestoreError:
    with pytest.raises(RestoreError) as caught:
        decoded(folder, data)
    return caught.value


def page(samples: NDArray[Any], photometric: int, bits: int, **how: Any) -> bytes:
    writer = TiffWriter()
    writer.page(samples, photometric, bits, **how)
    return writer.content()


def pages(*sizes: tuple[int, int], tags: Sequence[dict[int, Value]] | None = None, **how: Any) -> bytes:
    """A file of photos of such sizes (width, height)."""
    writer = TiffWriter()
    for number, size in enumerate(sizes):
        writer.page(make.photo(*size), 2, 8, tags=tags[number] if tags else None, **how)
    return writer.content()


# Which page is the photo.


def test_a_marked_reduced_copy_is_passed_over(tmp_path: Path) -> None:
    data = pages((24, 16), (48, 32), (30, 20), tags=[{254: ("I", [1])}, {}, {255: ("H", [2])}])
    assert size_of(tmp_path, data) == (48, 32)


def test_masks_are_passed_over(tmp_path: Path) -> None:
    data = pages((96, 64), (48, 32), tags=[{254: ("I", [4])}, {254: ("I", [0])}])
    assert size_of(tmp_path, data) == (48, 32)


def test_an_unmarked_thumbnail_is_passed_over(tmp_path: Path) -> None:
    assert size_of(tmp_path, pages((24, 16), (120, 80))) == (120, 80)


def test_the_levels_of_an_unmarked_pyramid_are_passed_over(tmp_path: Path) -> None:
    picture = decoded(tmp_path, pages((64, 48), (32, 24), (16, 12), tile=(16, 16)))
    assert (picture.width, picture.height, picture.notes) == (64, 48, ())


def test_pages_of_other_sizes_are_pages(tmp_path: Path) -> None:
    picture = decoded(tmp_path, pages((40, 30), (60, 30), (60, 45)))
    assert (picture.width, picture.height) == (40, 30)
    assert [note.message for note in picture.notes] == ["The file has 3 pages; only the first was restored."]


def test_a_marked_page_is_a_page_however_small(tmp_path: Path) -> None:
    data = pages((24, 16), (120, 80), tags=[{254: ("I", [2]), 297: ("H", [0, 2])}, {254: ("I", [2])}])
    assert size_of(tmp_path, data) == (24, 16)


def test_the_photo_may_stand_in_a_directory_below(tmp_path: Path) -> None:
    writer = TiffWriter()
    below = writer.page(make.photo(120, 80), 2, 8, linked=False)
    writer.page(make.photo(24, 16), 2, 8, tags={254: ("I", [1]), 330: ("I", [below])})
    assert size_of(tmp_path, writer.content()) == (120, 80)


def test_of_copies_alone_the_largest_is_taken(tmp_path: Path) -> None:
    data = pages((24, 16), (48, 32), tags=[{254: ("I", [1])}] * 2)
    assert size_of(tmp_path, data) == (48, 32)


@pytest.mark.parametrize("where", ["first", "below"])
@pytest.mark.parametrize(
    "tags", [{262: ("H", [32803])}, {262: ("H", [34892])}, {50706: ("B", [1, 4, 0, 0])}, {259: ("H", [34713])}]
)
def test_a_raw_file_is_named(where: str, tags: dict[int, Value], tmp_path: Path) -> None:
    writer = TiffWriter()
    if where == "below":
        below = writer.page(make.photo(48, 32), 2, 8, tags=tags, linked=False)
        writer.page(make.photo(24, 16), 2, 8, tags={254: ("I", [1]), 330: ("I", [below])})
    else:
        writer.page(make.photo(24, 16), 2, 8, tags=tags)
    error = refusal(tmp_path, writer.content())
    assert (error.status, error.code) == (415, "raw_photo")
    assert "raw file" in error.detail


def test_the_limits_hold_for_the_page_that_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    path.write_bytes(pages((24, 16), (120, 80), tags=[{254: ("I", [1])}, {}]))
    with pytest.raises(RestoreError) as caught:
        read_header(path, dataclasses.replace(LIMITS, max_side_pixels=100))
    assert caught.value.code == "image_side_too_large"


# What the samples mean.


def test_cmyk_of_sixteen_bits_keeps_them(tmp_path: Path) -> None:
    inks = np.dstack([65535 - DEEP, np.zeros((HEIGHT, WIDTH), np.uint16)])
    np.testing.assert_array_equal(decoded(tmp_path, page(inks, 5, 16)).rgb, DEEP)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [False, True])
def test_cmyk_may_have_transparency(bits: int, planar: bool, tmp_path: Path) -> None:
    colours, peak = (PHOTO, 255) if bits == 8 else (DEEP, 65535)
    alpha = np.full((HEIGHT, WIDTH), peak // 2, colours.dtype)
    picture = decoded(tmp_path, page(np.dstack([peak - colours, 0 * alpha, alpha]), 5, bits, extras=[2], planar=planar))
    np.testing.assert_array_equal(picture.rgb, colours)
    np.testing.assert_array_equal(picture.alpha, alpha)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extras", [(0,), (), (0, 0)])
def test_a_channel_that_is_not_transparency_is_left_out_with_a_note(
    bits: int, extras: tuple[int, ...], tmp_path: Path
) -> None:
    colours = PHOTO if bits == 8 else DEEP
    infrared = colours[..., :1].repeat(max(1, len(extras)), 2) // 2
    picture = decoded(tmp_path, page(np.dstack([colours, infrared]), 2, bits, extras=extras))
    np.testing.assert_array_equal(picture.rgb, colours)
    assert picture.alpha is None
    assert "not transparency" in picture.notes[0].message


def test_transparency_behind_another_channel_is_found(tmp_path: Path) -> None:
    alpha = np.full((HEIGHT, WIDTH), 77, np.uint8)
    picture = decoded(tmp_path, page(np.dstack([PHOTO, alpha // 2, alpha]), 2, 8, extras=[0, 2]))
    np.testing.assert_array_equal(picture.alpha, alpha)


def test_an_alpha_that_hides_everything_is_none(tmp_path: Path) -> None:
    picture = decoded(tmp_path, page(np.dstack([PHOTO, 0 * PHOTO[..., 0]]), 2, 8, extras=[2]))
    np.testing.assert_array_equal(picture.rgb, PHOTO)
    assert picture.alpha is None
    assert "transparency hides every pixel" in picture.notes[0].message


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", [8, 9])
def test_lab_looks_like_the_photo(photometric: int, bits: int, tmp_path: Path) -> None:
    lab = cv2.cvtColor((PHOTO / 255).astype(np.float32), cv2.COLOR_RGB2LAB)  # D65, so not to the last step
    lightness, colours = lab[..., :1] / 100, lab[..., 1:]
    if bits == 8:
        values = np.dstack([lightness * 255, colours + (128 if photometric == 9 else 0)])
    else:
        values = np.dstack([lightness * (65280 if photometric == 9 else 65535), 256 * colours])
        values[..., 1:] += 32768 if photometric == 9 else 0
    stored = values.round().astype(np.int32).astype(np.uint8 if bits == 8 else np.uint16)
    picture = decoded(tmp_path, page(stored, photometric, bits))
    assert np.median(np.abs(picture.rgb.astype(int) - PHOTO)) <= 4
    assert bool(picture.notes) == (bits == 16)  # 8 of the bits were read, and a note says so


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_palettes_of_all_depths(bits: int, tmp_path: Path) -> None:
    random = np.random.default_rng(bits)
    table = random.integers(0, 65536, (1 << bits, 3))
    indexes = random.integers(0, 1 << bits, (HEIGHT, WIDTH, 1)).astype(np.uint16 if bits == 16 else np.uint8)
    data = page(indexes, 3, bits, tags={320: ("H", table.T.ravel().tolist())})
    np.testing.assert_array_equal(decoded(tmp_path, data).rgb, (table >> 8)[indexes[..., 0]])


def _blocks(values: NDArray[np.uint8], across: int, down: int) -> bytes:
    """Blocks of YCbCr: the lightness of all pixels of a block, then the means of Cb and Cr."""
    rows, columns = -(-values.shape[0] // down), -(-values.shape[1] // across)
    room = ((0, rows * down - values.shape[0]), (0, columns * across - values.shape[1]), (0, 0))
    grid = np.pad(values, room, mode="edge").reshape(rows, down, columns, across, 3).transpose(0, 2, 1, 3, 4)
    means = grid[..., 1:].mean((2, 3)).round().astype(np.uint8)
    return np.concatenate([grid[..., 0].reshape(rows, columns, -1), means], axis=2).tobytes()


@pytest.mark.parametrize("rows", [HEIGHT, 16])
@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 4)])
def test_ycbcr_in_blocks_looks_like_the_photo(across: int, down: int, rows: int, tmp_path: Path) -> None:
    values = np.asarray(Image.fromarray(PHOTO).convert("YCbCr"))
    writer = TiffWriter()
    strips = [_blocks(values[top : top + rows], across, down) for top in range(0, HEIGHT, rows)]
    tags: dict[int, Value] = {
        256: ("I", [WIDTH]), 257: ("I", [HEIGHT]), 258: ("H", [8, 8, 8]), 259: ("H", [1]), 262: ("H", [6]),
        273: ("I", [writer.put(strip) for strip in strips]), 277: ("H", [3]), 278: ("I", [rows]),
        279: ("I", [len(strip) for strip in strips]), 530: ("H", [across, down]),
    }  # fmt: skip
    writer.directory(tags)
    difference = np.abs(decoded(tmp_path, writer.content()).rgb.astype(int) - PHOTO)
    assert difference.mean() < (1 if across * down == 1 else 8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_jpeg_in_tiff_looks_like_the_photo(mode: str, tmp_path: Path) -> None:
    data = make.saved(Image.fromarray(PHOTO).convert(mode), "TIFF", compression="jpeg", quality=95)
    expected = np.asarray(Image.fromarray(PHOTO).convert("L").convert("RGB")) if mode == "L" else PHOTO
    assert np.abs(decoded(tmp_path, data).rgb.astype(int) - expected).mean() < 4


def test_the_old_way_of_jpeg_is_read_where_a_whole_jpeg_stands_inside(tmp_path: Path) -> None:
    writer = TiffWriter()
    jpeg = make.saved(Image.fromarray(PHOTO), "JPEG", quality=95)
    start = writer.put(jpeg)
    tags: dict[int, Value] = {
        256: ("I", [WIDTH]), 257: ("I", [HEIGHT]), 258: ("H", [8, 8, 8]), 259: ("H", [6]), 262: ("H", [6]),
        277: ("H", [3]), 513: ("I", [start]), 514: ("I", [len(jpeg)]),
    }  # fmt: skip
    writer.directory(tags)
    assert np.abs(decoded(tmp_path, writer.content()).rgb.astype(int) - PHOTO).mean() < 4


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_fax_is_positive(compression: str, white_is_zero: bool, tmp_path: Path) -> None:
    tags = {262: 0} if white_is_zero else {}
    data = make.saved(Image.fromarray(PHOTO).convert("1"), "TIFF", compression=compression, tiffinfo=tags)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    np.testing.assert_array_equal(decoded(tmp_path, data).rgb[..., 0], expected)


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("predictor", [1, 3])
def test_floats_from_zero_to_one_fill_the_range(size: int, predictor: int, tmp_path: Path) -> None:
    values = (DEEP / 65535).astype(f"f{size}")
    data = page(values, 2, 8 * size, sample_format=3, predictor=predictor, compression=8, rows=9)
    assert np.abs(decoded(tmp_path, data).rgb.astype(int) - DEEP).max() <= (20 if size == 2 else 0)


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@pytest.mark.parametrize("how", [{"rows": 7}, {"tile": (32, 16)}, {"planar": True}])
def test_differences_are_summed_up_at_every_depth(bits: int, how: dict[str, Any], tmp_path: Path) -> None:
    values = np.random.default_rng(bits).integers(0, 1 << bits, (HEIGHT, WIDTH, 3), f"u{bits // 8}")
    data = page(values, 2, bits, predictor=2, compression=8, **how)
    np.testing.assert_array_equal(decoded(tmp_path, data).rgb, values >> np.uint64(max(0, bits - 16)))


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_signed_samples_above_zero_fill_the_range(bits: int, tmp_path: Path) -> None:
    most = (1 << (bits - 1)) - 1
    values = np.random.default_rng(bits).integers(0, most + 1, (HEIGHT, WIDTH, 3), f"i{bits // 8}")
    expected = values / most * (255 if bits == 8 else 65535)
    assert np.abs(decoded(tmp_path, page(values, 2, bits, sample_format=2)).rgb - expected).max() <= 1


def test_sixteen_bits_in_a_wider_space_stay_what_they_are(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decoded(tmp_path, page(DEEP.astype(np.uint32), 2, 32)).rgb, DEEP)


@pytest.mark.parametrize("count", [None, 0, 5, 1 << 30])
def test_a_count_that_is_missing_or_wrong_is_worked_out(count: int | None, tmp_path: Path) -> None:
    data = page(PHOTO, 2, 8, tags={279: ("I", [] if count is None else [count])})
    np.testing.assert_array_equal(decoded(tmp_path, data).rgb, PHOTO)


@pytest.mark.parametrize("count", [None, 0])
def test_compressed_strips_without_counts_are_found(count: int | None, tmp_path: Path) -> None:
    strips = -(-HEIGHT // 9)
    data = page(PHOTO, 2, 8, rows=9, compression=8, tags={279: ("I", [] if count is None else [count] * strips)})
    np.testing.assert_array_equal(decoded(tmp_path, data).rgb, PHOTO)


# What is refused.


@pytest.mark.parametrize(
    ("tags", "code", "name"),
    [
        ({259: ("H", [34887])}, "unsupported_compression", "LERC"),
        ({259: ("H", [33003])}, "unsupported_compression", "JPEG 2000"),
        ({259: ("H", [60000])}, "unsupported_compression", "60000"),
        ({262: ("H", [32845])}, "unsupported_depth", "LogLuv"),
        ({262: ("H", [10])}, "unsupported_depth", "ITU Lab"),
        ({258: ("H", [8, 8, 16])}, "unsupported_depth", "different depths"),
        ({339: ("H", [5, 5, 5])}, "unsupported_depth", "complex"),
        ({32997: ("I", [4])}, "unsupported_depth", "volume"),
        ({262: ("H", [5])}, "unsupported_depth", "3 channels where"),
    ],
)
def test_what_cannot_be_read_is_named(tags: dict[int, Value], code: str, name: str, tmp_path: Path) -> None:
    error = refusal(tmp_path, page(PHOTO, 2, 8, tags=tags))
    assert error.code == code
    assert name in error.detail
    assert "damaged" not in error.detail


def test_signed_samples_below_zero_are_named(tmp_path: Path) -> None:
    error = refusal(tmp_path, page(PHOTO.astype(np.int16) - 100, 2, 16, sample_format=2))
    assert "signed samples below zero" in error.detail


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("compression", [1, 8])
def test_missing_pixels_are_refused(compression: int, share: float, tmp_path: Path) -> None:
    writer = TiffWriter()
    length = len(page(PHOTO, 2, 8, compression=compression))
    writer.page(PHOTO, 2, 8, compression=compression, tags={273: ("I", [int(length * share)])})
    data = bytearray(writer.content())
    assert refusal(tmp_path, bytes(data[: int(length * share)])).code == "undecodable_image"


# Hostile files.


def _chain(count: int, entries: int) -> bytes:
    """Directories one behind the other, each of many entries."""
    writer = TiffWriter()
    for _ in range(count):
        writer.directory({1000 + number: ("I", [1]) for number in range(entries)})
    return writer.content()


def _all_children() -> bytes:
    """Each directory names 30 others, which are all the same."""
    writer = TiffWriter()
    child = writer.directory({256: ("I", [9]), 257: ("I", [9])}, linked=False)
    for _ in range(900):
        writer.directory({256: ("I", [9]), 257: ("I", [9]), 330: ("I", [child] * 30)})
    return writer.content()


@pytest.mark.parametrize(
    "content",
    [_chain(900, 40), _chain(30, 4000), _all_children(), pages(*[(8 + n, 9) for n in range(900)])],
    ids=["long chain", "many entries", "children", "pages of all sizes"],
)
def test_the_header_check_of_a_hostile_file_is_quick(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "hostile.tif"
    path.write_bytes(content)
    began = time.thread_time()
    try:
        read_header(path, LIMITS)
    except RestoreError as error:
        assert error.code == "undecodable_image"  # noqa: PT017
    assert time.thread_time() - began < allowed(0.2)


def test_a_chain_that_bites_its_tail_ends(tmp_path: Path) -> None:
    writer = TiffWriter()
    start = writer.page(PHOTO, 2, 8)
    data = bytearray(writer.content())
    data[writer.link : writer.link + 4] = start.to_bytes(4, "little")
    assert decoded(tmp_path, bytes(data)).notes == ()


@pytest.mark.parametrize(
    "tags",
    [
        {322: ("I", [65536]), 323: ("I", [65536]), 324: ("I", [8]), 325: ("I", [100])},
        {273: ("I", [0])},
        {273: ("I", [1 << 31])},
        {273: ("Q", [1 << 63])},
        {320: ("H", [0] * 6), 262: ("H", [3]), 277: ("H", [1])},
        {530: ("H", [3, 7]), 262: ("H", [6])},
        {277: ("H", [30000])},
    ],
)
def test_lies_about_the_layout_are_refused(tags: dict[int, Value], tmp_path: Path) -> None:
    assert refusal(tmp_path, page(PHOTO, 2, 8, tags=tags)).code in ("undecodable_image", "unsupported_depth")


def test_strips_that_share_their_bytes_are_not_read_again_and_again(tmp_path: Path) -> None:
    data = page(
        make.photo(64, 3000), 2, 8, compression=8, rows=1, tags={273: ("I", [8] * 3000), 279: ("I", [90_000] * 3000)}
    )
    assert refusal(tmp_path, data).code == "undecodable_image"


@pytest.mark.parametrize("seed", range(40))
def test_mutated_files_end_in_errors_of_ours(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    sources = [
        pages((40, 30), (40, 30)),
        page(PHOTO, 2, 8, compression=8, rows=9, predictor=2),
        page(DEEP, 2, 16, tile=(16, 16)),
    ]
    for source in sources:
        data = bytearray(source)
        for place in random.integers(0, len(data), 6):
            data[place] = random.integers(0, 256)
        tail = random.integers(len(data) - 400, len(data), 4)  # the directories stand at the end
        data[tail[0]] ^= 1 << int(random.integers(0, 8))
        with contextlib.suppress(RestoreError):
            decoded(tmp_path, bytes(data))
