"""The segmentation of damage: the network's shapes, the loss, the figures, resuming, and a training of seconds."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.evaluation.damage.agreement import Agreement, agreement
from app.restoration.faces.detection import fuse_batch_norms
from app.restoration.repair.inference import probabilities
from app.restoration.repair.segmentation_network import (
    MULTIPLE,
    WIDTHS,
    DamageSegmentation,
    load_segmentation,
    make_segmentation,
    with_both_passes,
    without_shared,
)
from tests.test_imports import ROOT
from training.damage.export import export
from training.damage.finder import Finder
from training.damage.losses import (
    SPECK_WEIGHT,
    clean_price,
    dice_loss,
    segmentation_loss,
    speck_weight,
    tolerant_dice_loss,
)
from training.damage.segmentation_task import SegmentationTask
from training.damage.trainer import Batch, Trainer, averaged_network, train, widened
from training.photos import is_held_out

TASK = SegmentationTask()
TINY = dataclasses.replace(TASK.recipe, steps=4, batch=2, side=64, warm_up_steps=1, widths=(8, 8, 8, 8, 8))
EXACT = torch.autocast("cpu", torch.bfloat16, enabled=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    kept_back = next(number for number in range(100, 200) if is_held_out(Path(f"photo{number}")))
    for number in (*range(6), kept_back):
        coarse = np.random.default_rng(number).integers(60, 180, (10, 14, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((196, 140), Image.Resampling.BICUBIC)
        picture.save(tmp_path / f"photo{number}.png")
    return tmp_path


def test_the_network_is_small_and_fully_convolutional() -> None:
    network = make_segmentation(1).eval()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert 0.5e6 < parameters < 1.4e6
    assert min(WIDTHS) >= 16
    with torch.inference_mode():
        for height, width in ((MULTIPLE, MULTIPLE), (2 * MULTIPLE, 3 * MULTIPLE)):
            assert network(torch.rand(2, 3, height, width)).shape == (2, 1, height, width)
        found = probabilities(network, torch.rand(1, 3, 45, 71))
    assert found.shape == (45, 71)
    assert found.mean() < 0.1, "an untrained network starts near the share of damage"


def test_a_picture_is_looked_at_turned_by_half_a_circle_too() -> None:
    network = make_segmentation(2, TINY.widths).eval()
    torch.nn.init.normal_(network.head.weight, std=0.5)
    scan = torch.rand(1, 3, MULTIPLE, 2 * MULTIPLE)
    with torch.inference_mode():
        found = probabilities(network, scan)
        looks = [network(scan), network(scan.flip(2, 3)).flip(2, 3)]
        sides = ((), (3,))
        one, mirrored = (probabilities(network, each, sides) for each in (scan, scan.flip(3)))
    torch.testing.assert_close(found, torch.stack(looks).mean(0)[0, 0].sigmoid())
    assert (looks[0] - looks[1]).abs().max() > 0.05  # the network itself has a left and a right
    torch.testing.assert_close(one.flip(1), mirrored)


def test_a_widened_network_computes_what_the_narrower_one_does() -> None:
    widths = (16, 12, 24, 20, 8)
    narrow, wide = make_segmentation(1, (8, 12, 16, 20, 8)).eval(), make_segmentation(2, widths).eval()
    scan = torch.rand(1, 3, MULTIPLE, MULTIPLE)
    with torch.no_grad():
        for buffer in narrow.buffers():
            buffer.add_((0.5 * torch.rand(buffer.shape)).to(buffer.dtype))  # as a training leaves them
        torch.nn.init.normal_(narrow.head.weight, std=0.5)
        assert (narrow(scan) - wide(scan)).abs().max() > 0.5
        wide.load_state_dict(widened(narrow.state_dict(), wide.state_dict()))
        torch.testing.assert_close(narrow(scan), wide(scan))
    grown = wide.state_dict()["down.2.layers.0.weight"]
    assert (grown[16:].abs().amax(dim=(1, 2, 3)) > 0.0).all()  # new channels can learn


def a_trained_network(seed: int) -> DamageSegmentation:
    """With norms that differ between the passes and something to feed back."""
    network = make_segmentation(seed, TINY.widths).eval()
    with torch.no_grad():
        for buffer in network.buffers():
            buffer.add_((0.5 * torch.rand(buffer.shape)).to(buffer.dtype))
    for layer in (network.head, network.feedback):
        torch.nn.init.normal_(layer.weight, std=0.5)
    return network


def test_the_second_pass_has_the_convolutions_of_the_first_which_a_file_holds_once() -> None:
    network, scan = a_trained_network(6), torch.rand(1, 3, MULTIPLE, MULTIPLE)
    kept = without_shared(network.state_dict())
    assert sum(value.numel() for value in kept.values() if value.ndim == 4) == sum(
        value.numel() for value in network.parameters() if value.ndim == 4
    )
    again = load_segmentation(kept)
    with torch.inference_mode():
        first, second = network.in_passes(scan)
        assert (first - second).abs().max() > 0.1
        torch.testing.assert_close(again(scan), second, rtol=0.0, atol=0.0)
        fuse_batch_norms(again)
        torch.testing.assert_close(again(scan), second, rtol=1e-4, atol=1e-4)


def test_the_second_pass_of_a_network_that_had_one_changes_nothing() -> None:
    network, scan = a_trained_network(7), torch.rand(1, 3, MULTIPLE, MULTIPLE)
    earlier = {
        name: value for name, value in network.state_dict().items() if not re.match(r"\w+_again\.|feedback\.", name)
    }
    with torch.inference_mode():
        first, _ = network.in_passes(scan)
        repeated = load_segmentation(earlier).in_passes(scan)
    for logits in repeated:
        torch.testing.assert_close(logits, first, rtol=0.0, atol=0.0)
    assert with_both_passes(earlier).keys() == network.state_dict().keys()


def test_equal_seeds_give_equal_networks_and_leave_torch_s_own_seed_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = (make_segmentation(seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_the_network_sees_far_enough_to_follow_a_line() -> None:
    network = make_segmentation(2, (8, 8, 8, 8, 8)).eval()
    x = torch.rand((1, 3, 512, 512), generator=torch.Generator().manual_seed(0), requires_grad=True)
    network(x)[0, 0, 256, 256].backward()
    assert x.grad is not None
    reached = x.grad.abs().sum(dim=1)[0] > 0
    assert reached.any(dim=0).sum() > 450  # columns; 376 without the dilated context


def marks(*columns: int) -> torch.Tensor:
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[:, :, 4:28, list(columns)] = True
    return mask


def test_the_loss_falls_from_nothing_found_to_all_found() -> None:
    truth, nothing = marks(8, 9, 10), torch.zeros(1, 1, 32, 32, dtype=torch.bool)

    def loss(logits: torch.Tensor, mask: torch.Tensor, unsure: torch.Tensor = nothing) -> float:
        return float(segmentation_loss(logits, mask, unsure))

    perfect, half = 16.0 * truth.float() - 8.0, 16.0 * marks(8).float() - 8.0
    none = torch.full_like(perfect, -8.0)
    assert loss(perfect, truth) < 0.02 < loss(half, truth) < loss(none, truth)
    assert loss(none, nothing) < 0.01
    marked = 16.0 * marks(20).float() - 8.0
    assert loss(marked, nothing) > loss(none, nothing) + 0.5, "a mark on an undamaged picture costs"
    assert loss(marked, nothing, marks(20)) < 0.01, "where damage cannot be seen a mark is free"


def test_the_parts_of_the_loss_have_their_known_values() -> None:
    mask = marks(8).float()
    every = torch.ones_like(mask)
    assert dice_loss(mask, mask, every).item() == pytest.approx(0.0)
    assert dice_loss(torch.zeros_like(mask), mask, every).item() == pytest.approx(1.0 - 1.0 / 25.0)
    dots = torch.zeros(1, 1, 32, 32)
    dots[0, 0, 3, :2] = 1.0
    assert clean_price(dots).item() == pytest.approx(2.0 / 5.0)  # five pixels are the most suspicious 0.5 %


def test_a_mark_two_pixels_beside_a_line_is_right_for_the_tolerant_part_of_the_loss() -> None:
    line, every = marks(8).float(), torch.ones(1, 1, 32, 32)
    losses = [tolerant_dice_loss(marks(column).float(), line, every).item() for column in (8, 10, 11)]
    assert losses[:2] == pytest.approx([0.0, 0.0])
    assert losses[2] > 0.9
    undamaged = torch.zeros_like(line)
    both = tolerant_dice_loss(*(torch.cat(pair) for pair in ((line, line), (line, undamaged), (every, every))))
    assert both.item() == pytest.approx(0.0), "marks on an undamaged picture are priced elsewhere"
    aside = marks(20).float()
    assert tolerant_dice_loss(line + aside, line, 1.0 - aside).item() == pytest.approx(0.0)


def test_marks_within_two_pixels_are_right_and_others_are_not() -> None:
    truth = np.zeros((20, 20), np.bool_)
    truth[10, 3:17] = True
    nothing = np.zeros_like(truth)
    assert agreement(np.roll(truth, 2, axis=0), truth, nothing).f1 == 1.0
    assert agreement(np.roll(truth, 3, axis=0), truth, nothing).f1 == 0.0
    half = truth.copy()
    half[:, 10:] = False
    found = agreement(half, truth, nothing)
    assert (found.precision, found.damaged) == (1.0, 14)
    assert found.recall == pytest.approx(9 / 14)  # seven, and two more within the tolerance
    aside = np.roll(truth, 6, axis=0)
    assert agreement(truth | aside, truth, nothing).precision == 0.5
    assert agreement(truth | aside, truth, aside).precision == 1.0
    assert agreement(nothing, truth, nothing) == Agreement(0, 0, 14, 0)
    assert agreement(nothing, nothing, nothing).f1 == 1.0


def test_a_mark_keeps_its_faint_ends_and_faint_marks_alone_are_dropped() -> None:
    finder = Finder(make_segmentation(1), EXACT)
    probability = np.zeros((12, 12), np.float32)
    probability[2, 2:9] = [0.45, 0.45, 0.6, 0.45, 0.45, 0.2, 0.45]
    probability[8, 2:9] = 0.45
    expected = np.zeros((12, 12), np.bool_)
    expected[2, 2:7] = True
    np.testing.assert_array_equal(finder.mark(probability, 0.5), expected)


def test_a_lonely_speck_weighs_more_than_a_line_and_a_wide_crack() -> None:
    target = torch.zeros(1, 1, 64, 192)
    target[0, 0, 20:22, 20:22] = 1.0  # a speck
    target[0, 0, :, 90:92] = 1.0  # a line of two pixels
    target[0, 0, :, 140:160] = 1.0  # a wide crack
    weight = speck_weight(target)[0, 0]
    assert weight[20, 20] == SPECK_WEIGHT > weight[30, 90] > 1.0 == weight[30, 150]
    missed = torch.full_like(target, -3.0)
    only_speck = torch.zeros_like(target)
    only_speck[0, 0, 20:22, 20:22] = 1.0
    nothing = torch.zeros_like(target, dtype=torch.bool)
    light = segmentation_loss(missed[..., 60:], only_speck[..., 60:].bool(), nothing[..., 60:])
    assert segmentation_loss(missed, only_speck.bool(), nothing) > light


def test_a_stopped_training_ends_as_an_uninterrupted_one(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole, parts = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("parts")
    straight = train(TASK, folder, whole, TINY, "cpu", "fp32", check_every=2, loaders=0)
    batches_seen = _stop_after(folder, parts, steps=2)
    assert batches_seen == 2
    resumed = train(TASK, folder, parts, TINY, "cpu", "fp32", check_every=2, loaders=1)
    assert resumed.step == straight.step == 4
    for part in ("network", "average"):
        one, two = getattr(straight, part).state_dict(), getattr(resumed, part).state_dict()
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=1e-5, atol=1e-6)
    rows = (parts / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "2", "4"]
    assert json.loads((parts / "recipe.json").read_text())["photos"] == 6


def test_an_exported_network_is_trained_on_and_says_so(folder: Path, tmp_path: Path) -> None:
    first = train(TASK, folder, tmp_path / "first", TINY, "cpu", "fp32", check_every=4, loaders=0)
    shipped = export(tmp_path / "first" / "checkpoint.pt", tmp_path / "shipped.safetensors", "photos", None)
    begun = Trainer(TASK, TINY, "cpu", "fp32")
    begun.start_from(shipped)
    for name, value in first.average.module.state_dict().items():
        torch.testing.assert_close(begun.network.state_dict()[name], value, rtol=2e-3, atol=2e-3)
    assert begun.step == 0
    later = tmp_path / "later"
    twice = train(TASK, folder, later, TINY, "cpu", "fp32", 4, 0, shipped)
    assert twice.recipe.started_from.startswith("4 steps, ")
    resumed = train(TASK, folder, later, dataclasses.replace(TINY, steps=6), "cpu", "fp32", 2, 0, shipped)
    assert (resumed.step, resumed.recipe.started_from) == (6, twice.recipe.started_from)
    again = Trainer(TASK, TINY, "cpu", "fp32")
    again.start_from(export(later / "checkpoint.pt", tmp_path / "second.safetensors", "photos", None))
    assert again.recipe.started_from.startswith(f"{twice.recipe.started_from} + 6 steps, ")


def _stop_after(folder: Path, out: Path, steps: int) -> int:
    """A training that is broken off after its checkpoint at a step."""

    class Stopped(Exception):
        pass

    taken = 0
    advance = Trainer.advance

    def counted(self: Trainer, batch: Batch) -> float:
        nonlocal taken
        if taken == steps:
            raise Stopped
        taken += 1
        return advance(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "advance", counted)
        with pytest.raises(Stopped):
            train(TASK, folder, out, TINY, "cpu", "fp32", check_every=2, loaders=0)
    return taken


def test_forty_steps_learn_to_find_a_line_and_leave_a_clean_picture() -> None:
    recipe = dataclasses.replace(TINY, steps=40, learning_rate=1e-2, ema_decay=0.5)
    trainer = Trainer(TASK, recipe, "cpu", "fp32")
    scans = torch.full((2, 3, 64, 64), 90, dtype=torch.uint8)
    mask = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    mask[0, :, 10:54, 30:33] = True
    scans[0, :, 10:54, 30:33] = 220
    losses = [trainer.advance((scans, mask, torch.zeros_like(mask))) for _ in range(40)]
    assert losses[-1] < 0.25 * losses[0]
    finder = Finder(trainer.average.module, EXACT)
    found, clean = (finder(scan.permute(1, 2, 0).numpy()) > 0.5 for scan in scans)
    assert agreement(found, mask[0, 0].numpy(), np.zeros_like(found)).f1 > 0.9
    assert clean.mean() < 0.01


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth() -> None:
    recipe = dataclasses.replace(TINY, steps=1000, warm_up_steps=100, learning_rate=1.0)
    assert recipe.rate(0) == pytest.approx(0.01)
    assert recipe.rate(100) == pytest.approx(1.0)
    assert recipe.rate(1000) == pytest.approx(0.01)


def test_a_checkpoint_is_evaluated_from_the_command_line(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("run")
    trainer = train(TASK, folder, out, TINY, "cpu", "fp32", check_every=4, loaders=0)
    network = averaged_network(TASK, out / "checkpoint.pt")
    expected = trainer.average.module.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    scan = out / "a_scan.png"
    Image.fromarray(np.full((70, 90, 3), 120, np.uint8)).save(scan)
    sheets, figures = out / "sheets", out / "figures.json"
    command = [sys.executable, "-m", "training.damage.evaluate", str(out / "checkpoint.pt"), "--photos", str(folder)]
    options = ["--samples", "1", "--scans", str(scan), "--sheets", str(sheets), "--json", str(figures)]
    subprocess.run([*command, *options, "--device", "cpu", "--precision", "fp32"], cwd=ROOT, check=True, timeout=300)
    facts = json.loads(figures.read_text())["0.5"]
    assert {"percolation_crack", "lint", "thin, cracks and dust", "all"} <= facts["damaged"].keys()
    assert {"held-out photos", "scikit-image", "text pages", "line drawings", "all"} <= facts["undamaged"].keys()
    assert all(0.0 <= row["f1"] <= 1.0 for row in facts["damaged"].values())
    with Image.open(sheets / "scan_a_scan.png") as sheet:
        assert sheet.size == (3 * 90, 70)
    assert {"crease.png", "lint.png"} <= {path.name for path in sheets.iterdir()}
