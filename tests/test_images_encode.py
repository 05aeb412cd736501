"""From picture to file and back: pixels, depth, colour tags, metadata, limits; read again by Pillow and our decoder."""

from __future__ import annotations

import dataclasses
import io
import resource
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from isal import isal_zlib
from PIL import Image, ImageCms

from app.errors import RestoreError
from app.images import ImageLimits, Picture, choose_format, deflate, encode, encode_preview, fit_layers, samples
from app.images.colour import srgb_profile
from app.images.decode import DecodeOptions, decode_file
from app.images.face_layers import FaceLayer
from app.images.file_preview import preview_file, preview_part
from app.images.srgb_table import rgb_to_srgb, to_srgb
from tests import picture_factory as make

LIMITS = ImageLimits()
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tiff": "TIFF", "avif": "AVIF"}
WIDE = 90  # enough rows and bytes for several bands


def picture(*, deep: bool = False, alpha: bool = False, grey: bool = False, **facts: Any) -> Picture:
    rgb: Any = make.photo(300, WIDE)
    if grey:
        rgb = np.repeat(rgb[..., 1:2], 3, axis=2)
    ramp: Any = make.soft_alpha(300, WIDE)
    if deep:
        rgb, ramp = make.deep(rgb) if not grey else np.repeat(make.deep(rgb[..., :1]), 3, axis=2), make.deep(ramp)
    return Picture(rgb, ramp if alpha else None, grey=grey, **facts)


def through(folder: Path, source: Picture, output_format: str, quality: int = 95, metadata: str = "keep") -> Picture:
    path = folder / "result"
    encode(source, path, output_format, quality, metadata)
    return decode_file(path, LIMITS)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("name", ["png", "tiff"])
def test_lossless_formats_keep_every_number(name: str, grey: bool, alpha: bool, deep: bool, tmp_path: Path) -> None:
    source = picture(deep=deep, alpha=alpha, grey=grey)
    result = through(tmp_path, source, name)
    np.testing.assert_array_equal(result.rgb, source.rgb)
    # Pillow and others cannot open a TIFF of grey with alpha of 16 bits, so it is written as colours.
    assert result.grey == (grey and not (name == "tiff" and deep and alpha))
    assert result.rgb.dtype == source.rgb.dtype
    with Image.open(tmp_path / "result", formats=(name.upper(),)) as image:
        image.load()
    if name == "tiff":
        np.testing.assert_array_equal(_first_of(tifffile.imread(tmp_path / "result")), source.rgb[..., 0])
    if alpha:
        np.testing.assert_array_equal(result.alpha, source.alpha)


def _first_of(values: Any) -> Any:
    return values if values.ndim == 2 else values[..., 0]


def test_a_deep_grey_with_alpha_and_a_grey_profile_is_rounded_with_a_note(tmp_path: Path) -> None:
    source = picture(deep=True, alpha=True, grey=True, icc_profile=make.grey_gamma_18())
    encoded = encode(source, tmp_path / "result", "tiff", 95, "keep")
    assert "rounded to 8 bits" in encoded.notes[0].message
    with Image.open(tmp_path / "result", formats=("TIFF",)) as image:
        image.load()
        assert (image.mode, image.info["icc_profile"]) == ("LA", source.icc_profile)


@pytest.mark.parametrize("packer", ["isal", "zlib"])
@pytest.mark.parametrize("name", ["png", "tiff"])
def test_both_packers_keep_every_number(
    packer: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zlib stands in where ISA-L is missing."""
    assert deflate._packer is isal_zlib
    if packer == "zlib":
        monkeypatch.setattr(deflate, "_packer", zlib)
    source = picture(deep=True, icc_profile=make.display_p3())
    result = through(tmp_path, source, name)
    np.testing.assert_array_equal(result.rgb, source.rgb)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("name", ["jpg", "webp", "avif"])
def test_lossy_formats_look_the_same(name: str, grey: bool, alpha: bool, deep: bool, tmp_path: Path) -> None:
    source = picture(deep=deep, alpha=alpha, grey=grey)
    result = through(tmp_path, source, name)
    opaque = slice(200, None)
    expected = source.rgb[:, opaque] / np.iinfo(source.rgb.dtype).max * 255
    shown = result.rgb[:, opaque].astype(float)
    if name == "jpg" and alpha:
        assert result.rgb[:, 0].min() > 245  # laid on white
        expected, shown = expected[:, 50:], shown[:, 50:]
    assert np.abs(shown - expected).mean() < 4
    assert (result.alpha is not None) == (alpha and name != "jpg")


@pytest.mark.parametrize(("value", "expected"), [(200 * 257 + 100, 200), (200 * 257 + 129, 201)])
def test_sixteen_bits_are_rounded_and_not_cut(value: int, expected: int, tmp_path: Path) -> None:
    source = Picture(np.full((4, 4, 3), value, np.uint16))
    assert through(tmp_path, source, "webp", quality=100).rgb.max() == expected


def test_sixteen_bit_tiffs_follow_the_byte_order_of_their_exif(tmp_path: Path) -> None:
    source = picture(deep=True, exif=make.exif_block(order=">"))
    np.testing.assert_array_equal(through(tmp_path, source, "tiff").rgb, source.rgb)


def test_a_colour_profile_is_not_put_into_a_grey_file(tmp_path: Path) -> None:
    for grey in (True, False):
        encode(picture(grey=grey, icc_profile=make.display_p3()), tmp_path / "result", "png", 95, "keep")
        with Image.open(tmp_path / "result") as image:
            assert image.info.get("icc_profile") == (None if grey else make.display_p3())


def test_our_own_srgb_profile_bears_a_fixed_date() -> None:
    assert srgb_profile()[24:36] == bytes.fromhex("07e800010001000000000000")
    assert ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile())).profile.is_matrix_shaper


def test_grey_is_weighed_like_upstream(tmp_path: Path) -> None:
    source = dataclasses.replace(picture(), grey=True)
    result = through(tmp_path, source, "png")
    np.testing.assert_array_equal(result.rgb[..., 0], cv2.cvtColor(source.rgb, cv2.COLOR_RGB2GRAY))


@pytest.mark.parametrize(
    ("source_format", "alpha", "chosen"),
    [
        ("JPEG", False, "jpg"),
        ("PNG", True, "png"),
        ("WEBP", True, "webp"),
        ("TIFF", False, "tiff"),
        ("BMP", False, "png"),
        ("AVIF", False, "avif"),
        ("HEIF", False, "jpg"),
        ("HEIF", True, "png"),
    ],
)
def test_auto_keeps_the_photos_own_format(source_format: str, alpha: bool, chosen: str) -> None:
    assert choose_format(picture(alpha=alpha, source_format=source_format), "auto") == chosen
    assert choose_format(picture(alpha=alpha, source_format=source_format), "png") == "png"


@pytest.mark.parametrize("name", FORMATS)
def test_the_facts_of_the_file_are_right(name: str, tmp_path: Path) -> None:
    encoded = encode(picture(), tmp_path / "result", name, 95, "keep")
    with Image.open(tmp_path / "result") as image:
        assert image.format == FORMATS[name]
        assert image.get_format_mimetype() == encoded.mime
        assert image.size == (encoded.width, encoded.height)
    assert (tmp_path / "result").stat().st_size == encoded.bytes_written
    assert encoded.extension == {"tiff": "tif"}.get(name, name)


@pytest.mark.parametrize("name", FORMATS)
def test_equal_pictures_give_equal_files(name: str, tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        encode(picture(exif=make.exif_block(), xmp=make.XMP), file, name, 95, "keep")
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(("name", "side"), [("webp", 16_384), ("jpg", 65_501), ("avif", 65_537)])
def test_a_side_too_long_for_the_format_is_refused_and_leaves_no_file(name: str, side: int, tmp_path: Path) -> None:
    with pytest.raises(RestoreError) as caught:
        encode(Picture(np.zeros((1, side, 3), np.uint8)), tmp_path / "result", name, 95, "keep")
    assert caught.value.code == "too_large_for_format"
    assert not (tmp_path / "result").exists()


def test_a_failure_half_way_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: Any, *_: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("app.images.encoding.write_png", fail)
    with pytest.raises(OSError, match="disk full"):
        encode(picture(), tmp_path / "result", "png", 95, "keep")
    assert list(tmp_path.iterdir()) == []


def test_high_quality_jpegs_keep_full_colour(tmp_path: Path) -> None:
    sizes = {}
    for quality in (89, 90):
        encode(picture(), tmp_path / "result", "jpg", quality, "keep")
        with Image.open(tmp_path / "result") as image:
            sizes[quality] = [layer[1:3] for layer in image.layer]  # type: ignore[attr-defined]
    assert sizes[90] == [(1, 1)] * 3
    assert sizes[89][0] == (2, 2)


def _seen(path: Path) -> np.ndarray[Any, Any]:
    """What a colour-managed viewer shows: Lab colours by the profile in the file."""
    with Image.open(path) as image:
        profile = image.info.get("icc_profile")
        mode = "L" if image.mode == "L" else "CMYK" if image.mode == "CMYK" else "RGB"
        shown = image.convert(mode)
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile or make.srgb()))
        if mode == "L" and not profile:
            shown, mode = shown.convert("RGB"), "RGB"
        floats = ImageCms.buildTransform(
            source, ImageCms.createProfile("LAB"), mode, "LAB", ImageCms.Intent.RELATIVE_COLORIMETRIC
        )
        lab = np.asarray(ImageCms.applyTransform(shown, floats)).astype(np.int16)
    lab[..., 1:] = (lab[..., 1:] + 128) % 256 - 128  # Pillow keeps a and b as signed bytes
    scaled: np.ndarray[Any, Any] = lab * np.array([100 / 255, 1, 1])
    return scaled


def _difference(first: Path, second: Path) -> float:
    return float(np.percentile(np.linalg.norm(_seen(first) - _seen(second), axis=2), 95))


PROFILES = {
    "p3 muted": lambda: make.saved(Image.fromarray(make.muted()), "PNG", icc_profile=make.display_p3()),
    "p3 vivid": lambda: make.saved(Image.fromarray(make.vivid()), "PNG", icc_profile=make.display_p3()),
    "adobe vivid": lambda: make.saved(Image.fromarray(make.vivid()), "TIFF", icc_profile=make.adobe_rgb()),
    "grey": lambda: make.saved(make.rgb_image().convert("L"), "PNG", icc_profile=make.grey_gamma_18()),
    "grey 16": lambda: make.deep_png(make.deep(make.photo())[..., 1], make.iccp(make.grey_gamma_18())),
    "srgb": lambda: make.saved(make.rgb_image(), "PNG", icc_profile=make.srgb()),
    "none": lambda: make.saved(make.rgb_image(), "PNG"),
}


@pytest.mark.parametrize("output_format", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("kind", PROFILES)
def test_colours_look_the_same_through_the_results_profile(kind: str, output_format: str, tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(PROFILES[kind]())
    source = decode_file(tmp_path / "photo", LIMITS)
    encode(source, tmp_path / "result", output_format, 100, "strip")
    if source.rgb.dtype == np.uint16:  # for the eye of the test: Pillow cannot show 16-bit grey through a profile
        values = source.rgb[..., 0] // 257
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / "photo", "PNG", icc_profile=source.icc_profile)
        if output_format in ("png", "tiff"):
            with Image.open(tmp_path / "result") as image:
                assert image.info["icc_profile"] == source.icc_profile
            return
    assert _difference(tmp_path / "photo", tmp_path / "result") < 4
    with Image.open(tmp_path / "result") as image:
        assert ("icc_profile" in image.info) == (kind not in ("none", "grey", "grey 16")) or (
            kind == "grey 16" and output_format == "jpg"
        )


def test_muted_wide_photos_become_srgb_and_vivid_ones_keep_their_space(tmp_path: Path) -> None:
    for kind, kept in (("p3 muted", False), ("p3 vivid", True), ("srgb", True)):
        (tmp_path / "photo").write_bytes(PROFILES[kind]())
        profile = decode_file(tmp_path / "photo", LIMITS).icc_profile
        assert profile is not None
        original = make.srgb() if kind == "srgb" else make.display_p3()
        assert (profile == original) == kept


def test_cmyk_with_a_profile_comes_out_as_srgb(tmp_path: Path) -> None:
    profile = make.cmyk_profile()
    (tmp_path / "photo").write_bytes(make.saved(make.cmyk_image(), "TIFF", icc_profile=profile))
    source = decode_file(tmp_path / "photo", LIMITS)
    assert source.notes == ()
    assert source.icc_profile is not None
    encode(source, tmp_path / "result", "png", 95, "keep")
    assert _difference(tmp_path / "photo", tmp_path / "result") < 4


@pytest.mark.parametrize("deep", [False, True])
def test_previews_are_small_upright_on_white_and_bare(deep: bool, tmp_path: Path) -> None:
    source = picture(deep=deep, alpha=True, exif=make.exif_block(gps=True), xmp=make.XMP)
    encode(source, tmp_path / "result", "png", 95, "keep")
    for data in (encode_preview(source, 100), preview_file(tmp_path / "result", LIMITS, 100)):
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.size) == ("JPEG", (100, 30))
            assert not {"exif", "xmp", "icc_profile"} & set(image.info)
            assert min(image.getpixel((2, 15))) > 245  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", make.KINDS)
def test_every_kind_has_a_preview(kind: str, tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(make.KINDS[kind]())
    with Image.open(io.BytesIO(preview_file(tmp_path / "photo", LIMITS))) as image:
        assert image.size == (make.WIDTH, make.HEIGHT)


def test_a_large_jpeg_is_previewed_through_the_cheap_way(tmp_path: Path) -> None:
    exif = b"Exif\0\0" + make.exif_block(6)
    large = Image.fromarray(make.photo(1600, 1200))
    (tmp_path / "photo").write_bytes(make.saved(large, "JPEG", exif=exif, icc_profile=make.display_p3()))
    with Image.open(io.BytesIO(preview_file(tmp_path / "photo", LIMITS, 200))) as image:
        assert image.size == (150, 200)


@pytest.mark.parametrize("output_format", list(FORMATS))
def test_a_disk_that_is_full_a_few_bytes_too_early_fails_the_result_and_leaves_nothing(
    output_format: str, tmp_path: Path
) -> None:
    """The system then takes a part of the last write, without an error."""
    whole = encode(picture(), tmp_path / "whole", output_format, 95, "keep").bytes_written
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for missing in (1, 7, 300):
        resource.setrlimit(resource.RLIMIT_FSIZE, (whole - missing, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                encode(picture(), tmp_path / "cut", output_format, 95, "keep")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not (tmp_path / "cut").exists()


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_greys_with_a_grey_profile_look_the_same(name: str, alpha: bool, deep: bool, tmp_path: Path) -> None:
    source = make.tagged(picture(deep=deep, alpha=alpha, grey=True), make.grey_gamma_18())
    result = through(tmp_path, source, name, 100)
    assert not any("profile" in note.message for note in result.notes)
    with Image.open(tmp_path / "result") as image:
        profile = image.info.get("icc_profile")
        # Pillow opens a PNG of grey with alpha of 16 bits as colours.
        is_grey = image.mode in ("L", "LA", "I;16") or (name == "png" and deep and alpha)
    assert profile == (make.grey_gamma_18() if is_grey else None)
    expected, shown = rgb_to_srgb(samples.eight_bit(source.rgb), source), to_srgb(result)
    opaque = slice(230, None)
    assert np.abs(shown[:, opaque].astype(int) - expected[:, opaque]).mean() < 3
    untouched = samples.eight_bit(source.rgb)[:, opaque].astype(int)
    assert np.abs(untouched - expected[:, opaque]).mean() > 6


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_face_layers_of_greys_are_those_of_the_file(name: str, alpha: bool, deep: bool, tmp_path: Path) -> None:
    source = make.tagged(picture(deep=deep, alpha=alpha, grey=True), make.grey_gamma_18())
    part = source.rgb[10:40, 230:270]
    fitted = fit_layers([FaceLayer(0, 230, 10, part, part, np.zeros(part.shape[:2], np.uint8))], source, name)
    encode(source, tmp_path / "result", name, 100, "keep")
    stored = decode_file(tmp_path / "result", LIMITS, DecodeOptions(as_stored=True))
    assert stored.rgb.dtype == fitted[0].before.dtype
    difference = np.abs(stored.rgb[10:40, 230:270].astype(int) - fitted[0].before)
    assert difference.mean() < (2 if stored.rgb.dtype == np.uint8 else 1)


def test_a_part_of_a_grey_result_is_shown_in_the_colours_of_its_profile(tmp_path: Path) -> None:
    source = make.tagged(picture(deep=True, grey=True), make.grey_gamma_18())
    encode(source, tmp_path / "result", "png", 95, "keep")
    part: Any = np.ascontiguousarray(source.rgb[:60, :90])
    with Image.open(io.BytesIO(preview_part(part, tmp_path / "result", 400))) as image:
        shown = np.asarray(image).astype(int)
    assert np.abs(shown - rgb_to_srgb(samples.eight_bit(part), source)).mean() < 3
