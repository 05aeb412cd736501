"""What is tried: photos under each kind of damage, and holes to fill, of seeds that no training draws from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from app.evaluation.damage.held_out_kinds import HELD_OUT
from app.evaluation.damage.holes import FillSample, make_fill_sample
from app.evaluation.damage.kinds import TRAINED, DamageKind
from app.evaluation.damage.scans import Sample, crop, scan_sample

SEED = 4242  # no training draws from it
SIDE = 320
HOLES_SIDE = 256
_HOLES = 13  # the number of their samples
KINDS = {**TRAINED, **HELD_OUT}
GROUPS: dict[str, tuple[DamageKind, ...]] = {
    "thin": (DamageKind.SCRATCH, DamageKind.HAIR),
    "cracks": (DamageKind.CRACK, DamageKind.PERCOLATION_CRACK),
    "dust": (DamageKind.DUST, DamageKind.SPECKLE, DamageKind.LINT, DamageKind.DEBRIS),
    "thin, cracks and dust": (
        DamageKind.SCRATCH,
        DamageKind.HAIR,
        DamageKind.CRACK,
        DamageKind.PERCOLATION_CRACK,
        DamageKind.DUST,
        DamageKind.SPECKLE,
        DamageKind.LINT,
        DamageKind.DEBRIS,
    ),
    "wide": (DamageKind.WIDE_CRACK,),
    "blotches": (DamageKind.BLOTCH, DamageKind.STAIN, DamageKind.MOULD),
    "crease": (DamageKind.CREASE,),
    "corners and borders": (DamageKind.CORNER, DamageKind.BORDER, DamageKind.EDGE_TEAR),
    "kept out of training": tuple(HELD_OUT),
    "all": tuple(KINDS),
}


def damaged_samples(photos: Sequence[NDArray[np.uint8]], kind: DamageKind, count: int) -> Iterator[Sample]:
    """Photos, (H, W, 3) uint8, under one kind of damage; equal calls give equal samples."""
    for index in range(count):
        rng = np.random.default_rng([SEED, list(DamageKind).index(kind), index])
        picture = crop(photos[int(rng.integers(len(photos)))], SIDE, rng)
        yield scan_sample(picture, [KINDS[kind]], rng, with_undamaged=True)


def hole_samples(photos: Sequence[NDArray[np.uint8]], count: int) -> Iterator[FillSample]:
    """Holes in photos, (H, W, 3) uint8, without grain around them; equal calls give equal samples."""
    for index in range(count):
        rng = np.random.default_rng([SEED, _HOLES, index])
        picture = crop(photos[int(rng.integers(len(photos)))], HOLES_SIDE, rng)
        yield make_fill_sample(picture, rng, with_grain=False)
