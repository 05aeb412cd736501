"""Band-wise Lanczos equals a resize of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.restoration.resample import CopySink, LanczosSink, make_sink


def _bands(picture: np.ndarray[Any, Any], sizes: list[int], sink: CopySink | LanczosSink) -> np.ndarray[Any, Any]:
    top, turn = 0, 0
    while top < len(picture):
        height = sizes[turn % len(sizes)]
        sink.add(picture[top : top + height])
        top, turn = top + height, turn + 1
    return sink.result


@pytest.mark.parametrize("size_out", [(50, 60), (37, 61), (130, 173), (399, 501), (1, 1), (199, 3)])
@pytest.mark.parametrize("sizes", [[200], [7], [1, 64, 3]])
def test_bands_give_the_same_pixels_as_the_whole(size_out: tuple[int, int], sizes: list[int]) -> None:
    # Values keep away from 0 and 255: Pillow clips between its two passes, in an order that depends on the size.
    picture = np.random.default_rng(1).integers(80, 176, (200, 250, 3)).astype(np.uint8)
    whole = np.asarray(Image.fromarray(picture).resize(size_out[::-1], Image.Resampling.LANCZOS))
    banded = _bands(picture, sizes, make_sink((200, 250), size_out, 3, picture.dtype))
    assert np.abs(banded.astype(int) - whole.astype(int)).max() <= 2  # Pillow rounds between its two passes


def test_sixteen_bits_stay_sixteen_bits() -> None:
    ramp = np.linspace(0, 65535, 128 * 128).astype(np.uint16).reshape(128, 128, 1).repeat(3, axis=2)
    small = _bands(ramp, [13], make_sink((128, 128), (64, 64), 3, ramp.dtype))
    assert small.dtype == np.uint16
    assert len(np.unique(small)) > 3000, "values were squeezed through 8 bits"
    assert np.abs(small.astype(int)[4:-4, 4:-4, 0] - ramp[::2, ::2, 0].astype(int)[4:-4, 4:-4]).max() < 600


def test_padding_rows_and_columns_are_dropped() -> None:
    picture = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10, 1)
    sink = make_sink((11, 9), (11, 9), 1, picture.dtype)
    np.testing.assert_array_equal(_bands(picture, [5], sink), picture[:11, :9])
    shrunk = make_sink((10, 8), (5, 4), 1, picture.dtype)
    expected = np.asarray(Image.fromarray(picture[:10, :8, 0]).resize((4, 5), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(_bands(picture, [3], shrunk)[:, :, 0], expected)


def test_memory_of_a_shrinking_sink_stays_with_the_band() -> None:
    sink = LanczosSink((10_000, 8), (2_500, 2), 1, np.dtype(np.uint8))
    for _ in range(100):
        sink.add(np.zeros((100, 8, 1), np.uint8))
        assert len(sink._held) < 150
