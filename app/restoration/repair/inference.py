"""The segmentation network over one picture, with test-time augmentation: as it is and turned by half a circle.

The network takes sides of whole multiples, so odd ones are padded, and was trained where a picture's border is the
border of what it sees. A border behind padding it does not know: a white chip at the right of a print was at 0.0 and a
torn corner at 0.04 that are 0.4 and 0.4 on average without it. So the padded borders are seen again, as strips
that end where the picture ends, and are blended in there; pictures of less than a strip are only padded.

Drawn damage on pictures of 320 pixels less 5, 9, 17 and 29, F1 of all kinds: padded alone 0.904, 0.888, 0.883 and
0.887, with strips 0.902, 0.899, 0.892 and 0.890; of torn corners 0.88, 0.87, 0.88 and 0.90, with strips 0.92, 0.93,
0.94 and 0.97. Two passes that each leave out what the other sees, unpadded, came to 0.907, 0.905, 0.897 and 0.897, but
see the whole picture in another phase of the network's grid, and took a small eye and a ring on two real scans for
damage. Padding with black or grey, or each pass on its other side, was worse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.restoration.repair.segmentation_network import MULTIPLE

MIRRORS: tuple[tuple[int, ...], ...] = ((), (2, 3))  # of a picture: as it is, turned by half a circle
BORDER_PIXELS = 3 * MULTIPLE  # of a border that is seen again
BORDER_RAMP_PIXELS = 2 * MULTIPLE  # over which it is blended in
LEAST_WEIGHT = 0.05  # at an end that is no border of the picture, and at a border behind which is padding


def probabilities(network: nn.Module, scan: Tensor, mirrors: Sequence[tuple[int, ...]] = MIRRORS) -> Tensor:
    """Damage probability of one picture of any size: (1, 3, H, W) float in [0, 1] to (H, W) fp32 in [0, 1].

    It is seen mirrored along each of `mirrors`, dimensions of the scan (none: as it is; both: turned by half a
    circle), and the logits are averaged.
    """
    height, width = scan.shape[-2:]
    padded = functional.pad(scan, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
    weights = (_padded_weights(height)[:, None] * _padded_weights(width)).to(scan.device)  # (H, W)
    total = _logits(network, padded, mirrors)[:height, :width] * weights
    for rows, columns in _borders(height, width):
        added = (_part_weights(rows, height)[:, None] * _part_weights(columns, width)).to(scan.device)  # (h, w)
        total[rows, columns] += added * _logits(network, scan[..., rows, columns], mirrors)
        weights[rows, columns] += added
    return (total / weights).sigmoid()


def _logits(network: nn.Module, scan: Tensor, mirrors: Sequence[tuple[int, ...]]) -> Tensor:
    """The mean over the mirrors: (1, 3, h, w), sides whole multiples, to (h, w) fp32."""
    logits = torch.zeros(scan.shape[-2:], dtype=torch.float32, device=scan.device)
    for dimensions in mirrors:
        logits += network(scan.flip(dimensions)).flip(dimensions)[0, 0].float()
    return logits / len(mirrors)


def _borders(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the right and the bottom border where they are padded, and of the corner between them."""
    if min(height, width) < BORDER_PIXELS:
        return
    whole_rows, whole_columns = (slice(0, side // MULTIPLE * MULTIPLE) for side in (height, width))
    last_rows, last_columns = (slice(side - BORDER_PIXELS, side) for side in (height, width))
    if width % MULTIPLE:
        yield whole_rows, last_columns
    if height % MULTIPLE:
        yield last_rows, whole_columns
    if height % MULTIPLE and width % MULTIPLE:
        yield last_rows, last_columns


def _padded_weights(side: int) -> Tensor:
    """Blending weights of the padded picture along one side, (n,) in [0, 1]: little where it ends in padding."""
    weights = torch.ones(side)
    ramp = min(side, MULTIPLE)
    if side % MULTIPLE:
        weights[side - ramp :] = torch.linspace(1.0, LEAST_WEIGHT, ramp)
    return weights


def _part_weights(part: slice, side: int) -> Tensor:
    """Blending weights of a part along one side, (n,) in [0, 1]: little at an end that is no border of the picture."""
    weights = torch.ones(part.stop - part.start)
    ramp = torch.linspace(LEAST_WEIGHT, 1.0, BORDER_RAMP_PIXELS)
    if part.start > 0:
        weights[:BORDER_RAMP_PIXELS] = ramp
    if part.stop < side:
        weights[-BORDER_RAMP_PIXELS:] *= ramp.flip(0)
    return weights
