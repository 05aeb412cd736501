"""The inpainting of damage: holes, targets, a network that begins as the library's fill, its loss and its figures."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from app.restoration.repair.inpainting_network import WIDTHS, make_inpainting
from app.restoration.repair.segmentation_network import make_segmentation
from training.damage.fill_samples import LARGEST_SHARE, FillSamples, library_fill, make_fill_sample, wide_part
from training.damage.inpainting_task import InpaintingTask, PooledPsnr, correct, fill_loss
from training.damage.samples import crop
from training.damage.trainer import Trainer, train
from training.photos import is_held_out

TASK = InpaintingTask()
TINY = dataclasses.replace(TASK.recipe, steps=2, batch=2, side=64, warm_up_steps=1, widths=(8, 8, 8, 8, 8))
EXACT = torch.autocast("cpu", torch.bfloat16, enabled=False)
SIDE = 128


def a_photo(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(60, 180, (10, 14, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((196, 140), Image.Resampling.BICUBIC))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    kept_back = next(number for number in range(100, 200) if is_held_out(Path(f"photo{number}")))
    for number in (*range(4), kept_back):
        Image.fromarray(a_photo(number)).save(tmp_path / f"photo{number}.png")
    return tmp_path


def a_hole(width: int) -> np.ndarray:
    hole = np.zeros((64, 64), np.bool_)
    hole[12:52, 30 : 30 + width] = True
    return hole


def test_without_grain_a_scan_differs_from_its_target_in_the_hole_alone() -> None:
    for seed in range(8):
        rng = np.random.default_rng([seed, 1])
        sample = make_fill_sample(crop(a_photo(seed), SIDE, rng), rng, with_grain=False)
        assert sample.hole.mean() < LARGEST_SHARE + 0.2  # the margin comes on top
        apart = np.abs(sample.scan.astype(int) - sample.target).max(axis=2)
        assert np.mean(apart[~sample.hole] > 16) < 0.01, "the margin covers what the scanner's blur spreads"
        if sample.hole.any():
            assert apart[sample.hole].max() > 16


def test_with_grain_the_surroundings_have_it_and_the_target_has_not() -> None:
    apart = []
    for seed in range(8):
        pair = [
            make_fill_sample(crop(a_photo(seed), SIDE, rng), rng, with_grain)
            for with_grain in (False, True)
            for rng in [np.random.default_rng([seed, 2])]
        ]
        np.testing.assert_array_equal(pair[0].target, pair[1].target)
        apart.append(np.abs(pair[1].scan.astype(int) - pair[1].target)[~pair[1].hole].mean())
    assert min(apart) > 0.5


def test_equal_seeds_and_numbers_give_equal_holes(folder: Path) -> None:
    paths = sorted(folder.glob("*.png"))
    one, two = FillSamples(paths, 64, 1), FillSamples(paths, 64, 1)
    assert all(torch.equal(a, b) for a, b in zip(one[3], two[3], strict=True))
    assert not torch.equal(one[3][2], one[4][2])
    filled, hole, target = one[3]
    assert (filled.shape, hole.shape, target.shape) == ((3, 64, 64), (1, 64, 64), (3, 64, 64))


def test_the_wide_part_is_what_is_wider_than_six_pixels() -> None:
    assert not wide_part(a_hole(6)).any()
    wide = wide_part(a_hole(9))
    assert wide[20:44, 32:37].all()
    assert not (wide & ~a_hole(9)).any()


def test_the_library_fills_only_the_hole() -> None:
    scan = cv2.resize(a_photo(3), (64, 64))
    spoiled = np.where(a_hole(5)[:, :, None], np.uint8(255), scan)
    filled = library_fill(spoiled, a_hole(5))
    np.testing.assert_array_equal(filled[~a_hole(5)], scan[~a_hole(5)])
    assert np.abs(filled.astype(int) - scan).max() < 60


def test_an_untrained_network_gives_back_the_library_s_fill_and_a_trained_one_changes_the_hole_alone() -> None:
    network = make_inpainting(1).eval()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    both = parameters + sum(parameter.numel() for parameter in make_segmentation(1).parameters())
    assert 2 * both < 6e6, "bytes in half precision"
    assert len(WIDTHS) == 5
    picture = cv2.resize(a_photo(5), (71, 45))
    hole = np.zeros((45, 71), np.bool_)
    hole[10:30, 20:50] = True
    np.testing.assert_array_equal(correct(network, picture, hole, EXACT), picture)
    torch.nn.init.normal_(network.head.weight, std=0.1)
    changed = correct(network, picture, hole, EXACT)
    np.testing.assert_array_equal(changed[~hole], picture[~hole])
    assert np.abs(changed.astype(int) - picture)[hole].mean() > 1.0


def test_the_loss_looks_into_the_hole_alone() -> None:
    target = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    hole = torch.zeros(2, 1, 32, 32)
    hole[:, :, 8:16, 8:16] = 1.0
    assert float(fill_loss(target, target, hole)) < 3e-3
    assert float(fill_loss(target + (1.0 - hole), target, hole)) < 3e-3
    near, far = (float(fill_loss(target + amount * hole, target, hole)) for amount in (0.05, 0.1))
    assert 0.05 < near < far
    ripple = 0.1 * hole * torch.tensor([1.0, -1.0]).repeat(16)
    assert float(fill_loss(target + ripple, target, hole)) > far, "ripples cost more than a shift of equal size"


def test_psnr_is_pooled_over_all_pixels_of_all_holes() -> None:
    target, where = np.full((4, 4, 3), 100, np.uint8), np.ones((4, 4), np.bool_)
    small = np.zeros((4, 4), np.bool_)
    small[0] = True
    pooled = PooledPsnr()
    pooled.add({"one": target + np.uint8(10), "exact": target}, target, where)
    pooled.add({"one": target + np.uint8(20), "exact": target}, target, small)
    expected = 10 * math.log10(255**2 * 20 / (16 * 10**2 + 4 * 20**2))
    assert pooled.decibels() == {"one": pytest.approx(expected), "exact": 99.0}


def test_thirty_steps_on_one_hole_beat_the_library() -> None:
    recipe = dataclasses.replace(TINY, steps=30, learning_rate=5e-3, ema_decay=0.3)
    trainer = Trainer(TASK, recipe, "cpu", "fp32")
    hole = torch.from_numpy(a_hole(12))[None, None]
    target = torch.from_numpy(cv2.resize(a_photo(7), (64, 64)).transpose(2, 0, 1).copy())[None]
    filled = torch.where(hole, torch.full_like(target, 90), target)
    losses = [trainer.advance((filled, hole, target)) for _ in range(30)]
    assert losses[-1] < 0.6 * losses[0]


def test_a_training_logs_the_network_beside_both_libraries(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.damage.inpainting_task.CHECKED_SAMPLES", 3)
    out = tmp_path_factory.mktemp("run")
    recipe = dataclasses.replace(TINY, learning_rate=1e-4)
    trainer = train(TASK, folder, out, recipe, "cpu", "fp32", check_every=2, loaders=0)
    assert trainer.step == 2
    columns, row = ((out / "log.csv").read_text().splitlines()[line].split(",") for line in (0, 1))
    figures = dict(zip(columns, map(float, row), strict=True))
    assert {"network_db", "navier_stokes_db", "telea_db", "network_wide_db"} <= figures.keys()
    assert figures["network_db"] == pytest.approx(figures["navier_stokes_db"], abs=1.5), "it has only begun"
