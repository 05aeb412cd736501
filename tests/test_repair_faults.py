"""Repair where something is amiss: no memory, a network gone wild, hidden pixels, and shares that are hard to say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.errors import OutOfMemory
from app.images import Picture
from app.images.damage_layer import DamageLayer
from app.images.metadata import xmp_parsing
from app.images.metadata.edit_history import MEDIA_MANAGEMENT
from app.options import Repair
from app.restoration.repair import filling
from app.restoration.repair.detection import DamageNetwork, find_damage
from app.restoration.repair.filling import fill
from app.restoration.repair.inpainting_network import FillCorrection
from app.restoration.repair.repair import RepairedPhoto, RepairNetworks, marked_share, repair_photo
from app.results import RestorationResult
from tests.damage_network import white_is_damage

NETWORKS = RepairNetworks(DamageNetwork(white_is_damage()))


class Failing(nn.Module):
    """A network that does something else while a condition holds for what it is given."""

    def __init__(self, fails: Callable[[Tensor], bool], instead: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.fails, self.instead = white_is_damage(), fails, instead

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, 1, H, W)."""
        logits: Tensor = self.instead(x) if self.fails(x) else self.network(x)
        return logits


def out_of_memory(_: Tensor) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory")


def scratched(height: int = 600, width: int = 700) -> NDArray[np.uint8]:
    rgb = np.random.default_rng(4).integers(60, 120, (height, width, 3)).astype(np.uint8)
    rgb[10:-10, width // 2 : width // 2 + 3] = 255
    return rgb


def go_on(_: float) -> bool:
    return True


def test_tiles_are_halved_where_memory_runs_out() -> None:
    network = Failing(lambda x: x.shape[-1] > 320, out_of_memory)
    found = find_damage(DamageNetwork(network), scratched(), go_on)
    assert np.array_equal(found > 128, find_damage(NETWORKS.segmentation, scratched(), go_on) > 128)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("out"), RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")]
)
def test_no_memory_at_all_is_said(error: Exception) -> None:
    def fail(_: Tensor) -> Tensor:
        raise error

    with pytest.raises(OutOfMemory, match="set repair to off"):
        find_damage(DamageNetwork(Failing(lambda x: True, fail)), scratched(), go_on)


def test_any_other_error_of_the_search_is_passed_on() -> None:
    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("an illegal memory access")

    with pytest.raises(RuntimeError, match="illegal"):
        find_damage(DamageNetwork(Failing(lambda x: True, fail)), scratched(), go_on)


def test_no_memory_for_the_correction_of_a_fill_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(filling, "correct", fail)
    mask = np.zeros((600, 700), np.bool_)
    mask[200:240, 200:240] = True
    with pytest.raises(OutOfMemory, match="set repair to off"):
        fill(scratched(), mask, FillCorrection())


def test_a_tile_that_is_not_finite_is_searched_again_in_full_precision() -> None:
    network = Failing(lambda x: x.dtype is torch.bfloat16, lambda x: torch.full((1, 1, *x.shape[2:]), torch.nan))
    found = find_damage(DamageNetwork(network.bfloat16(), dtype=torch.bfloat16), scratched(100, 120), go_on)
    assert (found[10:-10, 60:63] > 250).all()
    assert (found[:, :50] < 5).all()


def test_hidden_pixels_are_neither_searched_nor_counted() -> None:
    rgb = scratched(200, 300)
    rgb[:, :100] = 255
    alpha = np.full((200, 300), 255, np.uint8)
    alpha[:, :100] = 0
    done = repair_photo(NETWORKS, Picture(rgb, alpha=alpha), Repair.STRONG)
    assert not done.damage.mask[:, :97].any()
    assert done.damage.mask[10:-10, 150:153].all()
    assert np.array_equal(done.picture.rgb[:, :97], rgb[:, :97])
    assert done.report["share"] < 0.05
    assert marked_share(NETWORKS, Picture(rgb, alpha=alpha), go_on) < 0.05 < marked_share(NETWORKS, Picture(rgb), go_on)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (1, "Less than 0.01 %"),
        (40, "0.02 %"),
        (1_800, "0.90 %"),
        (3_000, "1.5 %"),
        (50_000, "25 %"),
        (199_900, "100 %"),
    ],
)
def test_the_share_is_said_in_plain_figures(pixels: int, words: str) -> None:
    mask = np.zeros(200_000, np.bool_)
    mask[:pixels] = True
    picture = Picture(np.full((400, 500, 3), 90, np.uint8))
    done = repair_photo(NETWORKS, picture, Repair.AUTO, mask=mask.reshape(400, 500)).picture
    assert done.xmp is not None
    (event,) = xmp_parsing.parse(done.xmp).properties[MEDIA_MANAGEMENT, "History"].items or []
    assert f"{words} of the photo was filled" in str(event)


def test_a_part_of_a_photo_is_not_said_to_be_much_of_it() -> None:
    layer = DamageLayer(np.ones((4, 4), np.uint8), np.ones((4, 4), np.bool_))
    picture = Picture(np.zeros((4, 4, 3), np.uint8))
    repaired, result = RepairedPhoto(picture, layer, {}, 2.0), RestorationResult(picture, "model", 3.0, {})
    assert [warning.code for warning in repaired.told_by(result).warnings] == ["much_damage"]
    assert repaired.told_by(result, is_whole=False).warnings == ()
