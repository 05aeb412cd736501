"""The segmentation network over one picture: each pixel in its place, a border as a border, not behind padding."""

from __future__ import annotations

import pytest
import torch

from app.restoration.repair.inference import BORDER_PIXELS, probabilities
from app.restoration.repair.segmentation_network import MULTIPLE

SIZES = [(128, 129), (130, 159), (159, 128), (200, 333), (160, 192), (300, 45), (45, 71), (1, 300)]


class Watched(torch.nn.Module):
    """Says of each pixel how light it is, and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shown.append(x.clone())
        return 4 * (x[:, :1] - 0.5)


def a_scan(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("size", SIZES)
def test_every_pixel_is_seen_in_its_place(size: tuple[int, int]) -> None:
    scan = a_scan(*size)
    torch.testing.assert_close(probabilities(Watched(), scan), (4 * (scan[0, 0] - 0.5)).sigmoid())


@pytest.mark.parametrize("size", [size for size in SIZES if min(size) >= BORDER_PIXELS])
def test_each_border_and_corner_is_shown_as_one(size: tuple[int, int]) -> None:
    scan, network = a_scan(*size), Watched()
    probabilities(network, scan)
    height, width = size
    assert all(side % MULTIPLE == 0 for shown in network.shown for side in shown.shape[-2:])
    unpadded = [shown for shown in network.shown if shown.shape[-2] <= height and shown.shape[-1] <= width]
    assert bool(unpadded)
    last = {float(scan[0, 0, height - 1, width - 1])}
    last |= {float(scan[0, 0, height - 1, 0])} if height % MULTIPLE else set()
    last |= {float(scan[0, 0, 0, width - 1])} if width % MULTIPLE else set()
    assert last <= {float(shown[0, 0, y, x]) for shown in unpadded for y in (0, -1) for x in (0, -1)}


def test_where_a_part_ends_within_the_picture_another_counts_more() -> None:
    class OfItsEnds(torch.nn.Module):
        """Sure of damage in the first and last rows of what it is shown, as of a torn border."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = torch.full_like(x[:, :1], -4.0)
            logits[..., :8, :] = logits[..., -8:, :] = 4.0
            return logits

    found = probabilities(OfItsEnds(), a_scan(MULTIPLE * 6 + 16, MULTIPLE * 6 + 16))
    assert torch.cat([found[:8], found[-8:]]).min() > 0.8, "the picture's own borders"
    assert found[8:-8].max() < 0.5, "where a part ends is none"


def test_where_parts_meet_nothing_can_be_seen() -> None:
    class OfTheWhole(torch.nn.Module):
        """The worst that context can do: what it says of a pixel hangs on the whole of what it is shown."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 6 * (x.mean() - 0.5) + torch.zeros_like(x[:, :1])

    side = MULTIPLE * 6 + 16
    scan = (torch.linspace(0, 1, side)[:, None] + torch.linspace(0, 1, side)).expand(1, 3, side, side) / 2
    found = probabilities(OfTheWhole(), scan)
    assert found.max() - found.min() > 0.2, "parts that differ much"
    assert max(float(found.diff(dim=dimension).abs().max()) for dimension in (0, 1)) < 0.03
