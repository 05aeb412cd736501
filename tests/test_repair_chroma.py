"""Colour that JPEG has thinned beside damage: it is not taken up, and what is the picture's own colour stays."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.images import Pixels
from app.restoration.repair import chroma_bleeding, filling
from app.restoration.repair.chroma_bleeding import without_bleeding
from app.restoration.repair.diffusion_inpainting import diffusion_fill
from app.restoration.repair.filling import fill

BROWN = (150, 125, 85)
Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def a_cracked_print() -> tuple[Rgb, Mask, Mask]:
    """A brown print with grain and white damage as JPEG keeps it, what is marked of that, and all of it."""
    grain = np.random.default_rng(4).normal(0, 5, (160, 200, 1))
    print_ = np.clip(np.array(BROWN) + grain, 0, 255).astype(np.uint8)
    damage = np.zeros((160, 200), np.uint8)
    cv2.circle(damage, (60, 50), 6, 1, -1)
    cv2.line(damage, (100, 20), (170, 140), 1, 3)
    scan = np.where(damage[:, :, None] == 1, np.uint8(245), print_)
    file = io.BytesIO()
    Image.fromarray(scan).save(file, "JPEG", quality=60, subsampling="4:2:0")
    grown = cv2.dilate(damage, np.ones((3, 3), np.uint8)) == 1
    return np.asarray(Image.open(file)), grown, cv2.dilate(damage, np.ones((31, 31), np.uint8)) == 1


def redness(rgb: Pixels, where: Mask) -> float:
    """Red less blue: how brown it is."""
    return float((rgb[where, 0].astype(int) - rgb[where, 2]).mean())


def test_a_filled_crack_of_a_toned_print_is_no_grey_spot(monkeypatch: pytest.MonkeyPatch) -> None:
    scan, mask, near = a_cracked_print()
    around = redness(scan, ~near)
    assert redness(fill(scan, mask, with_grain=False), mask) > 0.95 * around
    monkeypatch.setattr(filling, "without_bleeding", lambda plane, hole: plane)
    assert redness(fill(scan, mask, with_grain=False), mask) < 0.9 * around, "the scan is one where colour bled"


def test_light_stays_as_it_was_filled_and_outside_nothing_changes() -> None:
    scan, mask, _ = a_cracked_print()
    filled = diffusion_fill(scan.astype(np.float32) / np.float32(255), mask)
    colored = without_bleeding(filled, mask)
    assert (colored != filled).any(axis=2)[mask].mean() > 0.5
    np.testing.assert_array_equal(colored[~mask], filled[~mask])
    before, after = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (filled, colored))
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize(
    ("beside", "beyond"),
    [((0.5, 0.5, 0.5), (0.6, 0.5, 0.35)), ((0.52, 0.56, 0.38), (0.6, 0.5, 0.35)), ((0.6, 0.1, 0.1), (0.9, 0.05, 0.05))],
    ids=["grey beside brown", "another hue", "vivid"],
)
def test_the_colours_of_the_picture_itself_stay(
    beside: tuple[float, float, float], beyond: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chroma_bleeding, "UNEVEN_TOLERANCE", 9.0)  # each is to be told by itself
    picture = np.empty((60, 80, 3), np.float32)
    picture[:], picture[:, 34:46] = beyond, beside
    hole = np.zeros((60, 80), np.bool_)
    hole[:, 37:43] = True
    filled = diffusion_fill(picture, hole)
    np.testing.assert_allclose(without_bleeding(filled, hole), filled, atol=1e-6)


def test_colours_that_differ_from_place_to_place_are_believed_near_the_hole_alone() -> None:
    rng = np.random.default_rng(6)
    patches = rng.uniform(0.35, 0.6, (12, 16, 3)).astype(np.float32)
    picture = np.repeat(np.repeat(patches, 5, axis=0), 5, axis=1)
    hole = np.zeros((60, 80), np.bool_)
    hole[28:31, 5:75] = True
    filled = diffusion_fill(picture, hole)
    np.testing.assert_allclose(without_bleeding(filled, hole), filled, atol=1e-6)


def test_a_plane_of_one_channel_comes_back_as_it_is() -> None:
    plane = np.random.default_rng(1).random((20, 30, 1), np.float32)
    assert without_bleeding(plane, np.ones((20, 30), np.bool_)) is plane
