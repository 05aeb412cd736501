"""Faded colours: brought back where photos faded, left alone where they did not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import color

from app.backends.local import open_local_backend
from app.images import Picture
from app.options import RestoreOptions
from app.restoration.colour_correction import Fading, correct_colours, to_density, to_values
from tests.documentation import ROOT
from training.fading import CASES, draw_fading, fade, fit, measure
from training.photos import scikit_photos

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left")
STRONG = ("magenta", "red", "washed out")


@pytest.fixture(scope="module")
def photos() -> dict[str, NDArray[np.uint8]]:
    """Colour photos that the regression was not fitted on, every third pixel of them."""
    return {name: np.ascontiguousarray(rgb[::3, ::3]) for name, rgb in scikit_photos() if name in PHOTOS}


def corrected(rgb: NDArray[Any], strength: float = 1.0) -> NDArray[Any]:
    return correct_colours(Picture(rgb), strength)[0].rgb


@pytest.mark.parametrize("case", STRONG)
def test_faded_photos_come_nearer_to_what_they_were(photos: dict[str, NDArray[np.uint8]], case: str) -> None:
    figures = measure(list(photos.values()), CASES[case])
    assert figures.after < 0.65 * figures.before
    assert figures.worse == 0


def test_the_photo_that_is_not_faded_is_the_same_object(photos: dict[str, NDArray[np.uint8]]) -> None:
    picture = Picture(photos["chelsea"])
    same, fading = correct_colours(picture, 1.0)
    assert same is picture
    assert fading.is_none


def test_undamaged_photos_change_little(photos: dict[str, NDArray[np.uint8]]) -> None:
    assert measure(list(photos.values()), Fading()).after < 3.0


def test_skin_and_sky_keep_their_hues(photos: dict[str, NDArray[np.uint8]]) -> None:
    portrait = photos["astronaut"]
    ramp = np.linspace(0, 1, 80)[:, None, None]
    sky = (np.array([105, 155, 220]) * (1 - ramp) + np.array([190, 210, 235]) * ramp).round()
    scene = np.concatenate([np.broadcast_to(sky, (80, portrait.shape[1], 3)).astype(np.uint8), portrait])
    result = corrected(fade(scene, CASES["magenta"]))
    for box in (np.s_[10:70, 10:160], np.s_[80 + 35 : 80 + 55, 65:85]):
        was, now = (color.rgb2lab(rgb[box]).reshape(-1, 3).mean(axis=0) for rgb in (scene, result))
        angles = [np.degrees(np.arctan2(lab[2], lab[1])) for lab in (was, now)]
        assert abs((angles[0] - angles[1] + 180) % 360 - 180) < 30


def hue_of(rgb: NDArray[np.uint8]) -> NDArray[Any]:
    """Mean a and b of Lab, as a unit vector."""
    tone = color.rgb2lab(rgb).reshape(-1, 3).mean(axis=0)[1:]
    unit: NDArray[Any] = tone / np.linalg.norm(tone)
    return unit


@pytest.mark.parametrize("tone", [(1.0, 1.0, 1.0), (1.0, 0.9, 0.72)])
def test_monochrome_photos_get_range_and_keep_their_tone(
    photos: dict[str, NDArray[np.uint8]], tone: tuple[float, ...]
) -> None:
    grey = (photos["astronaut"].mean(axis=2, keepdims=True) * np.array(tone)).round().astype(np.uint8)
    faded = fade(grey, Fading((0.6, 0.6, 0.6), (0.06, 0.06, 0.06)))
    result = corrected(faded)
    assert np.ptp(result.astype(int)) > 1.2 * np.ptp(faded.astype(int))
    if len(set(tone)) == 1:
        assert np.array_equal(result[..., 0], result[..., 1])
        assert np.array_equal(result[..., 0], result[..., 2])
    else:
        assert float(hue_of(faded) @ hue_of(result)) > 0.97


def test_strength_blends_and_none_of_it_changes_nothing(photos: dict[str, NDArray[np.uint8]]) -> None:
    faded = fade(photos["coffee"], CASES["red"])
    none, half, whole = (corrected(faded, strength).astype(int) for strength in (0.0, 0.5, 1.0))
    assert np.array_equal(none, faded)
    assert np.abs(half - (none + whole) / 2).max() <= 1
    assert np.abs(whole - none).mean() > 5


def test_sixteen_bits_keep_their_steps(photos: dict[str, NDArray[np.uint8]]) -> None:
    faded = fade(photos["coffee"], CASES["red"])
    deep = (faded.astype(np.uint16) << 8) + np.random.default_rng(0).integers(0, 256, faded.shape).astype(np.uint16)
    result = corrected(deep)
    assert result.dtype == np.uint16
    assert len(np.unique(result)) > 1000
    assert np.abs((result >> 8).astype(int) - corrected(faded).astype(int)).mean() < 1.5


@pytest.mark.parametrize("rgb", [np.zeros((1, 1, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8)])
def test_flat_pictures_do_no_harm(rgb: NDArray[np.uint8]) -> None:
    result = corrected(rgb)
    assert result.shape == rgb.shape
    assert len(np.unique(result)) == 1


def test_hidden_pixels_are_not_looked_at(photos: dict[str, NDArray[np.uint8]]) -> None:
    faded = fade(photos["coffee"], CASES["red"])
    alpha = np.full(faded.shape[:2], 255, np.uint8)
    alpha[:, ::2] = 0  # lines of black that nobody sees
    hidden = np.where(alpha[..., None] == 0, 0, faded).astype(np.uint8)
    wide = [np.repeat(np.repeat(plane, 4, axis=0), 4, axis=1) for plane in (hidden, alpha)]
    _, seen = correct_colours(Picture(wide[0], wide[1]), 1.0)
    _, plain = correct_colours(Picture(faded), 1.0)
    np.testing.assert_allclose(seen.contrast, plain.contrast, atol=0.15)


def test_densities_and_values_are_inverse() -> None:
    values = np.linspace(0.01, 1, 200)
    np.testing.assert_allclose(to_values(to_density(values)), values, atol=1e-9)


def test_the_fit_is_reproducible_and_finds_what_was_drawn(photos: dict[str, NDArray[np.uint8]]) -> None:
    few = [rgb[::4, ::4] for rgb in photos.values()]
    first, second = fit(few, seed=1), fit(few, seed=1)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["weights"], fit(few, seed=2)["weights"])
    drawn = [draw_fading(np.random.default_rng(seed)) for seed in range(50)]
    assert 10 < sum(fading.is_none for fading in drawn) < 30


def test_nothing_of_it_is_imported_unless_asked_for() -> None:
    code = "import sys, app.backends.local; sys.exit('app.restoration.colour_correction' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_backend_corrects_what_is_asked_and_says_what_it_found(photos: dict[str, NDArray[np.uint8]]) -> None:
    backend = open_local_backend(ROOT / "weights", device="cpu")
    faded = Picture(fade(photos["coffee"][:64, :64], CASES["magenta"]))
    results = {
        choice: backend.restore(
            faded,
            RestoreOptions(scale=1, face_enhance=False, color_correction=choice),
            lambda fraction, stage: True,
        )
        for choice in ("off", "auto")
    }
    assert "color_correction" not in results["off"].params
    said = results["auto"].params["color_correction"]
    assert said["faded"]
    assert said["strength"] == 1.0
    assert min(said["contrast"]) < 0.9
    change = results["auto"].picture.rgb.astype(int) - results["off"].picture.rgb
    assert np.abs(change).mean() > 4
