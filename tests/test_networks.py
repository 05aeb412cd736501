"""Networks as callables: the enlarging end in bands, and what stays in fp32."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from app.restoration.device import profile_of
from app.restoration.models import networks
from app.restoration.models.registry import load_module
from benchmarks.random_weights import random_state


@pytest.mark.parametrize("model", ["RealESRGAN_x4plus_anime_6B", "RealESRGAN_x2plus"])
@pytest.mark.parametrize("height", [65, 66, 128, 150])
def test_the_end_of_the_network_in_bands_gives_the_same_numbers(
    model: str, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, facts = load_module(random_state(model), "random")
    network = networks.build(model, module, facts, "cpu", "fp32")
    x = torch.rand(1, 3, height * facts.multiple, 24)
    in_bands = network(x)
    whole = dataclasses.replace(profile_of("cpu"), tail_band_rows=0)
    monkeypatch.setattr(networks, "profile_of", lambda device: whole)
    unbanded = networks.build(model, module, facts, "cpu", "fp32")
    assert (in_bands - unbanded(x)).abs().max() < 1e-5


def test_bands_that_reach_too_little_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: with one row of reach less the bands' borders differ."""
    module, facts = load_module(random_state("RealESRGAN_x4plus_anime_6B"), "random")
    network = networks.build("anime", module, facts, "cpu", "fp32")
    x = torch.rand(1, 3, 128, 24)
    right = network(x)
    monkeypatch.setattr(networks, "_BAND_REACH_ROWS", 1)
    assert (right - network(x)).abs().max() > 1e-5


@pytest.mark.parametrize("model", ["RealESRGAN_x4plus_anime_6B", "RealESRGAN_x2plus", "realesr-animevideov3"])
def test_a_run_tells_its_parts_up_to_the_end_and_none_of_them_is_a_large_part_of_the_work(model: str) -> None:
    """Another photo waits for one part at most, and a countdown goes by them."""
    module, facts = load_module(random_state(model), "random")
    told: list[float] = []
    networks.build(model, module, facts, "cpu", "fp32")(torch.rand(1, 3, 256, 32), told.append)
    steps = [after - before for before, after in itertools.pairwise([0.0, *told])]
    assert told[-1] == pytest.approx(1.0)
    assert min(steps) > 0.0
    assert max(steps) < 0.15


def test_few_blocks_leave_more_to_the_enlarging_end() -> None:
    shares = []
    for model in ("RealESRGAN_x4plus", "RealESRGAN_x4plus_anime_6B"):
        module, facts = load_module(random_state(model), "random")
        told: list[float] = []
        networks.build(model, module, facts, "cpu", "fp32")(torch.rand(1, 3, 16, 16), told.append)
        shares.append(told[-2])
    assert shares == pytest.approx([0.93, 0.78], abs=0.01)  # measured by time: 0.932 and 0.763
