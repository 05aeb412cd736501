"""The figures against analytic cases, scikit-image and basicsr's own functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from skimage import data
from skimage.color import deltaE_ciede2000
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from app.errors import Unprocessable
from app.evaluation import metrics
from app.evaluation.metrics import Rgb, luma_psnr, luma_ssim, mean_ciede2000, rgb_psnr, rgb_ssim
from app.restoration.reference import packages


def photo_pair(seed: int = 1, sigma: float = 12.0) -> tuple[Rgb, Rgb]:
    """A photo of odd sides and a noisy copy."""
    photo = np.ascontiguousarray(data.astronaut()[:301, 40:297])
    drawn = np.random.default_rng(seed).normal(0.0, sigma, photo.shape)
    return photo, np.clip(np.rint(photo + drawn), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def upstream() -> Any:
    if not packages.is_available():
        pytest.skip("basicsr is not installed here (it needs Python 3.11 or 3.12)")
    from basicsr.metrics import psnr_ssim

    return psnr_ssim


def test_equal_pictures_are_infinitely_alike() -> None:
    photo, _ = photo_pair()
    assert rgb_psnr(photo, photo) == luma_psnr(photo, photo, 4) == math.inf
    assert rgb_ssim(photo, photo) == pytest.approx(1.0, abs=1e-12)
    assert luma_ssim(photo, photo, 4) == pytest.approx(1.0, abs=1e-12)
    assert mean_ciede2000(photo, photo) == 0.0


@pytest.mark.parametrize("offset", [1, 5, 40])
def test_a_constant_offset_has_the_psnr_of_its_formula(offset: int) -> None:
    flat = np.full((40, 30, 3), 100, np.uint8)
    other = flat + np.uint8(offset)
    assert rgb_psnr(flat, other) == pytest.approx(20 * math.log10(255 / offset), abs=1e-9)
    # BT.601 in studio range: a grey step of one is 219 / 255 of a step in luma.
    assert luma_psnr(flat, other) == pytest.approx(20 * math.log10(255 / (offset * 219 / 255)), abs=1e-6)


def test_a_constant_offset_has_the_ssim_of_its_formula() -> None:
    flat = np.full((40, 30, 3), 100, np.uint8)
    c1 = (0.01 * 255) ** 2  # contrast and structure are 1, so only the means' term is left
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert rgb_ssim(flat, flat + np.uint8(20)) == pytest.approx(expected, abs=1e-9)


def test_known_noise_has_the_psnr_of_its_variance() -> None:
    flat = np.full((400, 400, 3), 128, np.uint8)
    drawn = np.random.default_rng(0).integers(-6, 7, flat.shape)  # variance (13 * 13 - 1) / 12 = 14
    noisy = (flat + drawn).astype(np.uint8)
    assert rgb_psnr(flat, noisy) == pytest.approx(10 * math.log10(255**2 / 14), abs=0.03)


def test_luma_is_matlabs() -> None:
    corners = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert metrics.luma(corners)[0] == pytest.approx([16, 235, 81.481, 144.553, 40.966])


@pytest.mark.parametrize("border", [0, 4])
def test_the_figures_are_basicsrs_to_four_decimals(upstream: Any, border: int) -> None:
    a, b = photo_pair()
    bgr_a, bgr_b = a[:, :, ::-1], b[:, :, ::-1]
    for ours, theirs, y in (
        (rgb_psnr, upstream.calculate_psnr, False),
        (luma_psnr, upstream.calculate_psnr, True),
        (rgb_ssim, upstream.calculate_ssim, False),
        (luma_ssim, upstream.calculate_ssim, True),
    ):
        expected = theirs(bgr_a, bgr_b, crop_border=border, test_y_channel=y)
        assert ours(a, b, border) == pytest.approx(expected, abs=5e-5), ours.__name__


def test_the_figures_are_scikit_images() -> None:
    a, b = photo_pair()
    assert rgb_psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-9)
    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(a, b, channel_axis=2, data_range=255, **options)
    assert rgb_ssim(a, b) == pytest.approx(expected, abs=1e-6)  # there in 32 bits


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = photo_pair()
    whole = [figure(a, b, 3) for figure in (rgb_psnr, luma_psnr, rgb_ssim, luma_ssim, mean_ciede2000)]
    monkeypatch.setattr(metrics, "_BAND_ROWS", 7)
    banded = [figure(a, b, 3) for figure in (rgb_psnr, luma_psnr, rgb_ssim, luma_ssim, mean_ciede2000)]
    assert banded == pytest.approx(whole, abs=1e-9)


def test_the_colour_difference_is_that_of_the_published_pairs() -> None:
    # Sharma, Wu and Dalal 2005, table 1, pairs 1 and 17: the arithmetic that the mean is taken of.
    lab_a, lab_b = np.array([[50, 2.6772, -79.7751], [50, 2.5, 0]]), np.array([[50, 0, -82.7485], [73, 25, -18]])
    assert deltaE_ciede2000(lab_a, lab_b) == pytest.approx([2.0425, 27.1492], abs=1e-4)
    white, black = np.full((4, 4, 3), 255, np.uint8), np.zeros((4, 4, 3), np.uint8)
    assert mean_ciede2000(white, black) == pytest.approx(100.0, abs=0.01)


def test_the_border_counts() -> None:
    a = np.full((40, 40, 3), 90, np.uint8)
    b = a.copy()
    b[:4], b[-4:], b[:, :4], b[:, -4:] = 0, 255, 0, 255
    assert rgb_psnr(a, b, 3) < 30
    assert rgb_psnr(a, b, 4) == math.inf


def test_pictures_of_two_sizes_are_refused_with_both_named() -> None:
    with pytest.raises(Unprocessable, match="20x30 and 21x30") as refused:
        rgb_psnr(np.zeros((30, 20, 3), np.uint8), np.zeros((30, 21, 3), np.uint8))
    assert refused.value.code == "sizes_differ"


def test_pictures_smaller_than_a_window_are_refused() -> None:
    tiny = np.zeros((18, 18, 3), np.uint8)
    with pytest.raises(Unprocessable, match="at least 19 pixels"):
        luma_ssim(tiny, tiny, 4)
    assert luma_ssim(np.zeros((19, 19, 3), np.uint8), np.zeros((19, 19, 3), np.uint8), 4) == 1.0
