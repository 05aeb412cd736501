"""What every `Engine` promises, whatever runs the network: each test runs on each implementation."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from app.errors import Cancelled, Internal
from app.restoration.device import DeviceProfile, profile_of
from app.restoration.engine import Engine, Grid, Plane, TileTooLarge
from app.restoration.host_engine import HostEngine
from app.restoration.models.networks import Facts, Network
from app.restoration.upscale import cut_grid

Run = Callable[[Tensor], Tensor]
FACTS = Facts("compact", 2, 4, 0, 1, 1.0)


def open_host(profile: DeviceProfile, run: Run, facts: Facts = FACTS) -> Engine:
    """The host loop on the CPU, doing what a profile asks for (batches, bands) on any device."""

    def exact() -> Network:
        return Network("exact", facts, "cpu", "fp32", lambda x, on_part: run(x), exact, profile)

    return HostEngine(Network("test", facts, "cpu", "bf16", lambda x, on_part: run(x), exact, profile))


IMPLEMENTATIONS: dict[str, Callable[..., Engine]] = {
    "host with the CPU's profile": functools.partial(open_host, profile_of("cpu")),
    "host with the profile of a card": functools.partial(open_host, profile_of("cuda:0")),
}


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def open_engine(request: pytest.FixtureRequest) -> Callable[..., Engine]:
    return IMPLEMENTATIONS[request.param]


def enlarge(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def go_on(_fraction: float) -> bool:
    return True


def noise(height: int, width: int, dtype: type = np.uint8) -> NDArray[Any]:
    high = np.iinfo(dtype).max
    return np.random.default_rng(1).integers(0, high, (height, width, 3), dtype=dtype, endpoint=True)


def grid_of(engine: Engine, pixels: NDArray[Any], tile: int) -> Grid:
    return cut_grid(engine.facts, pixels.shape[:2], tile, strict=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("tile", [13, 32, 500])
def test_rows_come_from_top_to_bottom_without_a_gap(open_engine: Callable[..., Engine], dtype: type, tile: int) -> None:
    engine, pixels = open_engine(enlarge), noise(70, 41, dtype)
    found = [
        (rows.pixels.copy(), rows.tiles) for rows in engine.rows(Plane(pixels), grid_of(engine, pixels, tile), go_on)
    ]
    whole = np.concatenate([part for part, _ in found])
    assert np.array_equal(whole, pixels.repeat(2, axis=0).repeat(2, axis=1))
    assert whole.dtype == dtype
    assert sum(tiles for _, tiles in found) == -(-70 // tile) * -(-41 // tile)


def test_grey_planes_give_one_channel_of_luma(open_engine: Callable[..., Engine]) -> None:
    engine, pixels = open_engine(enlarge), noise(20, 20)
    (rows,) = engine.rows(Plane(pixels, grey=True), grid_of(engine, pixels, 100), go_on)
    luma = np.rint(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    assert rows.pixels.shape == (40, 40, 1)
    assert np.abs(rows.pixels[::2, ::2, 0].astype(int) - luma).max() <= 1


def test_the_ensemble_is_the_mean_over_eight_symmetries(open_engine: Callable[..., Engine]) -> None:
    seen = []

    def darken_left(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape[2:]))
        out = enlarge(x)
        out[..., : out.shape[3] // 2] = 0
        return out

    engine, pixels = open_engine(darken_left), np.full((8, 12, 3), 200, np.uint8)
    (rows,) = engine.rows(Plane(pixels, ensemble=True), grid_of(engine, pixels, 100), go_on)
    assert len(seen) == 8
    assert set(seen) == {(8, 12), (12, 8)}
    assert set(np.unique(rows.pixels)) == {100}


def test_on_fraction_grows_to_one_and_false_cancels(open_engine: Callable[..., Engine]) -> None:
    runs = []

    def count(x: Tensor) -> Tensor:
        runs.append(len(x))
        return enlarge(x)

    engine, pixels = open_engine(count), noise(60, 60)
    grid = grid_of(engine, pixels, 20)
    told: list[float] = []
    for _ in engine.rows(Plane(pixels), grid, lambda fraction: not told.append(fraction)):  # type: ignore[func-returns-value]
        pass
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(set(told)) >= len(runs) >= 3
    assert sum(runs) == 9
    with pytest.raises(Cancelled):
        list(engine.rows(Plane(pixels), grid, lambda fraction: fraction < 0.5))


def test_nothing_is_computed_before_rows_are_asked_for_nor_after_they_are_closed(
    open_engine: Callable[..., Engine],
) -> None:
    runs = []

    def count(x: Tensor) -> Tensor:
        runs.append(len(x))
        return enlarge(x)

    engine, pixels = open_engine(count), noise(60, 20)
    rows = engine.rows(Plane(pixels), grid_of(engine, pixels, 20), go_on)
    assert not runs
    next(rows)
    first = len(runs)
    rows.close()
    assert len(runs) == first == 1


def test_no_tile_is_begun_after_on_fraction_said_stop(open_engine: Callable[..., Engine]) -> None:
    runs = []

    def count(x: Tensor) -> Tensor:
        runs.append(len(x))
        return enlarge(x)

    engine, pixels = open_engine(count), noise(60, 60)
    with pytest.raises(Cancelled):
        list(engine.rows(Plane(pixels), grid_of(engine, pixels, 20), lambda fraction: False))
    assert len(runs) == 1


def test_on_fraction_is_called_in_the_thread_that_asks_for_rows(open_engine: Callable[..., Engine]) -> None:
    engine, pixels = open_engine(enlarge), noise(60, 20)
    threads: list[int] = []
    rows = engine.rows(Plane(pixels), grid_of(engine, pixels, 20), lambda _: not threads.append(threading.get_ident()))  # type: ignore[func-returns-value]
    asking = threading.Thread(target=lambda: list(rows))
    asking.start()
    asking.join()
    assert set(threads) == {asking.ident}


def test_the_plane_is_never_written_to_nor_kept(open_engine: Callable[..., Engine]) -> None:
    engine, pixels = open_engine(enlarge), noise(60, 20)
    pixels.setflags(write=False)
    grid, kept = grid_of(engine, pixels, 20), weakref.ref(pixels)
    assert sum(len(rows.pixels) for rows in engine.rows(Plane(pixels), grid, go_on)) == 120
    closed = engine.rows(Plane(pixels), grid, go_on)
    next(closed)
    closed.close()
    del pixels
    assert kept() is None


def test_an_engine_takes_the_next_plane_however_the_last_one_ended(open_engine: Callable[..., Engine]) -> None:
    nan = float("nan")
    # The last two are one plane: in reduced precision, and again in fp32.
    ends: list[Exception | float] = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("a fault"), nan, nan]

    def fail_first(x: Tensor) -> Tensor:
        end = ends.pop(0) if ends else 1.0
        if isinstance(end, Exception):
            raise end
        return enlarge(x) * end

    engine, pixels = open_engine(fail_first), noise(20, 20)
    grid = grid_of(engine, pixels, 100)
    for expected in (TileTooLarge, RuntimeError, Internal):
        with pytest.raises(expected):
            list(engine.rows(Plane(pixels), grid, go_on))
    with pytest.raises(Cancelled):
        list(engine.rows(Plane(pixels), grid, lambda fraction: False))
    (rows,) = engine.rows(Plane(pixels), grid, go_on)
    assert np.array_equal(rows.pixels, pixels.repeat(2, axis=0).repeat(2, axis=1))


def test_gradients_are_neither_recorded_nor_switched_off_for_the_caller(open_engine: Callable[..., Engine]) -> None:
    engine, pixels = open_engine(enlarge), noise(40, 20)
    for _ in engine.rows(Plane(pixels), grid_of(engine, pixels, 20), go_on):
        assert not torch.is_inference_mode_enabled()


def test_a_tile_that_low_precision_spoils_is_redone_and_a_hopeless_one_is_never_let_through(
    open_engine: Callable[..., Engine],
) -> None:
    broken = [True]

    def once(x: Tensor) -> Tensor:
        return enlarge(x) * (float("nan") if broken and broken.pop() else 1.0)

    engine, pixels = open_engine(once), noise(20, 20)
    (rows,) = engine.rows(Plane(pixels), grid_of(engine, pixels, 100), go_on)
    assert rows.redone_in_fp32 == 1
    assert np.array_equal(rows.pixels, pixels.repeat(2, axis=0).repeat(2, axis=1))
    hopeless = open_engine(lambda x: enlarge(x) * float("nan"))
    with pytest.raises(Internal) as refused:
        list(hopeless.rows(Plane(pixels), grid_of(hopeless, pixels, 100), go_on))
    assert refused.value.code == "bad_network_output"


def test_out_of_memory_asks_for_smaller_tiles_and_keeps_nothing(open_engine: Callable[..., Engine]) -> None:
    def hungry(x: Tensor) -> Tensor:
        if x.shape[2] > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return enlarge(x)

    engine, pixels = open_engine(hungry), noise(100, 100)
    with pytest.raises(TileTooLarge) as refused:
        list(engine.rows(Plane(pixels), grid_of(engine, pixels, 100), go_on))
    assert refused.value.__context__ is None  # a trace would keep the tensors alive
    assert sum(len(rows.pixels) for rows in engine.rows(Plane(pixels), grid_of(engine, pixels, 30), go_on)) == 200


def test_other_errors_pass_unchanged(open_engine: Callable[..., Engine]) -> None:
    def wrong(_x: Tensor) -> Tensor:
        raise RuntimeError("a bug")

    engine, pixels = open_engine(wrong), noise(10, 10)
    with pytest.raises(RuntimeError, match="a bug"):
        list(engine.rows(Plane(pixels), grid_of(engine, pixels, 10), go_on))


def test_the_tile_side_suits_the_network(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine(enlarge)
    assert engine.tiling.tile >= 32
    assert engine.facts is FACTS
    assert engine.precision == "bf16"
