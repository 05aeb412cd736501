"""Holes in photos: diffusion beside OpenCV, the network on wide holes alone, grain put back, not a bit outside."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.restoration import inpaint_biharmonic

from app.errors import Cancelled
from app.images import Pixels
from app.restoration.repair import grain, windows
from app.restoration.repair.diffusion_inpainting import biharmonic_fill, diffusion_fill, harmonic_fill
from app.restoration.repair.filling import fill, wide_part
from app.restoration.repair.halo import with_halo
from app.restoration.repair.inpainting_network import FillCorrection, make_inpainting
from app.restoration.repair.windows import Window, of_each, windows_of


def a_photo(height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(3).integers(60, 180, (9, 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def holes(height: int = 120, width: int = 160) -> NDArray[np.bool_]:
    """A wide hole, a thin one, and one at the border."""
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (60, 60), 14, 1, -1)
    cv2.line(mask, (90, 10), (140, 110), 1, 2)
    cv2.line(mask, (0, 100), (30, 119), 1, 9)
    return mask.astype(np.bool_)


def a_loud_network() -> FillCorrection:
    network = make_inpainting(1, (8, 8, 8, 8)).eval()
    torch.nn.init.normal_(network.head.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    return network


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("network", [None, a_loud_network()])
def test_outside_the_mask_not_one_bit_changes_and_equal_photos_give_equal_fills(
    dtype: type, network: FillCorrection | None
) -> None:
    photo = a_photo().astype(dtype) * dtype(257 if dtype is np.uint16 else 1)
    spoiled: Pixels = np.where(holes()[:, :, None], np.iinfo(dtype).max, photo).astype(dtype)
    before = spoiled.copy()
    filled = fill(spoiled, holes(), network)
    assert filled.dtype == dtype
    np.testing.assert_array_equal(spoiled, before, "the photo itself is not touched")
    np.testing.assert_array_equal(filled[~holes()], spoiled[~holes()])
    assert (filled[holes()] != spoiled[holes()]).any(axis=1).mean() > 0.95
    np.testing.assert_array_equal(filled, fill(spoiled, holes(), network))


def test_diffusion_is_nearer_than_both_inpainters_of_opencv_in_thin_and_wide_holes() -> None:
    photo, mask = a_photo(), holes()
    spoiled = np.where(mask[:, :, None], np.uint8(255), photo)
    wide = wide_part(mask)
    ours = fill(spoiled, mask, with_grain=False)
    for method in (cv2.INPAINT_NS, cv2.INPAINT_TELEA):
        theirs = cv2.inpaint(spoiled, mask.astype(np.uint8), 3, method)
        for where in (wide, mask & ~wide):
            errors = [np.square(each[where].astype(float) - photo[where]).mean() for each in (ours, theirs)]
            assert errors[0] < errors[1]


def test_a_slope_is_carried_on_over_a_thin_hole_and_a_flat_picture_stays_flat() -> None:
    slope = np.tile(np.linspace(0.2, 0.8, 64, dtype=np.float32), (48, 1))[:, :, None]
    thin = np.zeros((48, 64), np.bool_)
    thin[:, 30:34] = True
    spoiled = np.where(thin[:, :, None], np.float32(1.0), slope)
    np.testing.assert_allclose(diffusion_fill(spoiled, thin), slope, atol=2e-3)
    bowl = 0.2 + 0.6 * ((np.tile(np.arange(64, dtype=np.float32), (48, 1))[:, :, None] - 32.0) / 32.0) ** 2
    bent = np.zeros((48, 64), np.bool_)
    bent[:, 29:35] = True
    apart = [np.abs(each(bowl, bent) - bowl)[12:36].mean() for each in (diffusion_fill, harmonic_fill)]
    assert apart[0] < 0.9 * apart[1], "slopes are carried on from the edge"
    flat = np.full((48, 64, 3), 0.25, np.float32)
    wide = np.zeros((48, 64), np.bool_)
    wide[5:40, 10:60] = True
    np.testing.assert_allclose(harmonic_fill(np.where(wide[:, :, None], np.float32(0), flat), wide), flat, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(2, 1), (3, 5), (48, 64), (1, 40)])
def test_the_biharmonic_fill_is_that_of_scikit_image(shape: tuple[int, int], channels: int) -> None:
    rng = np.random.default_rng(8)
    picture = rng.random((*shape, channels), np.float32)
    hole = rng.random(shape) < 0.4
    hole[0, 0], hole[-1, -1] = True, False
    picture[hole] = picture[-1, -1]  # no new limits
    before = picture.copy()
    expected = inpaint_biharmonic(picture, hole, channel_axis=2)
    np.testing.assert_allclose(biharmonic_fill(picture, hole), expected, atol=1e-4)
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 40)])
def test_small_photos_and_photos_that_are_all_hole(shape: tuple[int, int]) -> None:
    photo = np.full((*shape, 3), 90, np.uint8)
    assert (fill(photo, np.ones(shape, np.bool_)) == 128).all()
    one = np.zeros(shape, np.bool_)
    one[0, 0] = shape != (1, 1)
    np.testing.assert_array_equal(fill(photo, one), photo)


@pytest.mark.parametrize("where", [np.s_[:90, :90], np.s_[:, :100], np.s_[:120, :], np.s_[30:190, 40:250]])
def test_a_hole_larger_than_a_window_is_filled_from_its_rim(
    where: tuple[slice, slice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "WINDOW_PIXELS", 48)
    monkeypatch.setattr(windows, "MARGIN_PIXELS", 8)
    photo, mask = np.full((200, 260, 3), 230, np.uint8), np.zeros((200, 260), np.bool_)
    mask[where] = True
    spoiled = np.where(mask[:, :, None], np.uint8(0), photo)
    assert (fill(spoiled, mask, with_grain=False) == 230).all()
    assert (fill(photo, np.ones_like(mask), with_grain=False) == 128).all()  # nothing is known anywhere


def test_no_border_between_windows_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    photo, mask = a_photo(200, 260), np.zeros((200, 260), np.bool_)
    mask[90:106, 5:255] = mask[10:190, 120:132] = True
    whole = fill(photo, mask, with_grain=False)
    monkeypatch.setattr(windows, "WINDOW_PIXELS", 64)
    monkeypatch.setattr(windows, "MARGIN_PIXELS", 32)
    apart = fill(photo, mask, with_grain=False)
    assert np.abs(apart.astype(int) - whole).max() < 12
    block = np.zeros((200, 260), np.bool_)
    block[40:150, 20:120] = True
    ramp = np.repeat(np.tile(np.linspace(30, 220, 260).astype(np.uint8), (200, 1))[:, :, None], 3, axis=2)
    monkeypatch.setattr(windows, "MARGIN_PIXELS", 8)
    steps = np.abs(np.diff(fill(ramp, block, with_grain=False).astype(int), axis=1))
    assert steps[45:145, 63].max() < 8, "a window begins with what the one before has filled"
    across = np.abs(np.diff(apart.astype(int), axis=1))[90:106]  # steps at 63|64 against all steps in the hole
    assert across[:, 63].max() <= np.percentile(across, 99.5) + 1


def test_grey_photos_stay_grey_whatever_the_network_says() -> None:
    grey = np.repeat(a_photo()[:, :, :1], 3, axis=2)
    noisy = np.clip(grey + np.random.default_rng(0).normal(0, 6, grey.shape[:2])[:, :, None], 0, 255).astype(np.uint8)
    filled = fill(noisy, holes(), a_loud_network())
    assert (filled == filled[:, :, :1]).all()


def test_the_network_is_asked_where_a_hole_is_wide_and_nowhere_else() -> None:
    photo, wide = a_photo(), wide_part(holes())
    alone, corrected = (fill(photo, holes(), network, with_grain=False) for network in (None, a_loud_network()))
    apart = np.abs(alone.astype(int) - corrected).max(axis=2)
    assert apart[wide].mean() > 2
    far = cv2.dilate(wide.astype(np.uint8), np.ones((31, 31), np.uint8)) == 0
    assert (holes() & far).any()
    assert not apart[far].any()


def noise(shape: tuple[int, int], sigma: float, blur: float) -> NDArray[np.float32]:
    """Grey grain of a standard deviation, in steps of 255, as coarse as the blur."""
    white = cv2.GaussianBlur(np.random.default_rng(5).standard_normal(shape, np.float32), (0, 0), blur)
    return np.asarray(white * (sigma / white.std()), dtype=np.float32)


@pytest.mark.parametrize(("sigma", "blur"), [(4.0, 0.4), (10.0, 0.8)])
def test_the_fill_has_the_grain_of_its_surroundings(sigma: float, blur: float) -> None:
    plain = np.full((160, 200, 3), 128.0, np.float32) + noise((160, 200), sigma, blur)[:, :, None]
    photo = np.rint(plain).astype(np.uint8)
    mask = np.zeros((160, 200), np.bool_)
    mask[60:110, 60:150] = True
    inside, outside = np.s_[66:104, 66:144, 0], np.s_[5:50, :, 0]
    rough, smooth = (fill(photo, mask, with_grain=way).astype(float) for way in (True, False))
    assert rough[inside].std() == pytest.approx(photo[outside].astype(float).std(), rel=0.2)
    assert smooth[inside].std() < 0.5 * rough[inside].std()
    neighbours = [
        np.corrcoef(each[:, 1:].ravel(), each[:, :-1].ravel())[0, 1]
        for each in (rough[inside], photo[outside].astype(float))
    ]
    assert neighbours[0] == pytest.approx(neighbours[1], abs=0.15), "as coarse as the photo's own"


def test_where_there_is_no_grain_none_is_added() -> None:
    photo = np.full((90, 90, 3), 77, np.uint8)
    mask = np.zeros((90, 90), np.bool_)
    mask[30:60, 30:60] = True
    assert (fill(np.where(mask[:, :, None], np.uint8(200), photo), mask) == 77).all()


@pytest.mark.parametrize("width", range(1, 8))
def test_the_grain_of_a_narrow_photo_is_measured(width: int) -> None:
    filled = np.clip(0.5 + noise((3000, width), 0.05, 0.4), 0, 1)[:, :, None].astype(np.float32)
    hole = np.zeros((3000, width), np.bool_)
    hole[::100] = True  # enough surroundings
    assert grain.measure_grain(filled, hole) is not None
    found = grain.grain_for(filled, hole, (0, 0))
    assert np.isfinite(found).all()
    assert not found[~hole].any()


def test_noise_hangs_on_the_place_alone() -> None:
    whole = grain.place_noise((100, 50), (200, 300), 3)
    np.testing.assert_array_equal(grain.place_noise((150, 120), (60, 90), 3), whole[50:110, 70:160])
    assert whole.std() == pytest.approx(1.0, abs=0.02)


def test_windows_that_need_not_know_of_each_other_are_computed_few_at_a_time_and_in_order() -> None:
    mask = np.ones((windows.WINDOW_PIXELS * 5, 10), np.bool_)
    asked: list[int] = []

    def top(inner: Window, outer: Window) -> int:
        asked.append(inner[0].start)
        return int(inner[0].start)

    tops = [inner[0].start for inner, _ in windows_of(mask)]
    assert [(window[0][0].start, found) for window, found in of_each(windows_of(mask), top)] == [(y, y) for y in tops]
    asked.clear()
    most = min(windows.MOST_THREADS, torch.get_num_threads()) + 1
    found = of_each(((window, window) for window in itertools.repeat(np.s_[0:1, 0:1], 1000)), top)
    next(found)
    assert len(asked) <= most, "a thousand windows are not begun all at once"
    found.close()

    def broken(inner: Window, outer: Window) -> int:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(of_each(windows_of(mask), broken))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_in_half_precision_rounds_what_it_adds_and_not_the_picture(dtype: torch.dtype) -> None:
    silent = make_inpainting(1, (8, 8, 8, 8)).eval().to(dtype)  # adds nothing
    alone, asked = (fill(a_photo(), holes(), network, with_grain=False) for network in (None, silent))
    np.testing.assert_array_equal(alone, asked)
    loud = (a_loud_network().to(each) for each in (torch.float32, dtype))
    exact, rounded = (fill(a_photo(), holes(), network, with_grain=False) for network in loud)
    assert np.abs(exact.astype(int) - rounded).max() <= 8


def test_it_says_how_far_it_is_and_stops_when_told_to() -> None:
    said: list[float] = []

    def on_fraction(fraction: float) -> bool:
        said.append(fraction)
        return True

    fill(a_photo(), holes(), on_fraction=on_fraction)
    assert said == sorted(said)
    assert said[-1] == pytest.approx(1.0)
    with pytest.raises(Cancelled):
        fill(a_photo(), holes(), on_fraction=lambda fraction: False)


def a_crack_with_a_rim(dtype: type) -> tuple[NDArray[np.unsignedinteger], NDArray[np.bool_], NDArray[np.bool_]]:
    """A white line with one dark pixel and one pale one on either side, what is marked of it, and all of it."""
    photo = np.full((80, 90, 3), 120, np.uint8)
    core, whole = np.zeros((2, 80, 90), np.bool_)
    core[10:70, 40:44], whole[10:70, 38:46] = True, True
    photo[10:70, 38:46], photo[10:70, 39:45], photo[core] = 150, 90, 250
    return photo.astype(dtype) * dtype(np.iinfo(dtype).max // 255), core, whole


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_rim_of_a_crack_belongs_to_it_and_nothing_else(dtype: type) -> None:
    photo, core, whole = a_crack_with_a_rim(dtype)
    np.testing.assert_array_equal(with_halo(photo, core), whole)
    assert core.sum() == 240, "the mask itself is not touched"
    assert not with_halo(photo, np.zeros_like(core)).any()
    filled = fill(photo, with_halo(photo, core)) / (np.iinfo(dtype).max // 255)
    np.testing.assert_allclose(filled, 120, atol=2)


def test_a_mask_that_covers_all_of_the_damage_stays_as_it_is_on_a_plain_ground() -> None:
    photo, _, whole = a_crack_with_a_rim(np.uint8)
    np.testing.assert_array_equal(with_halo(photo, whole), whole)
