"""Colour: profiles that lead one way, what files say without a profile, HDR; judged by an eye of the test's own."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from app.images import ImageLimits, Picture, icc
from app.images.colour import normalize_color, normalize_deep
from app.images.colour_encoding import ColourEncoding, Transfer, from_code_points, to_srgb
from app.images.decode import decode_file
from app.images.icc_writing import matrix_profile, wide_profile
from app.images.primaries import P3_PRIMARIES, SRGB_PRIMARIES, WIDE_PRIMARIES, srgb_light, srgb_values
from tests import picture_factory as make

LIMITS = ImageLimits()
# Linear RGB of sRGB to XYZ under the white of ICC profiles.
TO_PCS = np.array([[0.4360, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
PCS_WHITE = np.array([0.9642, 1.0, 0.8249])


def decoded(folder: Path, data: bytes) -> Picture:
    (folder / "photo").write_bytes(data)
    return decode_file(folder / "photo", LIMITS)


def seen(picture: Picture) -> NDArray[np.float64]:
    """What a colour-managed viewer shows of a decoded picture, 0..255 in sRGB."""
    values = picture.rgb if picture.rgb.dtype == np.uint8 else (picture.rgb // 257).astype(np.uint8)
    return through(values.astype(np.uint8), picture.icc_profile or make.srgb())


def through(values: NDArray[np.uint8], profile: bytes) -> NDArray[np.float64]:
    converted = ImageCms.profileToProfile(
        Image.fromarray(values), ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    )
    return np.asarray(converted).astype(np.float64)


def scanner_profile(
    gamma: float = 1.8, device: bytes = b"scnr", *, matrix: NDArray[Any] = TO_PCS, black: float = 0.0
) -> bytes:
    """An RGB profile that leads to Lab and not back: one table of 33 points an axis."""
    points = 33
    levels = black + (1 - black) * np.linspace(0, 1, points) ** gamma
    light = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    relative = light @ matrix.T / PCS_WHITE
    f = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)
    lab = np.stack(
        [
            (116 * f[..., 1] - 16) / 100 * 65280,
            (500 * (f[..., 0] - f[..., 1]) + 128) * 256,
            (200 * (f[..., 1] - f[..., 2]) + 128) * 256,
        ],
        axis=-1,
    )
    ramp = np.array([0, 65535], ">u2").tobytes() * 3
    table = b"mft2\0\0\0\0" + bytes([3, 3, points, 0]) + struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table += struct.pack(">HH", 2, 2) + ramp + lab.clip(0, 65535).round().astype(">u2").tobytes() + ramp
    return make.icc_of({b"A2B0": table, b"wtpt": make.xyz_tag(PCS_WHITE)}, device=device, pcs=b"Lab ")


WIDE_MATRIX = WIDE_PRIMARIES.to_pcs()


@pytest.mark.parametrize("device", [b"scnr", b"mntr"])
def test_a_profile_that_leads_one_way_is_converted(device: bytes, tmp_path: Path) -> None:
    profile = scanner_profile(device=device)
    picture = decoded(tmp_path, make.saved(make.rgb_image(), "PNG", icc_profile=profile))
    assert picture.notes == ()
    assert picture.icc_profile == icc.srgb_profile()
    assert np.abs(seen(picture) - through(make.photo(), profile)).max() <= 2


def test_colours_beyond_srgb_go_to_the_wide_space(tmp_path: Path) -> None:
    profile = scanner_profile(matrix=WIDE_MATRIX)
    picture = decoded(tmp_path, make.saved(make.rgb_image(), "PNG", icc_profile=profile))
    assert picture.icc_profile == wide_profile()
    difference = np.abs(seen(picture) - through(make.photo(), profile))
    assert np.percentile(difference, 99) <= 3


@pytest.mark.parametrize("wide", [False, True])
def test_sixteen_bits_through_a_one_way_profile_keep_their_depth(*, wide: bool, tmp_path: Path) -> None:
    profile = scanner_profile(matrix=WIDE_MATRIX if wide else TO_PCS)
    values = make.photo().astype(np.uint16) * 257
    picture = decoded(tmp_path, make.deep_png(values, make.iccp(profile)))
    assert picture.rgb.dtype == np.uint16
    assert picture.icc_profile == (wide_profile() if wide else icc.srgb_profile())
    difference = np.abs(seen(picture) - through(make.photo(), profile))
    assert difference.mean() < 1
    ramp = np.repeat(np.arange(0, 65536, 8, dtype=np.uint16)[None, :, None], 3, axis=2)
    steps = np.diff(normalize_deep(ramp, "RGB", profile).pixels[0, :, 1].astype(int))
    assert steps.min() >= 0
    assert (steps > 0).mean() > 0.95  # 8 bits would leave 255 of 8,191 steps


def test_a_scanners_black_is_the_same_in_both_depths() -> None:
    profile = scanner_profile(black=0.01)
    shallow = normalize_color(make.photo(), "RGB", profile)
    deep = normalize_deep(make.photo().astype(np.uint16) * 257, "RGB", profile)
    assert shallow.icc_profile == deep.icc_profile
    assert np.abs(deep.pixels / 257 - shallow.pixels).mean() < 1
    black = normalize_deep(np.zeros((1, 1, 3), np.uint16), "RGB", profile).pixels
    assert abs(int(black[0, 0, 1]) - 257 * 25) < 200  # lcms compensates for no black of a profile of this kind


def test_the_dense_table_is_exact_where_the_answer_is_known() -> None:
    table = icc.table_to(icc.srgb_profile(), SRGB_PRIMARIES)
    axis = np.linspace(0, 1, len(table))
    expected = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    assert np.abs(table - expected).max() < 1 / 4096


def test_a_profile_is_judged_once() -> None:
    profile = scanner_profile(gamma=1.7)
    icc.judge.cache_clear()
    for _ in range(3):
        assert icc.judge(profile) == icc.Profile("RGB", usable=True, reversible=False, is_srgb=False)
    assert icc.judge.cache_info().misses == 1
    assert icc.judge(make.srgb()).is_srgb
    assert icc.judge(make.display_p3()).reversible
    assert not icc.judge(b"no profile" * 30).usable


def test_grey_with_an_rgb_profile_is_converted_in_sixteen_bits() -> None:
    grey = make.deep(make.photo())[..., 1]
    profile = make.matrix_profile([(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)], 1.0)
    normalized = normalize_deep(grey, "L", profile)
    expected = srgb_values((grey / 65535).astype(np.float32)) * 65535
    bright = grey > 6000  # the table has 52 points, and a linear ramp is steep in the dark
    assert np.abs(normalized.pixels.astype(float) - expected)[bright].max() < 300
    assert normalized.notes == ()


def test_our_matrix_profile_means_what_it_says() -> None:
    values = np.array([[[255, 0, 0], [0, 255, 0], [10, 200, 90], [128, 128, 128], [3, 3, 3]]], np.uint8)
    profile = matrix_profile(P3_PRIMARIES, "test")
    light = srgb_light((values / 255).astype(np.float32)) @ P3_PRIMARIES.matrix_to(SRGB_PRIMARIES).T
    expected = srgb_values(light.clip(0, 1).astype(np.float32)) * 255
    assert np.abs(through(values, profile) - expected).max() <= 1
    assert normalize_color(make.photo(), "RGB", matrix_profile(SRGB_PRIMARIES, "test")).pixels is not None
    assert icc.judge(matrix_profile(SRGB_PRIMARIES, "test")).is_srgb


def chunk_gamma(value: float) -> bytes:
    return make.chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def chunk_primaries(white: tuple[float, float], *points: tuple[float, float]) -> bytes:
    numbers = [round(part * 100_000) for point in (white, *points) for part in point]
    return make.chunk(b"cHRM", struct.pack(">8I", *numbers))


def png8(values: NDArray[np.uint8], extra: bytes) -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    kind = 0 if values.ndim == 2 else 2
    return make.png(values.shape[1], values.shape[0], 8, kind, rows, extra)


def linear(values: NDArray[np.uint8]) -> NDArray[np.float32]:
    return srgb_light((values / 255).astype(np.float32))


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("deep", [False, True])
def test_linear_light_is_brightened(*, deep: bool, grey: bool, tmp_path: Path) -> None:
    photo: Any = make.photo()[..., 1] if grey else make.photo()
    if deep:
        data = make.deep_png((linear(photo) * 65535).round().astype(np.uint16), chunk_gamma(1.0))
    else:
        data = png8((linear(photo) * 255).round().astype(np.uint8), chunk_gamma(1.0))
    picture = decoded(tmp_path, data)
    assert picture.rgb.dtype == (np.uint16 if deep else np.uint8)
    expected = np.repeat(photo[..., None], 3, axis=2) if grey else photo
    assert np.abs(seen(picture) - expected).mean() < (0.6 if deep else 1)


@pytest.mark.parametrize("extra", [chunk_gamma(0.45455), chunk_gamma(0.46), chunk_gamma(0), chunk_gamma(300)])
def test_a_usual_or_senseless_gamma_changes_nothing(extra: bytes, tmp_path: Path) -> None:
    picture = decoded(tmp_path, png8(make.photo(), extra))
    np.testing.assert_array_equal(picture.rgb, make.photo())
    assert (picture.icc_profile, picture.notes) == (None, ())


def test_the_primaries_of_srgb_and_lines_without_a_triangle_change_nothing(tmp_path: Path) -> None:
    for points in (((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), ((0.3, 0.3), (0.4, 0.4), (0.5, 0.5))):
        picture = decoded(tmp_path, png8(make.photo(), chunk_primaries((0.3127, 0.329), *points)))
        np.testing.assert_array_equal(picture.rgb, make.photo())


@pytest.mark.parametrize("deep", [False, True])
def test_wide_primaries_look_as_their_profile_would(*, deep: bool, tmp_path: Path) -> None:
    extra = chunk_gamma(0.45455) + chunk_primaries((0.3127, 0.329), *make.P3)
    for values, is_kept in ((make.muted(), False), (make.vivid(), True)):
        data = make.deep_png(values.astype(np.uint16) * 257, extra) if deep else png8(values, extra)
        picture = decoded(tmp_path, data)
        assert (picture.icc_profile is not None) == is_kept
        expected = through(values, matrix_profile(P3_PRIMARIES, "test"))
        assert np.abs(seen(picture) - expected).max() <= 2


def test_a_profile_goes_before_gamma_and_the_srgb_chunk_too(tmp_path: Path) -> None:
    for extra in (make.iccp(make.srgb()) + chunk_gamma(1.0), make.chunk(b"sRGB", b"\0") + chunk_gamma(1.0)):
        np.testing.assert_array_equal(decoded(tmp_path, png8(make.photo(), extra)).rgb, make.photo())


def code_points(*numbers: int) -> bytes:
    return make.chunk(b"cICP", bytes(numbers))


def pq(nits: NDArray[Any]) -> NDArray[np.float64]:
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = np.maximum(nits / 10_000, 0) ** m1
    return np.asarray(((c1 + c2 * root) / (1 + c3 * root)) ** m2)


def hlg(light: NDArray[Any]) -> NDArray[np.float64]:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(light <= 1 / 12, np.sqrt(3 * light), a * np.log(np.maximum(12 * light - b, 1e-9)) + c)


@pytest.mark.parametrize("primaries", [1, 9, 12])
def test_paper_white_in_pq_comes_back_as_the_photo_was(primaries: int, tmp_path: Path) -> None:
    encoding = from_code_points(primaries, 16)
    assert encoding is not None
    light = linear(make.photo()) @ SRGB_PRIMARIES.matrix_to(encoding.primaries).T
    values = (pq(light * 203) * 65535).round().astype(np.uint16)
    picture = decoded(tmp_path, make.deep_png(values, code_points(primaries, 16, 0, 1)))
    assert picture.rgb.dtype == np.uint16
    assert np.abs(seen(picture) - make.photo()).max() <= 1
    assert "HDR" in picture.notes[0].message


def test_lights_brighter_than_paper_are_rolled_off_and_not_clipped(tmp_path: Path) -> None:
    nits = np.linspace(20, 2000, 4096)
    ramp = np.repeat((pq(nits) * 65535).round().astype(np.uint16)[None, :, None], 3, axis=2)
    shown = decoded(tmp_path, make.deep_png(ramp, code_points(9, 16, 0, 1))).rgb[0, :, 1].astype(int)
    assert np.diff(shown).min() >= 0
    assert len(np.unique(shown)) > 2500
    dark = nits < 0.75 * 203
    expected = srgb_values((nits[dark] / 203).astype(np.float32)) * 65535
    assert np.abs(shown[dark] - expected).max() < 100


def test_hlg_paper_white_becomes_nearly_white(tmp_path: Path) -> None:
    scene = np.array([[0.0, 0.05, 0.2650, 1.0]])
    values = (hlg(np.repeat(scene[..., None], 3, axis=2)) * 65535).round().astype(np.uint16)
    shown = decoded(tmp_path, make.deep_png(values, code_points(9, 18, 0, 1))).rgb[0, :, 1]
    assert list(shown) == sorted(shown)
    assert shown[0] < 300
    assert 50_000 < shown[2] < 65_535
    assert shown[3] > 64_000


@pytest.mark.parametrize("transfer", [13, 1, 6])
def test_code_points_of_ordinary_pictures(transfer: int, tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        decoded(tmp_path, png8(make.photo(), code_points(1, transfer, 0, 1))).rgb, make.photo()
    )
    picture = decoded(tmp_path, png8(make.vivid(), code_points(12, transfer, 0, 1)))
    expected = through(make.vivid(), matrix_profile(P3_PRIMARIES, "test"))
    assert np.abs(seen(picture) - expected).max() <= 2
    assert picture.notes == ()


def test_narrow_range_is_spread(tmp_path: Path) -> None:
    values = np.array([[[16, 16, 16], [235, 235, 235], [0, 0, 0], [255, 255, 255]]], np.uint8)
    picture = decoded(tmp_path, png8(values, code_points(1, 13, 0, 0)))
    assert picture.rgb[0, :, 0].tolist() == [0, 255, 0, 255]


def test_code_points_that_say_nothing_are_passed_over(tmp_path: Path) -> None:
    extra = code_points(2, 99, 0, 1) + chunk_gamma(1.0)
    data = png8((linear(make.photo()) * 255).round().astype(np.uint8), extra)
    assert np.abs(seen(decoded(tmp_path, data)) - make.photo()).mean() < 1
    assert from_code_points(200, 13) is None


def test_code_points_go_before_a_profile(tmp_path: Path) -> None:
    extra = code_points(1, 13, 0, 1) + make.iccp(make.display_p3())
    picture = decoded(tmp_path, png8(make.vivid(), extra))
    np.testing.assert_array_equal(picture.rgb, make.vivid())
    assert picture.icc_profile is None


def test_transparency_is_no_light(tmp_path: Path) -> None:
    pixels = np.dstack([make.photo(), make.soft_alpha()])
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    picture = decoded(tmp_path, make.png(make.WIDTH, make.HEIGHT, 8, 6, rows, chunk_gamma(1.0)))
    np.testing.assert_array_equal(picture.alpha, make.soft_alpha())


def test_grey_hdr_is_mapped_without_primaries() -> None:
    grey = (pq(np.linspace(0, 203, 256)[None]) * 255).round().astype(np.uint8)
    converted = to_srgb(grey, ColourEncoding(WIDE_PRIMARIES, Transfer.PQ))
    assert converted.pixels.shape == grey.shape
    assert converted.pixels[0, -1] > 250


@pytest.mark.parametrize("name", ["pHYs", "tEXt", "gAMA", "iCCP", "eXIf", "tRNS", "cHRM", "tIME"])
def test_a_wrong_checksum_beside_the_pixels_costs_that_chunk_only(name: str, tmp_path: Path) -> None:
    bodies = {"pHYs": struct.pack(">IIB", 2835, 2835, 1), "gAMA": struct.pack(">I", 100_000), "tRNS": bytes(6)}
    bodies |= {"iCCP": b"icc\0\0" + zlib.compress(make.display_p3()), "cHRM": bytes(32)}
    damaged = bytearray(make.chunk(name.encode(), bodies.get(name, b"Comment\0hello")))
    damaged[-1] ^= 1
    picture = decoded(tmp_path, png8(make.photo(), bytes(damaged)))
    np.testing.assert_array_equal(picture.rgb, make.photo())
    assert (picture.alpha, picture.dpi, picture.icc_profile) == (None, None, None)
    assert [name in notice.message for notice in picture.notes].count(True) == 1


@pytest.mark.parametrize("name", ["gAMA", "cHRM", "sRGB", "cICP", "pHYs", "tRNS"])
def test_a_chunk_that_is_too_short_costs_that_chunk_only(name: str, tmp_path: Path) -> None:
    picture = decoded(tmp_path, png8(make.photo(), make.chunk(name.encode(), b"")))
    np.testing.assert_array_equal(picture.rgb, make.photo())
    assert [name in notice.message for notice in picture.notes] == [True]
