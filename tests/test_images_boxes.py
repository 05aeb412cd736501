"""AVIF, HEIC and WebP: what their containers say of colour, depth, maps and frames, and files that are cut off."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from app.errors import RestoreError
from app.images import ImageLimits, Picture, isobmff, read_header
from app.images.decode import DecodeOptions, decode_file
from app.images.icc_writing import matrix_profile
from app.images.primaries import P3_PRIMARIES
from tests import picture_factory as make
from tests.test_images_colour import linear, pq, seen, through

LIMITS = ImageLimits()
WIDTH, HEIGHT = 120, 96


def decoded(folder: Path, data: bytes, *, keep: bool = False) -> Picture:
    (folder / "photo").write_bytes(data)
    header = read_header(folder / "photo", LIMITS)
    picture = decode_file(folder / "photo", LIMITS, DecodeOptions(keep_partial=keep))
    assert (header.width, header.height) == (picture.width, picture.height)
    return picture


def sentences(picture: Picture) -> list[str]:
    return [notice.message for notice in picture.notes]


def photo() -> Any:
    return make.photo(WIDTH, HEIGHT)


def deep_avif(values: Any, bits: int) -> bytes:
    """A 10- or 12-bit AVIF of uint16 RGB or grey, nearly without loss."""
    ordered = values[..., ::-1] if values.ndim == 3 else values
    options = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100]
    done, data = cv2.imencode(".avif", ordered >> (16 - bits), options)
    assert done
    return data.tobytes()


def with_code_points(data: bytes, primaries: int, transfer: int) -> bytes:
    place = data.index(b"nclx") + 4
    return data[:place] + struct.pack(">HH", primaries, transfer) + data[place + 4 :]


@pytest.mark.parametrize("bits", [10, 12])
def test_avif_of_more_than_eight_bits_keeps_them(bits: int, tmp_path: Path) -> None:
    values = make.deep(photo())
    picture = decoded(tmp_path, deep_avif(values, bits))
    assert picture.rgb.dtype == np.uint16
    assert np.abs(picture.rgb.astype(int) - values).max() <= 1 << (16 - bits)
    white = decoded(tmp_path, deep_avif(np.full((HEIGHT, WIDTH, 3), 65_535, np.uint16), bits))
    assert white.rgb.min() == 65_535
    grey = decoded(tmp_path, deep_avif(values[..., 1], bits))
    assert grey.grey
    assert grey.rgb.dtype == np.uint16


def test_code_points_of_an_avif_are_followed(tmp_path: Path) -> None:
    light = linear(photo())
    values = (pq(light * 203) * 65535).round().astype(np.uint16)
    picture = decoded(tmp_path, with_code_points(deep_avif(values, 12), 1, 16))
    assert np.abs(seen(picture) - photo()).mean() < 1
    assert "HDR" in sentences(picture)[0]
    wide = with_code_points(deep_avif(make.vivid().astype(np.uint16) * 257, 12), 12, 13)
    expected = through(make.vivid(), matrix_profile(P3_PRIMARIES, "test"))
    assert np.abs(seen(decoded(tmp_path, wide)) - expected).mean() < 2


def test_a_profile_of_an_avif_goes_before_code_points_but_not_before_hdr(tmp_path: Path) -> None:
    data = make.saved(Image.fromarray(make.vivid()), "AVIF", quality=100, icc_profile=make.display_p3())
    found = isobmff.inspect(data)
    assert found.has_profile
    picture = decoded(tmp_path, data)
    assert picture.icc_profile == make.display_p3()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_comes_out_upright(orientation: int, tmp_path: Path) -> None:
    block = Image.Exif()
    block[0x0112] = orientation
    image = Image.fromarray(photo())
    data = make.saved(image, "AVIF", quality=95, exif=block)
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    picture = decoded(tmp_path, data)
    assert picture.rgb.shape == expected.shape
    assert np.abs(picture.rgb.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("name", ["WEBP", "AVIF"])
def test_of_an_animation_the_first_picture_and_their_number(name: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(make.photo(WIDTH, HEIGHT, seed)) for seed in range(4)]
    data = make.saved(frames[0], name, save_all=True, append_images=frames[1:], quality=95)
    picture = decoded(tmp_path, data)
    assert sentences(picture) == ["The file has 4 frames; only the first was restored."]
    assert np.abs(picture.rgb.astype(int) - make.photo(WIDTH, HEIGHT, 0)).mean() < 6


CUT: dict[str, Callable[[], bytes]] = {
    "webp lossy": lambda: make.saved(Image.fromarray(photo()), "WEBP", quality=90),
    "webp lossless": lambda: make.saved(Image.fromarray(photo()), "WEBP", lossless=True),
    "webp alpha": lambda: make.saved(make.rgba_image().resize((WIDTH, HEIGHT)), "WEBP", quality=90),
    "webp metadata": lambda: make.saved(Image.fromarray(photo()), "WEBP", quality=90, exif=make.exif_block(3)),
    "avif": lambda: make.saved(Image.fromarray(photo()), "AVIF", quality=90),
}


@pytest.mark.parametrize("kind", CUT)
def test_missing_rows_are_counted(kind: str, tmp_path: Path) -> None:
    data = CUT[kind]()
    whole = decoded(tmp_path, data)
    turned = kind == "webp metadata"  # its rows are upside down, and its EXIF is cut off
    end = data.rindex(b"EXIF") if turned else len(data)
    counted = 0
    for share in (0.45, 0.6, 0.7, 0.9):
        cut = data[: int(end * share)]
        with pytest.raises(RestoreError, match="cut off") as caught:
            decoded(tmp_path, cut)
        assert caught.value.code == "undecodable_image"
        picture = decoded(tmp_path, cut, keep=True)
        pixels = whole.rgb[::-1, ::-1] if turned else whole.rgb
        sentence = sentences(picture)[-1]
        assert "missing" in sentence
        if "%" not in sentence:  # the decoder refused all but one filler
            continue
        counted += 1
        differs = (picture.rgb != pixels).any(axis=(1, 2))
        first = int(differs.argmax())
        percent = 100 * (HEIGHT - first) / HEIGHT
        said = int(sentence.split(" %")[0].split()[-1])
        assert abs(said - percent) <= 10  # filters of the codec reach a few rows up
        assert 3 < percent < 100
        assert len(np.unique(picture.rgb[-2:])) == 1
    assert counted >= 2


def test_metadata_behind_whole_pixels_may_be_cut_off(tmp_path: Path) -> None:
    data = CUT["webp metadata"]()
    picture = decoded(tmp_path, data[:-6])
    np.testing.assert_array_equal(picture.rgb[::-1, ::-1], decoded(tmp_path, data).rgb)
    assert "metadata" in sentences(picture)[0]


def test_a_wrong_length_in_the_header_of_a_webp_does_no_harm(tmp_path: Path) -> None:
    data = CUT["webp lossy"]()
    odd = data[:4] + struct.pack("<I", len(data) + 400) + data[8:]
    picture = decoded(tmp_path, odd)
    np.testing.assert_array_equal(picture.rgb, decoded(tmp_path, data).rgb)
    assert picture.notes == ()


def test_a_webp_that_claims_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    data = CUT["webp lossy"]()
    place = data.index(b"VP8 ")
    with pytest.raises(RestoreError) as caught:
        decoded(tmp_path, data[: place + 4] + struct.pack("<I", 0xFFFFFF00) + data[place + 8 :])
    assert caught.value.code == "undecodable_image"


def test_broken_boxes_say_nothing_and_raise_nothing() -> None:
    data = CUT["avif"]()
    rng = np.random.default_rng(3)
    for _ in range(2_000):
        odd = bytearray(data[: rng.integers(20, 400)])
        for place in rng.integers(0, len(odd), 6):
            odd[place] = rng.integers(0, 256)
        isobmff.inspect(bytes(odd))
    assert isobmff.inspect(data).code_points == (1, 13)
    assert isobmff.inspect(data).end == len(data)
    assert isobmff.inspect(data[:300]).is_cut(300)


def heif(image: Any, **options: Any) -> bytes:
    """A HEIC of a Pillow image, or of uint16 values (H, W, 3)."""
    package = pytest.importorskip("pillow_heif", reason="HEIC needs the optional package pillow-heif")
    buffer = io.BytesIO()
    if isinstance(image, np.ndarray):
        source = package.from_bytes("RGB;16", (image.shape[1], image.shape[0]), image.tobytes())
    else:
        source = package.from_pillow(image)
    source.save(buffer, **{"quality": 95, **options})
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_comes_out_upright(orientation: int, tmp_path: Path) -> None:
    image = Image.fromarray(photo())
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    package = pytest.importorskip("pillow_heif", reason="HEIC needs the optional package pillow-heif")
    package.register_heif_opener()
    picture = decoded(tmp_path, make.saved(image, "HEIF", quality=95))  # turns and mirrors in boxes of its own
    assert picture.rgb.shape == expected.shape
    assert np.abs(picture.rgb.astype(int) - expected).mean() < 6


def test_heic_of_ten_bits_keeps_them(tmp_path: Path) -> None:
    smooth: Any = np.mgrid[0:64, 0:1024][1].astype(np.uint16) * 64
    picture = decoded(tmp_path, heif(np.repeat(smooth[..., None], 3, axis=2), quality=-1, chroma=444))
    assert picture.rgb.dtype == np.uint16
    assert len(np.unique(picture.rgb[..., 1])) > 800
    assert picture.rgb.max() == 65_535


def test_heic_with_a_profile_and_with_code_points(tmp_path: Path) -> None:
    data = heif(Image.fromarray(make.vivid()), icc_profile=make.display_p3(), quality=-1, chroma=444)
    assert np.abs(seen(decoded(tmp_path, data)) - through(make.vivid(), make.display_p3())).mean() < 4
    coded = with_code_points(heif(Image.fromarray(make.muted()), quality=-1, chroma=444), 12, 13)
    expected = through(make.muted(), matrix_profile(P3_PRIMARIES, "test"))
    assert np.abs(seen(decoded(tmp_path, coded)) - expected).mean() < 4
    hdr = decoded(tmp_path, with_code_points(heif(make.deep(photo())), 9, 16))
    assert "HDR" in sentences(hdr)[0]
    assert hdr.rgb.dtype == np.uint16


def test_heic_of_several_pictures_gives_the_main_one(tmp_path: Path) -> None:
    package = pytest.importorskip("pillow_heif", reason="HEIC needs the optional package pillow-heif")
    container = package.HeifFile()
    for seed in range(3):
        container.add_from_pillow(Image.fromarray(make.photo(WIDTH, HEIGHT, seed)))
    buffer = io.BytesIO()
    container.save(buffer, quality=95, primary_index=1)
    picture = decoded(tmp_path, buffer.getvalue())
    assert np.abs(picture.rgb.astype(int) - make.photo(WIDTH, HEIGHT, 1)).mean() < 6
    assert any("has 3 pictures" in sentence for sentence in sentences(picture))


def with_map(data: bytes, kind: bytes) -> bytes:
    """A HEIC or AVIF whose first property becomes the name of a map, and whose second item refers to the first."""
    auxiliary = struct.pack(">I4sI", 12 + len(kind) + 1, b"auxC", 0) + kind + b"\0"
    reference = struct.pack(">I4sI", 12 + 14, b"iref", 0) + struct.pack(">I4sHHH", 14, b"auxl", 77, 1, 1)
    association = struct.pack(">I4sI", 12 + 4 + 4, b"ipma", 0) + struct.pack(">IHBB", 1, 77, 1, 1)
    properties = struct.pack(">I4s", 8 + 8 + len(auxiliary) + len(association), b"iprp")
    properties += struct.pack(">I4s", 8 + len(auxiliary), b"ipco") + auxiliary + association
    primary = struct.pack(">I4sIH", 14, b"pitm", 0, 1)
    body = bytes(4) + primary + properties + reference
    return data[:32] + struct.pack(">I4s", 8 + len(body), b"meta") + body


@pytest.mark.parametrize(
    ("kind", "gain", "depth"),
    [
        (b"urn:com:apple:photo:2020:aux:hdrgainmap", True, False),
        (b"urn:mpeg:hevc:2015:auxid:2", False, True),
        (b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth", False, True),
        (b"urn:mpeg:hevc:2015:auxid:1", False, False),
    ],
)
def test_maps_beside_the_picture_are_told_apart(kind: bytes, *, gain: bool, depth: bool) -> None:
    found = isobmff.inspect(with_map(CUT["avif"](), kind))
    assert (found.gain_map, found.depth_map) == (gain, depth)


def test_a_cut_off_heic_is_refused_or_kept(tmp_path: Path) -> None:
    data = heif(Image.fromarray(photo()))
    with pytest.raises(RestoreError, match="cut off"):
        decoded(tmp_path, data[: len(data) * 2 // 3])
    assert "missing" in sentences(decoded(tmp_path, data[: len(data) * 2 // 3], keep=True))[0]


# Tables that multiply.


class Counted(bytes):
    """Bytes that count how often a part of them is looked at."""

    looks = 0

    def __getitem__(self, key: Any) -> Any:
        self.looks += 1
        return super().__getitem__(key)


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, name) + body


def many_extents() -> bytes:
    """An `iloc` whose extents take no bytes at all, 65,535 of them for each of 100 items."""
    items = struct.pack(">HHH", 1, 0, 65_535) * 100
    return box(b"meta", bytes(4) + box(b"iloc", bytes(6) + struct.pack(">H", 100) + items))


def many_maps() -> bytes:
    """250 maps of the main picture, each of which has the same property 70 times."""
    items = range(2, 252)
    refers = b"".join(box(b"auxl", struct.pack(">HHH", item, 1, 1)) for item in items)
    owns = b"".join(struct.pack(">HB", item, 70) + b"\x01" * 70 for item in items)
    properties = box(b"ipco", box(b"auxC", bytes(40)))
    properties += box(b"ipma", bytes(4) + struct.pack(">I", len(items)) + owns)
    tables = box(b"pitm", bytes(4) + struct.pack(">H", 1)) + box(b"iref", bytes(4) + refers)
    return box(b"meta", bytes(4) + tables + box(b"iprp", properties))


@pytest.mark.parametrize(("make_file", "most_looks"), [(many_extents, 65_000), (many_maps, 2_000)])
def test_tables_within_tables_cost_no_more_than_one(make_file: Any, most_looks: int) -> None:
    data = Counted(make_file())
    assert isobmff.inspect(data) is not None
    assert 0 < data.looks < most_looks


def test_no_more_properties_are_listed_than_a_file_may_have_boxes() -> None:
    data = Counted(box(b"meta", bytes(4) + box(b"iprp", box(b"ipco", box(b"free", b"") * 300_000))))
    listed = []
    original = isobmff.boxes

    def counted(*words: Any) -> Any:
        for each in original(*words):
            listed.append(each)
            yield each

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isobmff, "boxes", counted)
        isobmff.inspect(data)
    assert len(listed) < 5_000
