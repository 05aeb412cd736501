"""From file to picture: every mode and depth, orientation, transparency; through the real decoding code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.errors import RestoreError
from app.images import ImageLimits, Picture, read_header
from app.images.decode import decode_file
from tests import picture_factory as make
from tests.hostile_files import HOSTILE, ODD_BUT_GOOD

LIMITS = ImageLimits()
GREY = {"jpeg grey", "tiff grey", "tiff16 grey", "tiff float grey"}
DEEP = {kind for kind in make.KINDS if "16 " in kind} | {"tiff float grey"}
SEVERAL = {
    "webp animated": ["The file has 2 frames; only the first was restored."],
    "tiff pages": ["The file has 2 pages; only the first was restored."],
    "jpeg mpo": ["The file has 2 pictures; only the first was restored."],
}
# Kinds that keep every number of the photo.
EXACT = ("png rgb", "png rgba", "webp lossless", "tiff", "tiff lzw", "tiff rgba", "tiff pages", "bmp")


def decoded(folder: Path, data: bytes) -> Picture:
    path = folder / "upload"
    path.write_bytes(data)
    return decode_file(path, LIMITS)


@pytest.mark.parametrize("kind", make.KINDS)
def test_every_kind_becomes_a_picture(kind: str, tmp_path: Path) -> None:
    picture = decoded(tmp_path, make.KINDS[kind]())
    assert picture.rgb.shape == (make.HEIGHT, make.WIDTH, 3)
    assert picture.rgb.flags.c_contiguous
    assert picture.rgb.dtype == (np.uint16 if kind in DEEP else np.uint8)
    assert (picture.alpha is not None) == ("alpha" in kind or "transparent" in kind or "rgba" in kind)
    assert picture.grey == (kind in GREY or "bit" in kind or "png grey" in kind or "png16 grey" in kind)
    assert [note.message for note in picture.notes] == SEVERAL.get(kind, [])
    if picture.alpha is not None:
        assert picture.alpha.dtype == picture.rgb.dtype
        assert picture.alpha.shape == (make.HEIGHT, make.WIDTH)


@pytest.mark.parametrize("kind", EXACT)
def test_lossless_kinds_keep_every_number(kind: str, tmp_path: Path) -> None:
    np.testing.assert_array_equal(decoded(tmp_path, make.KINDS[kind]()).rgb, make.photo())


@pytest.mark.parametrize("kind", [kind for kind in make.KINDS if "16 " in kind])
def test_sixteen_bit_photos_keep_every_bit(kind: str, tmp_path: Path) -> None:
    picture = decoded(tmp_path, make.KINDS[kind]())
    expected = make.deep(make.photo())
    if "grey" in kind:
        expected = np.repeat(expected[..., 1:2], 3, axis=2)
    visible = slice(None) if picture.alpha is None or "transparent" not in kind else picture.alpha > 0
    np.testing.assert_array_equal(picture.rgb[visible], expected[visible])


@pytest.mark.parametrize(
    "kind", ["jpeg", "jpeg progressive", "jpeg mpo", "jpeg cmyk", "webp lossy", "avif", "tiff cmyk"]
)
def test_lossy_kinds_look_like_the_photo(kind: str, tmp_path: Path) -> None:
    difference = np.abs(decoded(tmp_path, make.KINDS[kind]()).rgb.astype(int) - make.photo())
    assert difference.mean() < 6


def test_lab_looks_like_the_photo(tmp_path: Path) -> None:
    difference = np.abs(decoded(tmp_path, make.KINDS["tiff lab"]()).rgb.astype(int) - make.photo())
    assert np.median(difference) <= 4


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_small_depths_are_spread_over_the_whole_range(depth: int, tmp_path: Path) -> None:
    picture = decoded(tmp_path, make.small_grey_png(depth))
    steps = (np.arange(make.WIDTH * make.HEIGHT) % (1 << depth)) * 255 // ((1 << depth) - 1)
    np.testing.assert_array_equal(picture.rgb[..., 0].reshape(-1), steps)


@pytest.mark.parametrize(
    "kind", ["png rgb transparent colour", "png16 rgb transparent colour", "png16 grey transparent"]
)
def test_a_transparent_colour_becomes_alpha(kind: str, tmp_path: Path) -> None:
    alpha = decoded(tmp_path, make.KINDS[kind]()).alpha
    assert alpha is not None
    assert alpha[3, 4] == 0
    assert (alpha == np.iinfo(alpha.dtype).max).mean() > 0.9


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_photos_come_out_upright_and_say_so(name: str, orientation: int, tmp_path: Path) -> None:
    lying = Image.fromarray(make.photo())
    backwards = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    if orientation in backwards:
        lying = lying.transpose(backwards[orientation])
    block = Image.Exif()
    block[0x0112] = orientation
    how: dict[str, dict[str, Any]] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    options = how.get(name, {})
    picture = decoded(tmp_path, make.saved(lying, name, exif=block.tobytes(), **options))
    assert np.abs(picture.rgb.astype(int) - make.photo()).mean() < 2
    if name != "TIFF":  # of a TIFF only what describes the photo is gathered, and here nothing does
        assert picture.exif is not None
        reread = Image.Exif()
        reread.load(picture.exif)
        assert reread[0x0112] == 1


@pytest.mark.parametrize("orientation", [3, 6])
def test_sixteen_bit_tiffs_come_out_upright(orientation: int, tmp_path: Path) -> None:
    values = make.deep(make.photo())
    lying = np.ascontiguousarray(np.rot90(values, 1 if orientation == 6 else 2))
    data = make.tiff(lying, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    (tmp_path / "header").write_bytes(data)
    header = read_header(tmp_path / "header", LIMITS)
    assert (header.width, header.height) == (make.WIDTH, make.HEIGHT)
    np.testing.assert_array_equal(decoded(tmp_path, data).rgb, values)


def test_eight_bit_planes_are_read_in_order(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(make.photo().transpose(2, 0, 1))
    data = make.tiff(planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(decoded(tmp_path, data).rgb, make.photo())


def test_flat_colours_under_transparency_are_replaced_by_the_nearest_visible_ones(tmp_path: Path) -> None:
    alpha = make.soft_alpha()
    pixels = np.dstack([make.photo(), alpha])
    pixels[alpha == 0] = 0
    picture = decoded(tmp_path, make.saved(Image.fromarray(pixels), "PNG"))
    first_visible = int((alpha[0] > 0).argmax())
    np.testing.assert_array_equal(picture.rgb[:, first_visible - 1], make.photo()[:, first_visible])
    np.testing.assert_array_equal(picture.rgb[alpha > 0], make.photo()[alpha > 0])
    assert picture.rgb[:, 0].min() > 0
    np.testing.assert_array_equal(picture.alpha, alpha)


def test_real_content_under_transparency_is_left_alone(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decoded(tmp_path, make.KINDS["png rgba"]()).rgb, make.photo())


def test_premultiplied_sixteen_bit_colours_are_made_straight(tmp_path: Path) -> None:
    colours = make.deep(make.photo())
    alpha = np.full((make.HEIGHT, make.WIDTH), 40_000, np.uint16)
    premultiplied = (colours.astype(np.uint64) * 40_000 // 65_535).astype(np.uint16)
    data = make.tiff(np.dstack([premultiplied, alpha]), photometric="rgb", extrasamples=["assocalpha"])
    assert np.abs(decoded(tmp_path, data).rgb.astype(int) - colours).max() <= 2


def test_white_is_zero_is_turned_round(tmp_path: Path) -> None:
    values = make.deep(make.photo())[..., 1]
    picture = decoded(tmp_path, make.tiff(values, photometric="miniswhite"))
    np.testing.assert_array_equal(picture.rgb[..., 0], 65_535 - values)


@pytest.mark.parametrize("name", [name for name, case in HOSTILE.items() if case.stage == "decode"])
def test_a_broken_file_is_refused_by_the_decoder_with_its_code(name: str, tmp_path: Path) -> None:
    case = HOSTILE[name]
    with pytest.raises(RestoreError) as caught:
        decoded(tmp_path, case.bytes())
    assert (caught.value.status, caught.value.code) == (case.status, case.code)


@pytest.mark.parametrize("name", ODD_BUT_GOOD)
def test_odd_but_good_files_decode(name: str, tmp_path: Path) -> None:
    picture = decoded(tmp_path, ODD_BUT_GOOD[name]())
    assert bool(picture.notes) == any(word in name for word in ("broken", "endless", "cmyk", "bomb", "frames"))


def test_heic_decodes_when_the_extra_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    picture = decoded(tmp_path, make.heic())
    assert picture.source_format == "HEIF"
    assert np.abs(picture.rgb.astype(int) - make.photo()).mean() < 8
