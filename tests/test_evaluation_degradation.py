"""The degradations against basicsr's `imresize` and against their own promises."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from skimage import data

from app.evaluation import degradation
from app.evaluation.degradation import bicubic_down, bicubic_to, bicubic_up, imresize, jpeg, noise
from app.evaluation.metrics import rgb_psnr
from app.restoration.reference import packages

PHOTO = np.ascontiguousarray(data.astronaut()[100:263, 150:341])  # sides that no factor divides


@pytest.fixture(scope="module")
def matlab_like() -> Any:
    if not packages.is_available():
        pytest.skip("basicsr is not installed here (it needs Python 3.11 or 3.12)")
    from basicsr.utils.matlab_functions import imresize as theirs

    return theirs


@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 2, 3, 4])
def test_the_bicubic_is_basicsrs_to_four_decimals(matlab_like: Any, scale: float) -> None:
    unit = PHOTO / 255.0
    expected = matlab_like(unit, scale)
    ours = imresize(unit, expected.shape[:2], (scale, scale))
    assert ours == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_sizes_are_rounded_up_as_matlab_does(factor: int) -> None:
    assert bicubic_down(PHOTO, factor).shape == (-(-163 // factor), -(-191 // factor), 3)
    assert bicubic_up(PHOTO, factor).shape == (163 * factor, 191 * factor, 3)


def test_a_flat_photo_stays_flat_to_its_edges() -> None:
    flat = np.full((50, 70, 3), (3, 130, 251), np.uint8)
    for result in (bicubic_down(flat, 4), bicubic_up(flat, 4), bicubic_to(flat, (31, 99))):
        assert (result == flat[0, 0]).all()


def test_fine_stripes_do_not_alias() -> None:
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, np.arange(96) % 3 == 0] = 240
    small = bicubic_down(stripes, 4)[4:-4, 4:-4]
    without = imresize(stripes[1:-2:4, 1:-2:4], (24, 24), (1.0, 1.0))  # taking every fourth pixel gives new stripes
    assert np.ptp(without) == 240
    assert np.ptp(small) <= 12
    assert small.mean() == pytest.approx(80, abs=2)


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bicubic_to(PHOTO, (77, 211))
    monkeypatch.setattr(degradation, "_BAND_ROWS", 5)
    assert (bicubic_to(PHOTO, (77, 211)) == whole).all()


def test_enlarging_takes_little_more_memory_than_its_result() -> None:
    tracemalloc.start()
    try:
        result = bicubic_up(PHOTO, 8)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * result.nbytes


def test_noise_has_its_strength_and_is_repeatable() -> None:
    flat = np.full((200, 200, 3), 128, np.uint8)
    once = noise(flat, 10.0, seed=3)
    assert (once == noise(flat, 10.0, seed=3)).all()
    assert (once != noise(flat, 10.0, seed=4)).any()
    assert np.std(once.astype(float)) == pytest.approx(10.0, abs=0.1)


def test_jpeg_costs_more_with_less_quality() -> None:
    fine, coarse = jpeg(PHOTO, 95), jpeg(PHOTO, 30)
    assert fine.shape == coarse.shape == PHOTO.shape
    assert rgb_psnr(PHOTO, fine) > rgb_psnr(PHOTO, coarse) + 4
    assert (coarse == jpeg(PHOTO, 30)).all()
