"""The two rewritten parts of ESRGAN on a CPU: dense blocks over groups, and convolutions behind an enlargement."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app.restoration.models import networks
from app.restoration.models.dense_blocks import make_trunk
from app.restoration.models.registry import load_module
from app.restoration.models.upsample_conv_fusion import UpsampleConv, fuse_upsample_convolutions
from benchmarks.random_weights import random_state

ANIME = "RealESRGAN_x4plus_anime_6B"


def blocks(model: str = ANIME) -> list[Any]:
    module, _ = load_module(random_state(model), "random")
    return list(module.model[1].sub)[:-1]


def run_plainly(inner: list[Any], features: Tensor) -> Tensor:
    for block in inner:
        features = block(features)
    return features


def psnr_db(found: Tensor, right: Tensor) -> float:
    return float(10 * torch.log10(right.square().max() / (found - right).square().mean()))


@pytest.mark.parametrize("photos", [1, 2])
def test_the_trunk_over_groups_gives_what_the_blocks_give(photos: int) -> None:
    inner = blocks()
    features = torch.randn(photos, 64, 21, 34, generator=torch.Generator().manual_seed(1))
    trunk = make_trunk(inner, torch.bfloat16)
    assert trunk is not None
    with torch.inference_mode():
        right, found = run_plainly(inner, features), trunk(features, lambda: None)
    assert found.shape == right.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert psnr_db(found, right) > 50
    assert psnr_db(found.roll(1, dims=1), right) < 20, "groups in another order must be seen"


@pytest.mark.parametrize("channels", [32, 64])
def test_the_features_that_come_in_stay_as_they_are(channels: int) -> None:
    """The first convolution's result is added again after the trunk, which so must not write into it."""
    features = torch.randn(1, channels, 8, 8).contiguous(memory_format=torch.channels_last)
    before = features.clone()
    trunk = make_trunk([type(blocks()[0])(channels, gc=32)], torch.bfloat16)
    assert trunk is not None
    with torch.inference_mode():
        trunk(features, lambda: None)
    assert torch.equal(features, before)


def test_blocks_that_are_built_otherwise_are_left_to_the_plain_way() -> None:
    assert make_trunk(blocks(), torch.float32) is None, "3-D convolutions are slow in fp32"
    assert make_trunk([], torch.bfloat16) is None
    for change in (_other_activation, _with_plus, _without_bias, _wide_kernel):
        inner = blocks()
        change(inner[3].RDB2)
        assert make_trunk(inner, torch.bfloat16) is None, change.__name__


def _other_activation(part: Any) -> None:
    part.conv2[1] = nn.PReLU()


def _with_plus(part: Any) -> None:
    part.conv1x1 = nn.Conv2d(64, 32, 1)


def _without_bias(part: Any) -> None:
    part.conv3[0] = nn.Conv2d(128, 32, 3, padding=1, bias=False)


def _wide_kernel(part: Any) -> None:
    part.conv3[0] = nn.Conv2d(128, 32, 5, padding=2)


def test_a_network_with_unknown_blocks_still_runs_in_bf16() -> None:
    module, facts = load_module(random_state(ANIME), "random")
    part = list(module.model[1].sub)[2].RDB1
    part.conv2[1] = nn.PReLU(init=0.2)
    x = torch.rand(1, 3, 16, 20)
    in_bf16 = networks.build("odd", module, facts, "cpu", "bf16")
    assert psnr_db(in_bf16(x), in_bf16.exact()(x)) > 40


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 8), (16, 3)])
@pytest.mark.parametrize("photos", [1, 2])
def test_a_doubling_equals_enlargement_and_convolution_to_the_border(photos: int, height: int, width: int) -> None:
    convolution = nn.Conv2d(8, 6, 3, padding=1)
    x = torch.randn(photos, 8, height, width)
    with torch.inference_mode():
        right = convolution(nn.functional.interpolate(x, scale_factor=2, mode="nearest"))
        found = UpsampleConv(convolution)(x)
    assert found.shape == right.shape
    assert (found - right).abs().max() < 1e-5


def test_only_a_nearest_doubling_before_a_plain_convolution_is_folded() -> None:
    plain = nn.Conv2d(4, 4, 3, padding=1)
    folded = fuse_upsample_convolutions([nn.Upsample(scale_factor=2, mode="nearest"), plain, nn.LeakyReLU(), plain])
    assert [type(layer) for layer in folded] == [UpsampleConv, nn.LeakyReLU, nn.Conv2d]
    for enlargement, convolution in (
        (nn.Upsample(scale_factor=3, mode="nearest"), plain),
        (nn.Upsample(scale_factor=2, mode="bilinear"), plain),
        (nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(4, 4, 5, padding=2)),
        (nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")),
    ):
        assert fuse_upsample_convolutions([enlargement, convolution]) == [enlargement, convolution]


def test_the_official_shapes_use_both() -> None:
    """A change of spandrel's layers must not quietly bring the slow way back."""
    for model in ("RealESRGAN_x4plus", "RealESRGAN_x2plus", ANIME):
        module, _ = load_module(random_state(model), "random")
        assert make_trunk(list(module.model[1].sub)[:-1], torch.bfloat16) is not None
        assert (
            sum(isinstance(layer, UpsampleConv) for layer in fuse_upsample_convolutions(list(module.model)[2:-1])) == 2
        )
