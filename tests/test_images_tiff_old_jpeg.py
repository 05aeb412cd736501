"""The old way of JPEG in TIFF (compression 6) without a whole JPEG inside: tables here, coded data there."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.errors import RestoreError
from app.images import ImageLimits, Picture
from app.images.decode import DecodeOptions, decode_file
from tests import picture_factory as make
from tests.tiff_writer import TiffWriter, Value

WIDTH, HEIGHT = 90, 56
PHOTO = make.photo(WIDTH, HEIGHT)
STRIP = 16
SAMPLINGS = ((1, 1), (2, 1), (2, 2))
QUANTIZATION, HUFFMAN, FRAME, SCAN = 0xDB, 0xC4, 0xC0, 0xDA


@dataclasses.dataclass(frozen=True)
class Pieces:
    """What a JPEG of Pillow is made of: its marker segments by code, whole, and its coded data."""

    parts: Sequence[tuple[int, bytes]]
    coded: bytes

    def of(self, *codes: int) -> bytes:
        """The marker segments of these kinds, whole."""
        return b"".join(part for code, part in self.parts if code in codes)

    def quantization(self) -> list[bytes]:
        """The tables alone, by their numbers."""
        return [part[5:] for code, part in self.parts if code == QUANTIZATION]

    def huffman(self, kind: int) -> list[bytes]:
        """The tables of DC (0) or AC (1) alone, by their numbers."""
        return [part[5:] for code, part in self.parts if code == HUFFMAN and part[4] >> 4 == kind]


def pieces(data: bytes) -> Pieces:
    found, at = [], 2
    while True:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((data[at + 1], data[at:end]))
        at = end
        if found[-1][0] == SCAN:
            return Pieces(found, data[at:-2])


def jpeg(pixels: NDArray[np.uint8], subsampling: int, **how: Any) -> bytes:
    return make.saved(Image.fromarray(pixels), "JPEG", quality=95, subsampling=subsampling, **how)


def read(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def strips(pixels: NDArray[np.uint8], subsampling: int) -> list[bytes]:
    """A JPEG of each strip; all have the same tables."""
    return [jpeg(pixels[top : top + STRIP], subsampling) for top in range(0, len(pixels), STRIP)]


def page_tags(samples: int = 3, photometric: int = 6, rows: int = STRIP) -> dict[int, Value]:
    return {
        256: ("I", [WIDTH]), 257: ("I", [HEIGHT]), 258: ("H", [8] * samples), 259: ("H", [6]),
        262: ("H", [photometric]), 277: ("H", [samples]), 278: ("I", [rows]), 284: ("H", [1]),
    }  # fmt: skip


def put_segments(writer: TiffWriter, segments: Sequence[bytes], at: int = 273, sizes: int = 279) -> dict[int, Value]:
    return {
        at: ("I", [writer.put(segment) for segment in segments]),
        sizes: ("I", [len(segment) for segment in segments]),
    }


def put_tables(writer: TiffWriter, found: Pieces, samples: int = 3) -> dict[int, Value]:
    """Each table by itself in the file; both colours share theirs."""
    tags: dict[int, Value] = {512: ("H", [1])}
    for tag, tables in ((519, found.quantization()), (520, found.huffman(0)), (521, found.huffman(1))):
        places = [writer.put(table) for table in tables]
        tags[tag] = ("I", [places[min(number, len(places) - 1)] for number in range(samples)])
    return tags


def by_tables(
    segments: Sequence[bytes], found: Pieces, sampling: Sequence[int] = (2, 2), order: str = "<", **how: Any
) -> bytes:
    """A page whose tables stand by themselves."""
    writer = TiffWriter(order)
    tags = page_tags(**how) | put_segments(writer, segments) | put_tables(writer, found, how.get("samples", 3))
    writer.directory(tags | ({530: ("H", list(sampling))} if sampling else {}))
    return writer.content()


def decoded(folder: Path, data: bytes, *, keep: bool = False) -> Picture:
    (folder / "photo.tif").write_bytes(data)
    return decode_file(folder / "photo.tif", ImageLimits(), DecodeOptions(keep_partial=keep))


def refusal(folder: Path, data: bytes) -> RestoreError:
    with pytest.raises(RestoreError) as caught:
        decoded(folder, data)
    return caught.value


def sentences(picture: Picture) -> list[str]:
    return [notice.message for notice in picture.notes]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_strips_whose_tables_stand_by_themselves(subsampling: int, order: str, tmp_path: Path) -> None:
    whole = strips(PHOTO, subsampling)
    found = [pieces(each) for each in whole]
    data = by_tables([each.coded for each in found], found[0], SAMPLINGS[subsampling], order)
    picture = decoded(tmp_path, data)
    np.testing.assert_array_equal(picture.rgb, np.concatenate([read(each) for each in whole]))
    assert picture.notes == ()


def test_pillow_and_its_libtiff_see_the_same(tmp_path: Path) -> None:
    """Not to the last step: libtiff repeats the colours of a block, where we blend them."""
    found = [pieces(each) for each in strips(PHOTO, 0)]
    data = by_tables([each.coded for each in found], found[0], (1, 1))
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
        theirs = np.asarray(image.convert("RGB"))
    assert np.abs(decoded(tmp_path, data).rgb.astype(int) - theirs).max() <= 2


def test_tiles_whose_tables_stand_by_themselves(tmp_path: Path) -> None:
    side = 32
    room = ((0, -HEIGHT % side), (0, -WIDTH % side), (0, 0))
    padded = np.pad(PHOTO, room, mode="edge")
    tops, lefts = range(0, padded.shape[0], side), range(0, padded.shape[1], side)
    whole = [jpeg(padded[top : top + side, left : left + side], 2) for top in tops for left in lefts]
    found = [pieces(each) for each in whole]
    writer = TiffWriter()
    tags = page_tags() | put_segments(writer, [each.coded for each in found], 324, 325) | put_tables(writer, found[0])
    writer.directory({**tags, 278: ("I", [HEIGHT]), 322: ("I", [side]), 323: ("I", [side])})
    expected = np.concatenate(
        [np.concatenate([read(whole[row * len(lefts) + n]) for n in range(len(lefts))], 1) for row in range(len(tops))]
    )
    np.testing.assert_array_equal(decoded(tmp_path, writer.content()).rgb, expected[:HEIGHT, :WIDTH])


def test_grey_strips(tmp_path: Path) -> None:
    grey = np.asarray(Image.fromarray(PHOTO).convert("L"))
    whole = strips(grey, 0)
    found = [pieces(each) for each in whole]
    data = by_tables([each.coded for each in found], found[0], (), samples=1, photometric=1)
    np.testing.assert_array_equal(decoded(tmp_path, data).rgb, np.concatenate([read(each) for each in whole]))


def test_strips_of_rgb_are_not_taken_for_ycbcr(tmp_path: Path) -> None:
    whole = [
        make.saved(Image.fromarray(PHOTO[top : top + STRIP]), "JPEG", quality=95, keep_rgb=True)
        for top in range(0, HEIGHT, STRIP)
    ]
    found = [pieces(each) for each in whole]
    data = by_tables([each.coded for each in found], found[0], (), photometric=2)
    np.testing.assert_array_equal(decoded(tmp_path, data).rgb, np.concatenate([read(each) for each in whole]))


def test_the_restart_markers_of_a_page_count_on_through_its_strips(tmp_path: Path) -> None:
    """One marker after each row of blocks; a strip of two rows begins with a marker that is none of the first."""
    whole = jpeg(PHOTO, 0, restart_marker_rows=1)
    found = pieces(whole)
    rows = [found.coded]
    for number in range(HEIGHT // 8 - 1):
        rows[-1:] = rows[-1].split(b"\xff" + bytes([0xD0 + number]), 1)
    marked = [row + b"\xff" + bytes([0xD0 + number]) for number, row in enumerate(rows)]
    pairs = [b"".join(marked[top : top + 2]) for top in range(0, len(marked), 2)]
    writer = TiffWriter()
    tags = page_tags() | put_segments(writer, pairs) | put_tables(writer, found)
    writer.directory({**tags, 515: ("H", [-(-WIDTH // 8)]), 530: ("H", [1, 1])})
    np.testing.assert_array_equal(decoded(tmp_path, writer.content()).rgb, read(whole))


@pytest.mark.parametrize("length", ["right", "missing", "beyond the strips"])
def test_a_stream_of_tables_and_a_scan_header_in_the_first_strip(length: str, tmp_path: Path) -> None:
    """As Wang Imaging and many scanners wrote it."""
    whole = strips(PHOTO, 1)
    found = [pieces(each) for each in whole]
    head = pieces(jpeg(PHOTO, 1))
    stream = b"\xff\xd8" + head.of(0xFE, QUANTIZATION, HUFFMAN, FRAME)
    segments = [found[0].of(SCAN) + found[0].coded, *(each.coded for each in found[1:])]
    writer = TiffWriter()
    tags = page_tags() | {512: ("H", [1]), 513: ("I", [writer.put(stream)])} | put_segments(writer, segments)
    if length != "missing":
        tags[514] = ("I", [len(stream) if length == "right" else len(writer.content())])
    writer.directory({**tags, 530: ("H", [2, 1])})
    picture = decoded(tmp_path, writer.content())
    np.testing.assert_array_equal(picture.rgb, np.concatenate([read(each) for each in whole]))


def test_a_head_in_the_first_strip_alone(tmp_path: Path) -> None:
    whole = strips(PHOTO, 2)
    segments = [whole[0], *(pieces(each).coded for each in whole[1:])]
    writer = TiffWriter()
    writer.directory(page_tags() | put_segments(writer, segments))
    picture = decoded(tmp_path, writer.content())
    np.testing.assert_array_equal(picture.rgb, np.concatenate([read(each) for each in whole]))


def test_a_jpeg_in_each_strip(tmp_path: Path) -> None:
    whole = strips(PHOTO, 2)
    writer = TiffWriter()
    writer.directory(page_tags() | put_segments(writer, whole))
    picture = decoded(tmp_path, writer.content())
    np.testing.assert_array_equal(picture.rgb, np.concatenate([read(each) for each in whole]))


@pytest.mark.parametrize("letter", ["R", "I"])
def test_the_range_that_the_page_gives_its_ycbcr_is_used(letter: str, tmp_path: Path) -> None:
    """Of video: black is 16, white 235; the numbers are fractions, or whole as the first writers put them."""
    ycbcr = np.asarray(Image.fromarray(PHOTO).convert("YCbCr")).astype(float)
    narrow = np.dstack([16 + ycbcr[..., :1] * 219 / 255, 128 + (ycbcr[..., 1:] - 128) * 224 / 255])
    stored = Image.fromarray(narrow.round().astype(np.uint8), "YCbCr")
    found = pieces(make.saved(stored, "JPEG", quality=98, subsampling=0))
    writer = TiffWriter()
    tags = page_tags(rows=HEIGHT) | put_segments(writer, [found.coded]) | put_tables(writer, found)
    ranges = (16, 235, 128, 240, 128, 240)
    tags[532] = (letter, [n for value in ranges for n in ((value, 1) if letter == "R" else (value,))])
    writer.directory({**tags, 530: ("H", [1, 1])})
    assert np.abs(decoded(tmp_path, writer.content()).rgb.astype(int) - PHOTO).mean() < 2


# What is missing, and what is refused.


def test_a_strip_that_is_lost_or_lacks_bits_is_told(tmp_path: Path) -> None:
    found = [pieces(each) for each in strips(PHOTO, 2)]
    coded = [each.coded for each in found]
    coded[1] = coded[1][: len(coded[1]) // 2]
    data = by_tables(coded, found[0])
    assert refusal(tmp_path, data).detail.startswith("The file is damaged: ")
    picture = decoded(tmp_path, data, keep=True)
    assert (picture.rgb[STRIP : 2 * STRIP] == 128).all()
    assert (
        np.abs(
            np.delete(picture.rgb, slice(STRIP, 2 * STRIP), 0).astype(int)
            - np.delete(PHOTO, slice(STRIP, 2 * STRIP), 0)
        ).mean()
        < 4
    )
    assert sentences(picture) == ["The file is damaged: some pixels of the photo are missing or wrong."]


def test_a_file_that_is_cut_off_in_its_last_strips_keeps_the_others(tmp_path: Path) -> None:
    found = [pieces(each) for each in strips(PHOTO, 2)]
    writer = TiffWriter()
    tags = page_tags() | put_tables(writer, found[0]) | {530: ("H", [2, 2])}
    sizes = [len(each.coded) for each in found]
    start = len(writer.content()) + 400
    places = [start + sum(sizes[:number]) for number in range(len(sizes))]
    writer.directory({**tags, 273: ("I", places), 279: ("I", sizes)})
    data = writer.content().ljust(start, b"\0") + b"".join(each.coded for each in found)
    assert decoded(tmp_path, data).notes == ()
    cut = data[: places[-1] + 8]
    assert refusal(tmp_path, cut).detail.startswith("The file is cut off: ")
    assert sentences(decoded(tmp_path, cut, keep=True)) == [
        "The file is cut off: 14 % of the photo's rows are missing and stay grey."
    ]


@pytest.mark.parametrize("ended", [False, True])
def test_a_whole_jpeg_inside_that_lacks_rows_is_refused_or_kept(ended: bool, tmp_path: Path) -> None:
    whole = jpeg(PHOTO, 2)
    half = whole[: len(whole) * 3 // 4] + (b"\xff\xd9" if ended else b"")
    writer = TiffWriter()
    tags = page_tags(rows=HEIGHT)
    writer.directory({**tags, 513: ("I", [1000]), 514: ("I", [len(half)])})
    data = writer.content().ljust(1000, b"\0") + half
    fault = "damaged" if ended else "cut off"
    assert refusal(tmp_path, data).detail.startswith(f"The file is {fault}: ")
    assert sentences(decoded(tmp_path, data, keep=True))[0].startswith(f"The file is {fault}: ")


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({512: ("H", [14])}, "unsupported_compression"),
        ({519: ("I", [])}, "unsupported_compression"),
        ({521: ("I", [])}, "unsupported_compression"),
        ({284: ("H", [2])}, "unsupported_compression"),
        ({519: ("I", [1 << 30] * 3)}, "undecodable_image"),
        ({520: ("I", [1 << 30] * 3)}, "undecodable_image"),
        ({530: ("H", [3, 7])}, "undecodable_image"),
    ],
)
def test_what_cannot_be_read_is_refused(changed: dict[int, Value], code: str, tmp_path: Path) -> None:
    found = [pieces(each) for each in strips(PHOTO, 2)]
    writer = TiffWriter()
    tags = page_tags() | put_segments(writer, [each.coded for each in found]) | put_tables(writer, found[0])
    every = {**tags, 530: ("H", [2, 2]), **changed}
    writer.directory({tag: value for tag, value in every.items() if value[1]})
    assert refusal(tmp_path, writer.content()).code == code


def test_a_stream_of_another_size_than_the_page_is_refused(tmp_path: Path) -> None:
    for small in (jpeg(PHOTO[:, :-20], 2), jpeg(PHOTO[:8], 2)):
        writer = TiffWriter()
        writer.directory(page_tags(rows=HEIGHT) | put_segments(writer, [small]))
        assert refusal(tmp_path, writer.content()).code == "undecodable_image"


@pytest.mark.parametrize("other", [PHOTO[:, :-20], PHOTO[:8]])
def test_tables_for_another_size_than_the_page_are_refused(other: NDArray[np.uint8], tmp_path: Path) -> None:
    """Its coded data would be taken for that of other rows."""
    stream = b"\xff\xd8" + pieces(jpeg(other, 2)).of(QUANTIZATION, HUFFMAN, FRAME, SCAN)
    segments = [pieces(each).coded for each in strips(PHOTO, 2)]
    writer = TiffWriter()
    tags = {513: ("I", [writer.put(stream)]), 514: ("I", [len(stream)])}
    writer.directory(page_tags() | tags | put_segments(writer, segments))
    assert refusal(tmp_path, writer.content()).code == "undecodable_image"


@pytest.mark.parametrize("seed", range(20))
def test_mutated_files_end_in_errors_of_ours(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    found = [pieces(each) for each in strips(PHOTO, 2)]
    source = by_tables([each.coded for each in found], found[0])
    for _ in range(5):
        data = bytearray(source)
        for place in random.integers(8, len(data), 6):
            data[place] = random.integers(0, 256)
        with contextlib.suppress(RestoreError):
            decoded(tmp_path, bytes(data), keep=bool(seed % 2))
