"""What lies under full transparency is no surroundings: damage at its border is filled from what is seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.images import Picture
from app.options import Repair
from app.restoration.repair.detection import DamageNetwork
from app.restoration.repair.repair import RepairedPhoto, RepairNetworks, repair_photo
from tests.damage_network import white_is_damage

NETWORKS = RepairNetworks(DamageNetwork(white_is_damage()))
EDGE = 80  # from this column on everything is hidden


def repaired(hidden_value: int, mask: NDArray[np.bool_] | None, grain: float = 0.0) -> RepairedPhoto:
    noise = np.random.default_rng(5).normal(0, grain, (120, 160, 1))
    rgb: NDArray[Any] = np.clip(180 + noise, 0, 255).repeat(3, axis=2).astype(np.uint8)
    rgb[20:100, 74:77] = 255  # a scratch
    alpha = np.full((120, 160), 255, np.uint8)
    alpha[:, EDGE:] = 0
    rgb[:, EDGE:] = hidden_value
    return repair_photo(NETWORKS, Picture(rgb, alpha=alpha), Repair.STRONG, mask=mask)


def drawn(columns: slice) -> NDArray[np.bool_]:
    mask = np.zeros((120, 160), np.bool_)
    mask[20:100, columns] = True
    return mask


@pytest.mark.parametrize("columns", [slice(70, EDGE), slice(70, 90)])
def test_a_hole_at_the_border_of_transparency_does_not_darken(columns: slice) -> None:
    filled = repaired(0, drawn(columns)).picture.rgb[:, :EDGE]
    np.testing.assert_allclose(filled, 180, atol=2)


def test_what_is_found_beside_transparency_takes_no_rim_of_it() -> None:
    done = repaired(0, None)
    np.testing.assert_array_equal(np.flatnonzero(done.damage.mask.any(axis=0)), [74, 75, 76])
    np.testing.assert_allclose(done.picture.rgb[:, :EDGE], 180, atol=2)


def test_what_is_hidden_counts_for_nothing_and_stays_as_it_is() -> None:
    ways = [repaired(value, drawn(slice(70, EDGE)), grain=6.0).picture.rgb for value in (0, 200)]
    np.testing.assert_array_equal(ways[0][:, :EDGE], ways[1][:, :EDGE])
    assert (ways[0][:, EDGE:] == 0).all()
    assert 3 < ways[0][20:100, 72:78].std() < 9, "the grain is that of what is seen"
