"""Running a network over a plane: tiles, checks, the way out of memory trouble, cancelling."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from app.errors import Cancelled, Internal, OutOfMemory
from app.restoration.device import profile_of
from app.restoration.engine import Grid, Plane, Rows
from app.restoration.host_engine import HostEngine
from app.restoration.models.networks import Facts, Network, build
from app.restoration.models.registry import load_module
from app.restoration.upscale import UpscalePlan, upscale
from app.stages import OnFraction
from benchmarks.random_weights import random_state
from tests.timing import needs_bf16

FACTS = Facts("compact", scale=2, context=2, blend=0, multiple=1, work=1.0)


def make_network(run: Callable[[Tensor], Tensor], exact: Callable[[Tensor], Tensor] | None = None) -> Network:
    """A network of our border whose arithmetic is known: what surrounds it is under test, not the network."""

    def in_fp32() -> Network:
        return Network("exact", FACTS, "cpu", "fp32", lambda x, on_part: (exact or run)(x), in_fp32, profile_of("cpu"))

    return Network("test", FACTS, "cpu", "bf16", lambda x, on_part: run(x), in_fp32, profile_of("cpu"))


def enlarge(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def go_on(fraction: float) -> bool:
    return True


def noise(height: int, width: int, dtype: Any = np.uint8) -> NDArray[Any]:
    peak = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, peak, (height, width, 3), endpoint=True).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("tile", [0, 32, 50])
def test_values_pass_through_tiles_unchanged(dtype: Any, tile: int) -> None:
    pixels = noise(131, 77, dtype)
    result, report = upscale(HostEngine(make_network(enlarge)), pixels, UpscalePlan((262, 154), tile), go_on)
    np.testing.assert_array_equal(result, pixels.repeat(2, 0).repeat(2, 1))
    assert result.dtype == dtype
    assert report.tiles == (1 if tile == 0 else -(-131 // tile) * -(-77 // tile))


def test_one_pixel_is_a_picture() -> None:
    result, _ = upscale(HostEngine(make_network(enlarge)), noise(1, 1), UpscalePlan((2, 2)), go_on)
    assert result.shape == (2, 2, 3)


def test_grey_becomes_the_luma_of_the_three_channels() -> None:
    pixels = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    result, _ = upscale(HostEngine(make_network(enlarge)), pixels, UpscalePlan((16, 16), grey=True), go_on)
    assert result.shape == (16, 16, 1)
    assert (result == 76).all()


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_tile_with_unusable_numbers_is_done_again_in_fp32(poison: float) -> None:
    def broken(x: Tensor) -> Tensor:
        out = enlarge(x)
        out[:, 1, 3, 3] = poison
        return out

    pixels = noise(40, 40)
    result, report = upscale(HostEngine(make_network(broken, enlarge)), pixels, UpscalePlan((80, 80)), go_on)
    np.testing.assert_array_equal(result, pixels.repeat(2, 0).repeat(2, 1))
    assert report.redone_in_fp32 == 1


def test_a_flat_tile_from_a_lively_photo_is_done_again_in_fp32() -> None:
    pixels = noise(40, 40)
    black = make_network(lambda x: torch.zeros_like(enlarge(x)), enlarge)
    result, report = upscale(HostEngine(black), pixels, UpscalePlan((80, 80), 32), go_on)
    np.testing.assert_array_equal(result, pixels.repeat(2, 0).repeat(2, 1))
    assert report.redone_in_fp32 == report.tiles == 4


def test_a_flat_tile_of_a_flat_photo_is_fine() -> None:
    pixels = np.full((40, 40, 3), 9, np.uint8)
    _, report = upscale(HostEngine(make_network(enlarge)), pixels, UpscalePlan((80, 80)), go_on)
    assert report.redone_in_fp32 == 0


def test_numbers_unusable_in_fp32_too_end_in_an_error_and_no_picture() -> None:
    with pytest.raises(Internal) as caught:
        upscale(
            HostEngine(make_network(lambda x: enlarge(x) * float("nan"))), noise(40, 40), UpscalePlan((80, 80)), go_on
        )
    assert caught.value.code == "bad_network_output"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_tile_and_starts_the_photo_again(error: Exception) -> None:
    seen: list[tuple[int, ...]] = []

    def hungry(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape[2:]))
        if max(x.shape[2:]) > 60:
            raise error
        return enlarge(x)

    pixels = noise(200, 150)
    result, report = upscale(HostEngine(make_network(hungry)), pixels, UpscalePlan((400, 300)), go_on)
    np.testing.assert_array_equal(result, pixels.repeat(2, 0).repeat(2, 1))
    assert report.restarts == 2
    assert report.tile == 50
    assert max(seen[-1]) <= 60


def test_out_of_memory_midway_leaves_no_stale_tile() -> None:
    calls = 0

    def fails_on_third(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return enlarge(x)

    pixels = noise(200, 330)
    result, report = upscale(HostEngine(make_network(fails_on_third)), pixels, UpscalePlan((400, 660), 100), go_on)
    np.testing.assert_array_equal(result, pixels.repeat(2, 0).repeat(2, 1))
    assert report.tile == 50


def test_the_smallest_tile_out_of_memory_is_a_named_error() -> None:
    def never(x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemory) as caught:
        upscale(HostEngine(make_network(never)), noise(100, 100), UpscalePlan((200, 200)), go_on)
    assert caught.value.code == "out_of_memory"


def test_another_error_of_the_network_is_not_swallowed() -> None:
    def wrong(x: Tensor) -> Tensor:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        upscale(HostEngine(make_network(wrong)), noise(10, 10), UpscalePlan((20, 20)), go_on)


def test_cancel_stops_within_one_tile() -> None:
    runs = 0

    def count(x: Tensor) -> Tensor:
        nonlocal runs
        runs += 1
        return enlarge(x)

    with pytest.raises(Cancelled):
        upscale(
            HostEngine(make_network(count)), noise(200, 200), UpscalePlan((400, 400), 50), lambda fraction: runs < 3
        )
    assert runs == 3


def test_progress_rises_to_one_with_every_tile() -> None:
    told: list[float] = []

    def note(fraction: float) -> bool:
        told.append(fraction)
        return True

    upscale(HostEngine(make_network(enlarge)), noise(100, 100), UpscalePlan((200, 200), 50), note)
    assert told == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("model", ["realesr-general-x4v3", "RealESRGAN_x4plus_anime_6B"])
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
def test_a_long_tile_tells_how_far_it_is_and_can_be_stopped(model: str, precision: str) -> None:
    module, facts = load_module(random_state(model), "random")
    network = build(model, module, facts, "cpu", precision)
    told: list[float] = []

    def on_tile(fraction: float) -> bool:
        told.append(fraction)
        return len(told) < 13

    def note(fraction: float) -> bool:
        told.append(fraction)
        return True

    upscale(HostEngine(network), noise(40, 40), UpscalePlan((160, 160), 20), note)
    assert told == sorted(told)
    assert len(told) >= 4 * 5
    assert told[-1] == 1.0
    told.clear()
    with pytest.raises(Cancelled):
        upscale(HostEngine(network), noise(40, 40), UpscalePlan((160, 160), 20), on_tile)
    assert told[-1] not in (0.25, 0.5, 0.75, 1.0), "stopped between the ends of two tiles"


def test_the_self_ensemble_undoes_each_of_its_eight_turns() -> None:
    runs = 0

    def count(x: Tensor) -> Tensor:
        nonlocal runs
        runs += 1
        return enlarge(x)

    pixels = noise(33, 47)
    result, _ = upscale(HostEngine(make_network(count)), pixels, UpscalePlan((66, 94), ensemble=True), go_on)
    np.testing.assert_array_equal(result, pixels.repeat(2, 0).repeat(2, 1))
    assert runs == 8


def test_the_self_ensemble_averages_what_depends_on_direction() -> None:
    def darkens_left(x: Tensor) -> Tensor:
        out = enlarge(x)
        out[..., : out.shape[3] // 2] *= 0.5
        return out

    result, _ = upscale(
        HostEngine(make_network(darkens_left)),
        np.full((8, 8, 3), 200, np.uint8),
        UpscalePlan((16, 16), ensemble=True),
        go_on,
    )
    assert set(np.unique(result)) == {150}


def test_rows_are_given_up_before_the_next_ones_are_computed() -> None:
    kept: list[bool] = []

    class Watching(HostEngine):
        """Says for each finished strip whether it still lies in memory when the next one is asked for."""

        def rows(self, plane: Plane, grid: Grid, on_fraction: OnFraction) -> Generator[Rows, None, None]:
            for _ in grid.rows:
                strip = np.zeros((20, 20, 3), np.uint8)
                seen = weakref.ref(strip)
                finished = Rows(strip, 1, 0)
                del strip
                yield finished
                del finished
                kept.append(seen() is not None)

    upscale(Watching(make_network(enlarge)), noise(30, 10), UpscalePlan((60, 20), 10), go_on)
    assert kept == [False, False, False]
