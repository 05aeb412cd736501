"""The training recipe: what it shows the network, that a step teaches it, and that what it writes can be loaded."""

from __future__ import annotations

import dataclasses
import json
import random
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.restoration.models.networks import build
from app.restoration.models.registry import load_module
from app.restoration.reference.packages import is_available
from training import check, export
from training.activation import FastPReLU, quicken
from training.degradation import KINDS, SCALE, degrade
from training.losses import restoration_loss
from training.network import count_convolutions, deepened, make_network
from training.pages import draw_page
from training.pairs import Pairs
from training.photos import is_held_out, list_photos, split
from training.train import Recipe, Trainer, train

PATCH = 12

pytestmark = pytest.mark.skipif(not is_available(), reason="basicsr needs Python 3.11 or 3.12")


def a_photo(seed: int, height: int = 120, width: int = 180) -> np.ndarray:
    """Smooth structure with some detail, as photos have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 12, width // 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    kept_back = next(number for number in range(100, 200) if is_held_out(Path(f"photo{number}")))
    for number in (*range(8), kept_back):
        Image.fromarray(a_photo(number)).save(tmp_path / f"photo{number}.png")
    return tmp_path


@pytest.mark.parametrize(("precision", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_faster_prelu_is_torch_s_with_torch_s_gradients(precision: torch.dtype, bound: float) -> None:
    generator = torch.Generator().manual_seed(3)
    plain, quick = torch.nn.PReLU(8), torch.nn.Sequential(torch.nn.PReLU(8))
    with torch.no_grad():
        plain.weight.copy_(torch.linspace(-0.5, 1.2, 8))
    quick[0].load_state_dict(plain.state_dict())
    quicken(quick)
    assert isinstance(quick[0], FastPReLU)
    values = torch.randn(2, 8, 9, 7, generator=generator).to(memory_format=torch.channels_last)
    values[0, :, 0, 0] = 0.0
    arriving = torch.randn(2, 8, 9, 7, generator=generator).to(memory_format=torch.channels_last)
    seen = []
    for layer in (plain, quick):
        x = values.clone(memory_format=torch.preserve_format).to(precision).requires_grad_()
        y = layer(x) if precision is torch.float32 else torch.autocast("cpu", precision)(layer)(x)
        y.backward(arriving.to(y.dtype))
        gradients = [leaf.grad.float() for leaf in (x, *layer.parameters()) if leaf.grad is not None]
        assert len(gradients) == 2
        seen.append((y.detach().float(), *gradients))
    for ours, theirs in zip(seen[1], seen[0], strict=True):
        assert torch.linalg.vector_norm(ours - theirs) <= bound * torch.linalg.vector_norm(theirs)
    assert list(quick.state_dict()) == ["0.weight"]


def test_the_held_out_tenth_hangs_on_the_name_alone(folder: Path) -> None:
    seen, unseen = split(folder)
    assert sorted([*seen, *unseen]) == list_photos(folder)
    (folder / "another.png").write_bytes(seen[0].read_bytes())
    seen_later, unseen_later = split(folder)
    assert set(seen) <= set(seen_later)
    assert set(unseen) <= set(unseen_later)
    shares = [is_held_out(Path(f"{number}.jpg")) for number in range(2000)]
    assert 0.07 < sum(shares) / len(shares) < 0.13


def test_an_empty_folder_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="name a folder with"):
        split(tmp_path)
    Image.fromarray(a_photo(0)).save(tmp_path / "alone.png")
    with pytest.raises(ValueError, match="too few"):
        split(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_degraded_photo_is_four_times_smaller_and_still_the_same_photo(kind: str) -> None:
    photo = a_photo(1)
    small = degrade(photo, kind, random.Random(3))
    assert small.shape == (30, 45, 3)
    assert small.dtype == np.uint8
    back = np.asarray(Image.fromarray(small).resize((180, 120), Image.Resampling.BICUBIC))
    assert np.abs(back.mean(axis=(0, 1)) - photo.mean(axis=(0, 1))).max() < 12


def test_second_order_is_worse_than_light_and_light_is_worse_than_clean() -> None:
    photo = a_photo(2)
    clean = degrade(photo, "clean", random.Random(0)).astype(float)

    def distance(kind: str) -> float:
        random.seed(1)
        np.random.seed(1)
        rng = random.Random(1)
        return float(np.mean([np.abs(degrade(photo, kind, rng) - clean).mean() for _ in range(12)]))

    assert 0.5 < distance("light") < distance("second_order")


def test_equal_seeds_give_equal_pairs_and_other_seeds_do_not(folder: Path) -> None:
    def first(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        return next(iter(Pairs(list_photos(folder), PATCH, seed, pool=16)))

    low, high = first(5)
    assert low.shape == (3, PATCH, PATCH)
    assert high.shape == (3, PATCH * SCALE, PATCH * SCALE)
    again, other = first(5), first(6)
    assert torch.equal(low, again[0])
    assert torch.equal(high, again[1])
    assert not torch.equal(low, other[0])


def test_both_halves_of_a_pair_show_the_same_place(folder: Path) -> None:
    stream = iter(Pairs(list_photos(folder), PATCH, 7, pool=16))
    for _ in range(20):
        low, high = next(stream)
        shrunk = torch.nn.functional.avg_pool2d(high[None].float(), SCALE)[0]
        assert (shrunk.mean() - low.float().mean()).abs() < 20
        if shrunk.std() > 25:
            together = torch.corrcoef(torch.stack([shrunk.flatten(), low.float().flatten()]))[0, 1]
            assert together > 0.6


def test_pages_hold_dark_letters_and_flat_ground() -> None:
    pages = [draw_page(96, random.Random(seed)) for seed in range(8)]
    assert all(page.shape == (96, 96, 3) for page in pages)
    assert np.mean([page.std() for page in pages]) > 20


def test_the_loss_sees_blur_more_than_its_pixel_term_does() -> None:
    target = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert restoration_loss(target, target) < 3e-3
    assert restoration_loss(target.roll(1, 3), target) > restoration_loss(target * 0.98, target)
    grey, coloured = torch.full_like(target, 0.05), torch.full_like(target, 0.05)
    coloured[:, 2] *= -1  # blue the other way: as far from the target, but nearer in luma
    assert restoration_loss(target + grey, target) > 1.05 * restoration_loss(target + coloured, target)


def test_a_training_leaves_its_figures_and_goes_on_after_a_stop(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("run")
    recipe = Recipe(steps=4, batch=2, patch=PATCH, warm_up_steps=1, pool=16, convolutions=4)
    first = train(folder, out, recipe, "cpu", "fp32", check_every=2, loaders=0)
    assert first.step == 4
    rows = (out / "log.csv").read_text().splitlines()
    assert rows[0].split(",") == ["step", "hours", "loss", *(f"{kind}_gain_db" for kind in check.KINDS)]
    assert (out / "curve.png").exists() or find_spec("matplotlib") is None
    assert [row.split(",")[0] for row in rows[1:]] == ["2", "4"]
    assert json.loads((out / "recipe.json").read_text())["photos"] == len(split(folder)[0])
    longer = train(folder, out, dataclasses.replace(recipe, steps=6), "cpu", "fp32", check_every=2, loaders=0)
    assert longer.step == 6
    assert [row.split(",")[0] for row in (out / "log.csv").read_text().splitlines()[1:]] == ["2", "4", "6"]


def test_thirty_steps_on_one_batch_learn_it() -> None:
    trainer = Trainer(Recipe(steps=30, batch=1, patch=PATCH, warm_up_steps=1, convolutions=8), "cpu", "fp32")
    photo = a_photo(3, PATCH * SCALE, PATCH * SCALE)
    high = torch.from_numpy(photo.transpose(2, 0, 1).copy())[None]
    low = torch.from_numpy(degrade(photo, "clean", random.Random(0)).transpose(2, 0, 1).copy())[None]
    losses = [trainer.update_retry_after(low, high) for _ in range(30)]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("convolutions", [3, 5, 8])
def test_a_deeper_network_begins_as_the_same_function(convolutions: int) -> None:
    network = make_network(2, features=8, convolutions=3)
    with torch.no_grad():
        for parameter in network.parameters():  # no two slopes or biases alike, so that a mix-up shows
            parameter.add_(
                0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    deeper = make_network(3, features=8, convolutions=convolutions)
    deeper.load_state_dict(deepened(network.state_dict(), convolutions))
    x = torch.rand(1, 3, 9, 11)
    torch.testing.assert_close(deeper(x), network(x))
    assert count_convolutions(deeper.state_dict()) == convolutions
    with pytest.raises(ValueError, match="not for 2"):
        deepened(network.state_dict(), 2)


def test_a_training_can_start_from_an_earlier_shallower_one(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out, later = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("later")
    recipe = Recipe(steps=2, batch=2, patch=PATCH, warm_up_steps=1, pool=16, convolutions=2)
    first = train(folder, out, recipe, "cpu", "fp32", check_every=2, loaders=0)
    deeper = Trainer(dataclasses.replace(recipe, convolutions=4), "cpu", "fp32")
    deeper.start_from(out / "checkpoint.pt")
    small = a_photo(5, 24, 36)
    np.testing.assert_array_equal(deeper.enlarge(small), first.enlarge(small))
    assert deeper.step == 0
    assert deeper.recipe.started_from.startswith("2 convolutions, 2 steps")
    grown = dataclasses.replace(recipe, convolutions=4)
    train(folder, later, grown, "cpu", "fp32", check_every=2, loaders=0, start_from=out / "checkpoint.pt")
    again = train(folder, later, dataclasses.replace(grown, steps=4), "cpu", "fp32", 2, 0, out / "checkpoint.pt")
    assert again.step == 4, "a stopped training goes on, and does not start from the earlier one again"
    target = export.export(later / "checkpoint.pt", later / "grown.safetensors", "photos", None)
    from safetensors import safe_open

    with safe_open(target, "pt") as file:
        assert "4 convolutions" in file.metadata()["architecture"]
        assert json.loads(file.metadata()["recipe"])["started_from"].startswith("2 convolutions")


def test_what_is_exported_is_what_was_trained(tmp_path: Path) -> None:
    trainer = Trainer(Recipe(steps=2, batch=1, patch=PATCH), "cpu", "fp32")
    trainer.average.module.load_state_dict(make_network(9).state_dict())
    trainer.save(tmp_path / "checkpoint.pt")
    target = export.export(tmp_path / "checkpoint.pt", tmp_path / "small.safetensors", "two photos", None)
    assert target.stat().st_size < 3 * 1000 * 1000
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(target, "pt") as file:
        facts = file.metadata()
    assert {"recipe", "data", "seed", "steps", "metrics", "architecture"} <= facts.keys()
    module, network_facts = load_module(load_file(target), target.name)
    assert network_facts.scale == SCALE
    small = a_photo(4, 24, 36)
    x = torch.from_numpy(small.transpose(2, 0, 1).copy())[None].float() / 255
    ours = build("small", module, network_facts, "cpu", "fp32")(x)
    assert torch.nn.functional.mse_loss(ours, trainer.average.module(x).detach()) < 1e-6


def test_bicubic_measured_against_itself_gains_nothing() -> None:
    from app.evaluation.degradation import bicubic_up

    for kind in check.KINDS:
        gain = check.measure(a_photo(6), kind, lambda small: bicubic_up(small, SCALE))
        assert gain.gain_db == 0.0
        assert gain.gain_ssim == 0.0


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth() -> None:
    recipe = Recipe(steps=1000, warm_up_steps=100, learning_rate=1.0)
    assert recipe.rate(0) == pytest.approx(0.01)
    assert recipe.rate(100) == pytest.approx(1.0)
    assert recipe.rate(1000) == pytest.approx(0.01)
    assert all(recipe.rate(step) > recipe.rate(step + 1) for step in range(100, 1000))
