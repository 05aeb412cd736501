"""The segmentation network over one picture: as it is and turned by half a circle, the logits averaged.

The network takes sides of whole multiples, so odd ones are padded, and was trained where a picture's border is the
border of what it sees. A border behind padding it does not know: a white chip at the right of a print was at 0.0 and a
torn corner at 0.04 that are 0.4 and 0.4 on average without it. So the padded borders are looked at again, as strips
that end where the picture ends, and count there.

Drawn damage on pictures of 320 pixels less 5, 9, 17 and 29, F1 of all kinds: padded alone 0.904, 0.888, 0.883 and
0.887, with strips 0.902, 0.899, 0.892 and 0.890; of torn corners 0.88, 0.87, 0.88 and 0.90, with strips 0.92, 0.93,
0.94 and 0.97. Two looks that each leave out what the other sees, unpadded, came to 0.907, 0.905, 0.897 and 0.897, but
look at the whole picture in another phase of the network's grid, and took a small eye and a ring on two real scans for
damage. Padding with black or grey, or each look on its other side, was worse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.restoration.repair.segmentation_network import MULTIPLE

MIRRORS: tuple[tuple[int, ...], ...] = ((), (2, 3))  # of a picture: as it is, turned by half a circle
BORDER_PIXELS = 3 * MULTIPLE  # of a border that is looked at again
BORDER_RAMP_PIXELS = 2 * MULTIPLE  # over which that counts more and more
LEAST_TRUST = 0.05  # at an end that is no border of the picture, and at a border behind which is padding


@dataclasses.dataclass(frozen=True)
class _Part:
    """A part of the picture whose sides are whole multiples."""

    rows: slice
    columns: slice


def probabilities(network: nn.Module, scan: Tensor, mirrors: Sequence[tuple[int, ...]] = MIRRORS) -> Tensor:
    """Damage probability of one picture of any size: (1, 3, H, W) float in [0, 1] to (H, W) fp32 in [0, 1].

    It is looked at mirrored along each of `mirrors`, dimensions of the scan (none: as it is; both: turned by half a
    circle), and the logits are averaged.
    """
    height, width = scan.shape[-2:]
    padded = functional.pad(scan, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
    trust = _padded_trust(height)[:, None] * _padded_trust(width)  # (H, W)
    trust = trust.to(scan.device)
    total = _logits(network, padded, mirrors)[:height, :width] * trust
    for part in _borders(height, width):
        rows, columns = _part_trust(part.rows, height), _part_trust(part.columns, width)
        weights = (rows[:, None] * columns).to(scan.device)
        total[part.rows, part.columns] += weights * _logits(network, scan[..., part.rows, part.columns], mirrors)
        trust[part.rows, part.columns] += weights
    return (total / trust).sigmoid()


def _logits(network: nn.Module, scan: Tensor, mirrors: Sequence[tuple[int, ...]]) -> Tensor:
    """The mean of the looks at (1, 3, h, w): (h, w) fp32."""
    logits = torch.zeros(scan.shape[-2:], dtype=torch.float32, device=scan.device)
    for dimensions in mirrors:
        logits += network(scan.flip(dimensions)).flip(dimensions)[0, 0].float()
    return logits / len(mirrors)


def _borders(height: int, width: int) -> Iterator[_Part]:
    """The right and the bottom border where they are padded, and the corner between them."""
    if min(height, width) < BORDER_PIXELS:
        return
    whole_rows, whole_columns = (slice(0, side // MULTIPLE * MULTIPLE) for side in (height, width))
    last_rows, last_columns = (slice(side - BORDER_PIXELS, side) for side in (height, width))
    if width % MULTIPLE:
        yield _Part(whole_rows, last_columns)
    if height % MULTIPLE:
        yield _Part(last_rows, whole_columns)
    if height % MULTIPLE and width % MULTIPLE:
        yield _Part(last_rows, last_columns)


def _padded_trust(side: int) -> Tensor:
    """How much the padded picture counts along one side, (n,): little where it ends in padding."""
    trust = torch.ones(side)
    ramp = min(side, MULTIPLE)
    if side % MULTIPLE:
        trust[side - ramp :] = torch.linspace(1.0, LEAST_TRUST, ramp)
    return trust


def _part_trust(part: slice, side: int) -> Tensor:
    """How much a part counts along one side, (n,): little at an end that is no border of the picture."""
    trust = torch.ones(part.stop - part.start)
    ramp = torch.linspace(LEAST_TRUST, 1.0, BORDER_RAMP_PIXELS)
    if part.start > 0:
        trust[:BORDER_RAMP_PIXELS] = ramp
    if part.stop < side:
        trust[-BORDER_RAMP_PIXELS:] *= ramp.flip(0)
    return trust
