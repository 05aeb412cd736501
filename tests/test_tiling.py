"""The cut of a photo into tiles, and the pasting of their results."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.restoration import tiling


@settings(max_examples=300, deadline=None)
@given(
    size=st.integers(1, 700),
    tile=st.integers(8, 256),
    context=st.integers(0, 40),
    blend=st.integers(0, 8),
    multiple=st.sampled_from([1, 2, 4]),
    strict=st.booleans(),
)
def test_every_pixel_is_written_and_seen_with_its_context(
    size: int, tile: int, context: int, blend: int, multiple: int, strict: bool
) -> None:
    size = -(-size // multiple) * multiple
    blend = blend * multiple
    tile = max(tile, 2 * blend + multiple)
    spans = tiling.cut(size, tile, context, blend, multiple, strict=strict)
    assert spans[0].write_start == 0
    assert spans[-1].write_stop == size
    assert len({span.length for span in spans}) == 1, "windows must have one fixed shape"
    for span in spans:
        assert span.start % multiple == 0
        assert span.length % multiple == 0
        assert span.start >= 0
        assert span.start + span.length <= size
        assert span.start <= max(0, span.write_start - context), "less context than asked on the left"
        assert span.start + span.length >= min(size, span.write_stop + context), "less context on the right"
    for left, right in itertools.pairwise(spans):
        assert left.write_stop - right.write_start == blend == right.ramp, "neighbours must overlap by the blend zone"


def test_a_strict_cut_never_writes_more_than_the_tile_asks_for() -> None:
    spans = tiling.cut(1000, 100, context=0, blend=0, strict=True)
    assert max(span.write_stop - span.write_start for span in spans) <= 100


def test_a_loose_cut_saves_a_tile_that_would_be_small() -> None:
    assert len(tiling.cut(270, 192, context=16, blend=8)) == 1
    assert len(tiling.cut(270, 192, context=16, blend=8, strict=True)) == 2


def test_pasting_equal_pieces_leaves_no_seam() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (50, 90, 3)).astype(np.uint8)
    canvas = np.zeros_like(picture)
    for top, bottom, ramp_top in ((0, 30, 0), (22, 50, 8)):
        for left, right, ramp_left in ((0, 40, 0), (34, 90, 6)):
            tiling.paste(canvas, picture[top:bottom, left:right], top, left, ramp_top, ramp_left)
    np.testing.assert_array_equal(canvas, picture)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_blend_rises_evenly_from_the_old_tile_to_the_new(dtype: type) -> None:
    canvas: NDArray[Any] = np.zeros((4, 10, 1), dtype)
    tiling.paste(canvas, np.full((4, 10, 1), 200, dtype), 0, 0, 0, 5)
    row = canvas[0, :, 0].astype(int)
    assert list(row) == [20, 60, 100, 140, 180, 200, 200, 200, 200, 200]
