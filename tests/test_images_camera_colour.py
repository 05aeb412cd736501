"""Photos whose EXIF alone says that they are Adobe RGB, and what results say of their colours."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from app.images import ImageLimits, Picture, encode, icc
from app.images.decode import DecodeOptions, decode_file
from app.images.file_preview import preview_file
from app.images.icc_writing import adobe_rgb_profile
from app.images.metadata import exif, xmp, xmp_parsing
from app.images.metadata.rewriting import Metadata, for_result
from app.images.tiff import write_tiff
from tests import picture_factory as make
from tests.test_images_colour import seen, through

LIMITS = ImageLimits()
SRGB, NO_STANDARD, UNCALIBRATED = 1, 2, 65_535
COLOUR_SPACE = 0xA001


def block(space: int | None = UNCALIBRATED, index: str = "R03") -> bytes:
    return make.exif_of({0x010F: "Camera Works"}, {} if space is None else {COLOUR_SPACE: space}, index)


def jpeg(values: Any, data: bytes, **options: Any) -> bytes:
    said = {"exif": b"Exif\0\0" + data, "quality": 100, "subsampling": 0}
    return make.saved(Image.fromarray(values), "JPEG", **{**said, **options})


def decoded(folder: Path, data: bytes, options: DecodeOptions | None = None) -> Picture:
    (folder / "photo").write_bytes(data)
    return decode_file(folder / "photo", LIMITS, options or DecodeOptions())


def said_by(picture: Picture) -> tuple[int | None, str]:
    """Colour space and interoperability index of the picture's EXIF."""
    found = exif.parse(picture.exif or b"")
    space, index = found.photo.get(COLOUR_SPACE), found.interop.get(1)
    return (space.integers(found.order)[0] if space else None), (index.text() if index else "")


def test_our_profile_is_that_of_the_standard() -> None:
    """The columns are those of Adobe's own profile."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(adobe_rgb_profile())).profile
    published = {
        "red_colorant": (0.60974, 0.31111, 0.01947),
        "green_colorant": (0.20528, 0.62567, 0.06087),
        "blue_colorant": (0.14919, 0.06322, 0.74457),
    }
    for name, expected in published.items():
        np.testing.assert_allclose(getattr(profile, name)[0], expected, atol=0.0005)
    judged = icc.judge(adobe_rgb_profile())
    assert (judged.space, judged.usable, judged.reversible, judged.is_srgb) == ("RGB", True, True, False)
    np.testing.assert_allclose(
        through(make.vivid(), adobe_rgb_profile()), through(make.vivid(), make.adobe_rgb()), atol=2
    )


@pytest.mark.parametrize("values", [make.muted(), make.vivid()], ids=["muted", "vivid"])
@pytest.mark.parametrize(
    "data",
    [block(), block(None), block(NO_STANDARD, ""), block(NO_STANDARD, "R98"), block(UNCALIBRATED, "r03")],
    ids=["option file", "index alone", "colour space 2", "colour space 2 and R98", "small letters"],
)
def test_a_camera_that_says_adobe_rgb_is_believed(values: Any, data: bytes, tmp_path: Path) -> None:
    plain = seen(decoded(tmp_path, jpeg(values, make.exif_of({0x010F: "Camera Works"}))))
    picture = decoded(tmp_path, jpeg(values, data))
    embedded = decoded(tmp_path, jpeg(values, data, icc_profile=adobe_rgb_profile()))
    np.testing.assert_array_equal(picture.rgb, embedded.rgb)
    assert picture.icc_profile == embedded.icc_profile is not None
    assert np.abs(seen(picture) - through(values, make.adobe_rgb())).mean() < 3
    assert np.abs(seen(picture) - plain).max() > 8
    assert (picture.icc_profile == adobe_rgb_profile()) == (values.shape == make.vivid().shape)


OTHERWISE: dict[str, Any] = {
    "sRGB with a forgotten index": lambda: jpeg(make.muted(), block(SRGB)),
    "uncalibrated alone": lambda: jpeg(make.muted(), block(UNCALIBRATED, "")),
    "sRGB": lambda: jpeg(make.muted(), block(SRGB, "R98")),
    "PNG with sRGB": lambda: make.png(24, 16, 8, 2, _rows(), make.chunk(b"sRGB", b"\0") + make.chunk(b"eXIf", block())),
    "AVIF with code points": lambda: make.saved(Image.fromarray(make.muted()), "AVIF", exif=block(), quality=100),
    "sRGB profile": lambda: jpeg(make.muted(), block(), icc_profile=make.srgb()),
}


def _rows() -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in make.muted())


@pytest.mark.parametrize("kind", OTHERWISE)
def test_what_else_says_what_the_colours_are_goes_before(kind: str, tmp_path: Path) -> None:
    picture = decoded(tmp_path, OTHERWISE[kind]())
    assert np.abs(picture.rgb.astype(int) - make.muted()).mean() < 3
    assert picture.icc_profile in (None, make.srgb())


@pytest.mark.parametrize("deep", [False, True])
def test_a_tiff_of_a_camera_is_believed_too(deep: bool, tmp_path: Path) -> None:
    values: Any = make.deep(make.vivid()) if deep else make.vivid()
    buffer = io.BytesIO()
    write_tiff(buffer, Picture(values), Metadata(exif=block()), None)
    data = buffer.getvalue()
    picture = decoded(tmp_path, data)
    np.testing.assert_array_equal(picture.rgb, values)
    assert picture.icc_profile == adobe_rgb_profile()
    assert picture.srgb_table is not None


@pytest.mark.parametrize("name", ["WEBP", "HEIF"])
def test_so_are_copies_in_other_formats(name: str, tmp_path: Path) -> None:
    if name == "HEIF":
        package = pytest.importorskip("pillow_heif", reason="HEIC needs the optional package pillow-heif")
        package.register_heif_opener()
        options: dict[str, Any] = {"quality": -1, "chroma": 444, "save_nclx_profile": False}
    else:
        options = {"lossless": True}
    data = make.saved(Image.fromarray(make.vivid()), name, exif=block(), **options)
    assert b"nclx" not in data
    picture = decoded(tmp_path, data)
    assert np.abs(seen(picture) - through(make.vivid(), make.adobe_rgb())).mean() < 4
    assert picture.icc_profile == adobe_rgb_profile()


def test_greys_of_a_camera_go_by_its_gamma(tmp_path: Path) -> None:
    grey = make.photo()[..., 1]
    picture = decoded(tmp_path, jpeg(grey, block(), subsampling=-1))
    embedded = decoded(tmp_path, jpeg(grey, block(), subsampling=-1, icc_profile=adobe_rgb_profile()))
    np.testing.assert_array_equal(picture.rgb, embedded.rgb)
    assert (picture.grey, picture.icc_profile) == (True, None)


def test_results_of_our_own_keep_their_numbers(tmp_path: Path) -> None:
    picture = decoded(tmp_path, jpeg(make.muted(), block()), DecodeOptions(as_stored=True))
    assert picture.icc_profile is None
    assert np.abs(picture.rgb.astype(int) - make.muted()).mean() < 3


def test_the_picture_before_has_the_right_colours(tmp_path: Path) -> None:
    shown = []
    for options in ({}, {"icc_profile": adobe_rgb_profile()}, {"exif": b""}):
        (tmp_path / "photo").write_bytes(jpeg(make.muted(), block(), **options))
        shown.append(preview_file(tmp_path / "photo", LIMITS))
    assert shown[0] == shown[1] != shown[2]


# What results say.


def packet(space: int) -> bytes:
    return make.XMP.replace(b'tiff:Orientation="6"', b'exif:ColorSpace="%d"' % space)


@pytest.mark.parametrize("output_format", ["jpg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("kept", [False, True])
def test_a_result_says_what_it_is(kept: bool, output_format: str, tmp_path: Path) -> None:
    source = decoded(tmp_path, jpeg(make.vivid() if kept else make.muted(), block(), xmp=packet(UNCALIBRATED)))
    encode(source, tmp_path / "result", output_format, 100, "keep")
    result = decode_file(tmp_path / "result", LIMITS, DecodeOptions(as_stored=True))
    assert said_by(result) == ((UNCALIBRATED, "R03") if kept else (SRGB, "R98"))
    stated = xmp_parsing.parse(result.xmp or b"").properties[xmp.EXIF, "ColorSpace"].text
    assert stated == str(UNCALIBRATED if kept else SRGB)
    assert (result.icc_profile == adobe_rgb_profile()) == kept
    assert result.icc_profile is not None
    shown = decode_file(tmp_path / "result", LIMITS)
    assert np.abs(seen(shown) - seen(source)).mean() < 4
    encode(source, tmp_path / "bare", output_format, 100, "strip")
    bare = decode_file(tmp_path / "bare", LIMITS)
    assert np.abs(seen(bare) - seen(source)).mean() < 4


def test_a_photo_that_somebody_else_brought_to_srgb_says_so(tmp_path: Path) -> None:
    """As a provider does it: its answer is sRGB, and has no profile."""
    source = decoded(tmp_path, jpeg(make.vivid(), block()))
    answer = dataclasses.replace(source, rgb=seen(source).astype(np.uint8), icc_profile=None, srgb_table=None)
    encode(answer, tmp_path / "result", "jpg", 100, "keep")
    result = decode_file(tmp_path / "result", LIMITS)
    assert said_by(result) == (SRGB, "R98")
    assert np.abs(seen(result) - seen(source)).mean() < 3


@pytest.mark.parametrize(
    ("space", "index", "own_space", "expected"),
    [
        (SRGB, "R98", True, (UNCALIBRATED, "")),
        (SRGB, "R98", False, (SRGB, "R98")),
        (UNCALIBRATED, "R03", True, (UNCALIBRATED, "R03")),
        (UNCALIBRATED, "THM", False, (SRGB, "THM")),
        (None, "R03", False, (None, "R98")),
        (None, "", False, (None, "")),
    ],
)
def test_only_what_is_said_is_put_right(
    space: int | None, index: str, own_space: bool, expected: tuple[int | None, str]
) -> None:
    result = for_result(Metadata(exif=block(space, index)), 8, 8, "keep", "image/jpeg", own_space=own_space)
    assert said_by(Picture(make.photo(), exif=result.exif)) == expected


def test_grey_photos_that_a_format_brings_to_srgb_say_so(tmp_path: Path) -> None:
    greys = np.repeat(make.deep(make.photo())[..., :1], 3, axis=2)
    alpha: Any = np.full(greys.shape[:2], 65_535, np.uint16)
    source = make.tagged(Picture(greys, alpha, grey=True, exif=block(UNCALIBRATED, "R98")), make.grey_gamma_18())
    for name, space in (("png", UNCALIBRATED), ("webp", SRGB), ("avif", SRGB)):
        encode(source, tmp_path / "result", name, 95, "keep")
        assert said_by(decode_file(tmp_path / "result", LIMITS))[0] == space
