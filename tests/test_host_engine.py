"""What the host loop does differently for a card: fixed tiles, shapes in steps, batches, and what it remembers.

It runs on the CPU with a card's profile; a card itself is shown the same by `benchmarks.cuda_check`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from app.images import Picture
from app.options import RestoreOptions
from app.restoration import host_engine, pipeline
from app.restoration.device import profile_of
from app.restoration.engine import Tiling
from app.restoration.host_engine import HostEngine, batch_for, tiling_for
from app.restoration.models.networks import Facts, Network, build
from app.restoration.models.registry import load_module
from app.restoration.pipeline import Restorer
from app.restoration.upscale import UpscalePlan, cut_grid, upscale
from benchmarks.random_weights import random_state

GIB = 2**30
COMPACT = Facts("compact", 2, 4, 0, 1, 1.0)
ESRGAN = Facts("esrgan", 4, 16, 8, 1, 36.0)


def enlarge(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def on_card(run: Callable[[Tensor], Tensor] = enlarge, facts: Facts = COMPACT) -> Network:
    def exact() -> Network:
        return on_card(run, facts)

    return Network("test", facts, "cpu", "bf16", lambda x, on_part: run(x), exact, profile_of("cuda:0"))


def go_on(_fraction: float) -> bool:
    return True


def pretend_total(monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    monkeypatch.setattr(host_engine, "total_memory_bytes", lambda device: total)
    monkeypatch.setattr(host_engine, "free_memory_bytes", lambda device: pytest.fail("what is free must not count"))


@pytest.mark.parametrize(
    ("facts", "total_gib", "tile", "batch"),
    [
        (COMPACT, 80, 1024, 4),
        (COMPACT, 8, 1024, 1),
        (COMPACT, 2, 512, 1),
        (ESRGAN, 80, 512, 4),
        (ESRGAN, 24, 512, 1),
        (ESRGAN, 16, 256, 2),
        (ESRGAN, 8, 256, 1),
        (ESRGAN, 4, 128, 2),
    ],
)
def test_tiles_follow_all_memory_of_a_card_not_what_is_free(
    facts: Facts, total_gib: int, tile: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_total(monkeypatch, total_gib * GIB)
    assert tiling_for(on_card(facts=facts)) == Tiling(tile, batch, step=32)


@pytest.mark.parametrize("size", [(900, 1300), (867, 4001), (512, 2000)])
def test_all_windows_of_a_card_measure_multiples_of_32(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_total(monkeypatch, 80 * GIB)
    chosen = tiling_for(on_card(facts=ESRGAN))
    grid = cut_grid(ESRGAN, size, chosen.tile, step=chosen.step, strict=chosen.strict)
    for spans, side in ((grid.rows, size[0]), (grid.columns, size[1])):
        assert len({span.length for span in spans}) == 1
        assert spans[0].length % 32 == 0 or spans[0].length == side
        assert spans[-1].start + spans[-1].length <= side


def test_small_windows_go_together_and_large_ones_alone() -> None:
    small, large = (cut_grid(COMPACT, (2000, 2000), tile, strict=True) for tile in (128, 512))
    assert (batch_for(small, 4), batch_for(large, 4)) == (4, 1)
    assert batch_for(cut_grid(COMPACT, (100, 100), 128, strict=True), 4) == 1


def test_out_of_memory_halves_the_batch_then_the_tile_and_the_engine_remembers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_total(monkeypatch, 80 * GIB)
    seen: list[tuple[int, int]] = []

    def hungry(x: Tensor) -> Tensor:
        seen.append((len(x), x.shape[2]))
        if x.shape[0] * x.shape[2] * x.shape[3] > 100 * 100:
            raise RuntimeError("GET was unable to find an engine to execute this computation")
        return enlarge(x)

    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    engine = HostEngine(on_card(hungry))
    result, report = upscale(engine, pixels, UpscalePlan((600, 600), tile=100), go_on)
    assert np.array_equal(result, pixels.repeat(2, 0).repeat(2, 1))
    assert [shape for place, shape in enumerate(seen) if shape not in seen[:place]] == [(3, 128), (1, 128), (1, 64)]
    assert (report.tile, report.restarts) == (50, 2)
    assert engine.tiling == Tiling(50, 1, step=32, strict=True)
    seen.clear()
    _, again = upscale(engine, pixels, UpscalePlan((600, 600), tile=100), go_on)
    assert (again.tile, again.restarts) == (50, 0)


def test_the_next_photo_is_cut_as_the_last_one_that_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"params": random_state("realesr-animevideov3")}, tmp_path / "own.pth")
    monkeypatch.setattr(pipeline, "profile_of", lambda device: profile_of("cuda:0"))
    restorer = Restorer(tmp_path, device="cpu", precision="fp32", allow_unverified=True)
    network = restorer.setup.registry.load(restorer.setup.registry.find("own"), None, "cpu", "fp32")
    run = network.run

    def hungry(x: Tensor, on_part: Callable[[float], None]) -> Tensor:
        if max(x.shape[2:]) > 85:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(x, on_part)

    object.__setattr__(network, "run", hungry)
    photo = Picture(np.random.default_rng(1).integers(0, 256, (60, 90, 3)).astype(np.uint8))
    records = [
        restorer.restore(photo, RestoreOptions(model="own"), lambda fraction, stage: True).params for _ in range(2)
    ]
    assert [record["out_of_memory_restarts"] for record in records] == [1, 0]
    assert records[0]["tile_size"] == records[1]["tile_size"] == 45


def test_the_exact_network_is_made_once() -> None:
    module, facts = load_module(random_state("realesr-animevideov3"), "random")
    network = build("model", module, facts, "cpu", "bf16")
    assert network.exact() is network.exact()
    assert network.exact().precision == "fp32"
