"""Our restoration against the untouched upstream classes, on real photos with real and random weights.

Figures of the issue: fp32 within 1 of 255; reduced precision 48 dB (compact) and 45 dB (x4plus shape); tiled equals
untiled within 1 (compact) and by 55 dB (x4plus shape).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from app.images import Picture
from app.options import RestoreOptions
from app.restoration.device import choose_precision
from app.restoration.host_engine import HostEngine
from app.restoration.models.networks import build
from app.restoration.models.registry import ModelRegistry, load_module
from app.restoration.pipeline import Restorer
from app.restoration.reference.packages import is_available
from app.restoration.reference.upscaling import (
    ReferenceRestorer,
    from_upstream,
    make_upsampler,
    to_upstream,
)
from app.restoration.upscale import UpscalePlan, upscale
from benchmarks.random_weights import random_state
from tests.timing import needs_bf16

needs_upstream = pytest.mark.skipif(not is_available(), reason="realesrgan and basicsr are not installed here")
PHOTOS = {
    "colour": "0014.jpg",
    "colour, wide": "00003.png",
    "grey": "wolf_gray.jpg",
    "alpha": "children-alpha.png",
    "16-bit with alpha": "tree_alpha_16bit.png",
}


def read(path: Path) -> Picture:
    """A photo as upstream's script reads it (cv2, unchanged), as a `Picture`."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    if pixels.ndim == 2:
        return Picture(np.repeat(pixels[:, :, None], 3, axis=2), grey=True)
    alpha = np.ascontiguousarray(pixels[:, :, 3]) if pixels.shape[2] == 4 else None
    return Picture(np.ascontiguousarray(pixels[:, :, 2::-1]), alpha=alpha)


def go_on(fraction: float, stage: str = "") -> bool:
    return True


def crop(picture: Picture, side: int) -> Picture:
    rgb: Any = np.ascontiguousarray(picture.rgb[:side, :side])
    alpha = picture.alpha[:side, :side] if picture.alpha is not None else None
    return dataclasses.replace(picture, rgb=rgb, alpha=alpha)


def upstream(folder: Path, model: str, picture: Picture, denoise: float | None = None) -> Picture:
    registry = ModelRegistry(folder, allow_unverified=True)
    upsampler = make_upsampler(registry, registry.find(model), denoise, "cpu", 0)
    with contextlib.redirect_stdout(io.StringIO()):
        pixels, _ = upsampler.enhance(to_upstream(picture))
    return from_upstream(pixels, picture)


def ours(folder: Path, model: str, picture: Picture, tile: int = 0, precision: str = "fp32", **more: Any) -> Picture:
    restorer = Restorer(folder, device="cpu", precision=precision, tile=tile, allow_unverified=True)
    scale = 2.0 if "x2" in model else 4.0
    options = RestoreOptions(model=model, scale=scale, **more)
    return restorer.restore(picture, options, go_on).picture


def planes(picture: Picture) -> NDArray[np.float64]:
    """All planes in the range of 8 bits, (H, W, 3 or 4)."""
    stacked: NDArray[Any] = picture.rgb if picture.alpha is None else np.dstack([picture.rgb, picture.alpha])
    return stacked.astype(np.float64) * (255.0 / np.iinfo(stacked.dtype).max)


def assert_within(result: Picture, expected: Picture, levels: float) -> None:
    assert result.rgb.dtype == expected.rgb.dtype
    assert (result.alpha is None) == (expected.alpha is None)
    difference = np.abs(planes(result) - planes(expected))
    worst = np.unravel_index(difference.argmax(), difference.shape)
    assert difference.max() <= levels, f"differs by {difference.max():.2f} of 255 at {worst}"


def psnr(result: Picture, expected: Picture) -> float:
    error = float(np.mean((planes(result) - planes(expected)) ** 2))
    return float("inf") if error == 0 else 10 * np.log10(255.0**2 / error)


@needs_upstream
@pytest.mark.parametrize("kind", PHOTOS)
def test_fp32_equals_upstream_within_one_level(kind: str, real_weights: Path, real_photos: Path) -> None:
    picture = crop(read(real_photos / PHOTOS[kind]), 128)
    model = "realesr-general-x4v3"
    assert_within(ours(real_weights, model, picture), upstream(real_weights, model, picture), 1.0)


@needs_upstream
def test_fp32_equals_upstream_on_the_anime_model(real_weights: Path, real_photos: Path) -> None:
    picture = crop(read(real_photos / PHOTOS["colour"]), 179)
    model = "realesr-animevideov3"
    assert_within(ours(real_weights, model, picture), upstream(real_weights, model, picture), 1.0)


@needs_upstream
@pytest.mark.parametrize("model", ["RealESRGAN_x4plus_anime_6B", "RealESRGAN_x2plus", "RealESRGAN_x4plus"])
def test_fp32_equals_upstream_on_esrgan_shapes(model: str, random_weights: Path, real_photos: Path) -> None:
    picture = crop(read(real_photos / PHOTOS["colour"]), 61)  # odd: the x2 network must pad as upstream does
    assert_within(ours(random_weights, model, picture), upstream(random_weights, model, picture), 1.0)


@needs_upstream
def test_denoise_blends_the_pair_as_upstream_does(random_weights: Path, real_photos: Path) -> None:
    picture = crop(read(real_photos / PHOTOS["colour"]), 64)
    model = "realesr-general-x4v3"
    result = ours(random_weights, model, picture, denoise=0.3)
    assert_within(result, upstream(random_weights, model, picture, 0.3), 1.0)
    assert psnr(result, ours(random_weights, model, picture)) < 60, "the partner had no say"


@needs_upstream
def test_the_reference_engine_is_upstream_itself(real_weights: Path, real_photos: Path) -> None:
    picture = crop(read(real_photos / PHOTOS["alpha"]), 120)
    engine = ReferenceRestorer(real_weights, device="cpu", allow_unverified=True)
    outcome = engine.restore(picture, RestoreOptions(), go_on)
    assert_within(outcome.picture, upstream(real_weights, "realesr-general-x4v3", picture), 0.0)
    assert outcome.params["engine"] == "reference"


@needs_bf16
@pytest.mark.parametrize("kind", PHOTOS)
def test_bf16_stays_48_db_close_on_a_compact_network(kind: str, real_weights: Path, real_photos: Path) -> None:
    picture = crop(read(real_photos / PHOTOS[kind]), 128)
    exact = ours(real_weights, "realesr-general-x4v3", picture)
    assert psnr(ours(real_weights, "realesr-general-x4v3", picture, precision="bf16"), exact) >= 48.0


@needs_bf16
@pytest.mark.parametrize(("seed", "gain"), [(3704057815, 1.0), (3704057815, 10.0), (0, 10.0)])
def test_bf16_stays_45_db_close_on_the_x4plus_shape(seed: int, gain: float, real_photos: Path) -> None:
    module, facts = load_module(random_state("RealESRGAN_x4plus", seed, gain), "random")
    rgb = crop(read(real_photos / PHOTOS["colour"]), 64).rgb
    exact, reduced = (
        upscale(HostEngine(build("x4plus", module, facts, "cpu", precision)), rgb, UpscalePlan((256, 256)), go_on)[0]
        for precision in ("fp32", "bf16")
    )
    assert psnr(Picture(reduced), Picture(exact)) >= 45.0


@pytest.mark.parametrize("kind", ["colour, wide", "alpha", "16-bit with alpha"])
def test_tiled_equals_untiled_on_a_compact_network(kind: str, real_weights: Path, real_photos: Path) -> None:
    picture = crop(read(real_photos / PHOTOS[kind]), 190)
    whole = ours(real_weights, "realesr-general-x4v3", picture)
    assert_within(ours(real_weights, "realesr-general-x4v3", picture, tile=64), whole, 1.0)


def test_the_overlap_of_a_compact_network_is_as_small_as_it_can_be(real_weights: Path, real_photos: Path) -> None:
    """The negative control: a context of 10 pixels, upstream's, leaves seams that this comparison sees."""
    registry = ModelRegistry(real_weights, allow_unverified=True)
    network = registry.load(registry.find("realesr-general-x4v3"), None, "cpu", "fp32")
    assert network.facts.context == 34
    narrow = dataclasses.replace(network, facts=dataclasses.replace(network.facts, context=10))
    rgb = read(real_photos / PHOTOS["colour, wide"]).rgb
    size = (rgb.shape[0] * 4, rgb.shape[1] * 4)
    whole, _ = upscale(HostEngine(network), rgb, UpscalePlan(size, 4096), go_on)
    seamy, _ = upscale(HostEngine(narrow), rgb, UpscalePlan(size, 96), go_on)
    assert np.abs(whole.astype(int) - seamy.astype(int)).max() > 1


@pytest.mark.parametrize("gain", [1.0, 10.0])
def test_tiled_is_55_db_close_to_untiled_on_the_x4plus_shape(gain: float, real_photos: Path) -> None:
    module, facts = load_module(random_state("RealESRGAN_x4plus", residual_gain=gain), "random")
    network = build("x4plus", module, facts, "cpu", "fp32")
    rgb = crop(read(real_photos / PHOTOS["colour"]), 96).rgb
    whole, _ = upscale(HostEngine(network), rgb, UpscalePlan((384, 384), 4096), go_on)
    tiled, report = upscale(HostEngine(network), rgb, UpscalePlan((384, 384), 48), go_on)
    assert report.tiles == 4
    assert psnr(Picture(tiled), Picture(whole)) >= 55.0


def test_equal_input_gives_equal_bytes(real_weights: Path, real_photos: Path) -> None:
    picture, precision = crop(read(real_photos / PHOTOS["colour"]), 100), choose_precision("auto", "cpu").value
    first, second = (ours(real_weights, "realesr-general-x4v3", picture, precision=precision) for _ in range(2))
    np.testing.assert_array_equal(first.rgb, second.rgb)


def test_an_opaque_photo_stays_opaque(real_weights: Path, real_photos: Path) -> None:
    rgb = crop(read(real_photos / PHOTOS["colour"]), 64).rgb
    picture = Picture(rgb, alpha=np.full(rgb.shape[:2], 255, np.uint8))
    result = ours(real_weights, "realesr-general-x4v3", picture)
    assert result.alpha is not None
    assert (result.alpha == 255).all()


def test_the_source_module_is_left_in_fp32_by_a_bf16_network() -> None:
    module, facts = load_module(random_state("realesr-animevideov3"), "random")
    network = build("anime", module, facts, "cpu", "bf16")
    network(torch.zeros(1, 3, 16, 16))
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert network.exact().precision == "fp32"
