"""Previews of results: in their colours, in bands, and with the memory and the time that their size needs."""

from __future__ import annotations

import dataclasses
import io
import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.errors import RestoreError
from app.images import Decoder, ImageLimits, Picture, encode, encode_preview
from app.images.formats import FORMATS
from app.images.result_preview import preview_result, result_memory
from tests import picture_factory as make

KINDS = [
    (name, grey, alpha, deep)
    for name, grey, alpha, deep in itertools.product(FORMATS, (False, True), (False, True), (False, True))
    if FORMATS[name].deep or not deep
]

# On white in numbers of another curve is not on white in sRGB.
GREY_KINDS = [(name, alpha, deep) for name, grey, alpha, deep in KINDS if grey and not (alpha and name == "jpg")]


def picture(width: int, height: int, *, grey: bool, alpha: bool, deep: bool, **facts: Any) -> Picture:
    """Slow ramps in both directions, and a soft edge of transparency."""
    dtype: Any = np.uint16 if deep else np.uint8
    peak = np.iinfo(dtype).max
    y, x = np.mgrid[0:height, 0:width]
    ramps = [x / width, x / width, x / width] if grey else [x / width, y / height, 1 - x / width]
    rgb = (np.stack(ramps, axis=2) * peak).astype(dtype)
    return Picture(rgb, (y / height * peak).astype(dtype) if alpha else None, grey=grey, **facts)


def large(width: int, height: int, *, deep: bool = False) -> Picture:
    """Grey of 16 bits or RGBA of 8, whose rows are all the same row: cheap to make at any size."""
    row = np.linspace(0, 65_535 if deep else 255, width).astype(np.uint16 if deep else np.uint8)
    alpha = None if deep else np.broadcast_to(row, (height, width))
    return Picture(np.broadcast_to(row[None, :, None], (height, width, 3)), alpha, grey=deep)


def seen(jpeg: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize(("name", "grey", "alpha", "deep"), KINDS)
def test_a_preview_shows_the_result(name: str, grey: bool, alpha: bool, deep: bool, tmp_path: Path) -> None:
    source = picture(530, 350, grey=grey, alpha=alpha, deep=deep)
    encode(source, tmp_path / "result", name, 95, "keep")
    expected, found = seen(encode_preview(source, 50)), seen(preview_result(tmp_path / "result", 50))
    assert found.shape == expected.shape == (33, 50, 3)
    assert np.abs(found - expected).max() <= 12


@pytest.mark.parametrize("size", [(1, 1), (9000, 1), (1, 9000), (801, 800)])
def test_thin_and_odd_results_have_previews(size: tuple[int, int], tmp_path: Path) -> None:
    encode(picture(*size, grey=False, alpha=True, deep=False), tmp_path / "result", "png", 95, "keep")
    assert max(seen(preview_result(tmp_path / "result", 400)).shape[:2]) == min(400, max(size))


@pytest.mark.parametrize("name", FORMATS)
def test_a_preview_has_the_colours_of_the_results_profile(name: str, tmp_path: Path) -> None:
    source = make.tagged(picture(60, 40, grey=False, alpha=False, deep=False), make.display_p3())
    encode(source, tmp_path / "result", name, 100, "keep")
    found, expected = seen(preview_result(tmp_path / "result", 60)), seen(encode_preview(source, 60))
    np.testing.assert_allclose(found, expected, atol=12)
    untagged = seen(encode_preview(dataclasses.replace(source, srgb_table=None), 60))
    assert np.abs(untagged - expected).max() > 40


@pytest.mark.parametrize(("name", "alpha", "deep"), GREY_KINDS)
def test_a_preview_has_the_greys_of_the_results_profile(name: str, alpha: bool, deep: bool, tmp_path: Path) -> None:
    source = make.tagged(picture(60, 40, grey=True, alpha=alpha, deep=deep), make.grey_gamma_18())
    encode(source, tmp_path / "result", name, 100, "keep")
    found, expected = seen(preview_result(tmp_path / "result", 60)), seen(encode_preview(source, 60))
    assert np.abs(found - expected).mean() < 2
    untagged = seen(encode_preview(dataclasses.replace(source, srgb_table=None), 60))
    assert np.abs(untagged - expected).mean() > 2


@pytest.mark.parametrize("deep", [False, True])
def test_no_copy_of_a_whole_result_is_made(deep: bool, tmp_path: Path) -> None:
    encode(large(6000, 3000, deep=deep), tmp_path / "result", "png", 95, "keep")
    tracemalloc.start()  # sees numpy's arrays, and not the picture that Pillow holds itself
    preview_result(tmp_path / "result", 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6000 * 3000


def test_a_large_result_gets_the_memory_that_a_photo_does_not(tmp_path: Path) -> None:
    """20 megapixels of RGBA take 80 MB to hold."""
    encode(large(5000, 4000), tmp_path / "result", "png", 95, "keep")
    decoder = Decoder(ImageLimits(decode_memory_mb=40))
    try:
        with pytest.raises(RestoreError) as caught:
            decoder.preview(tmp_path / "result")
        assert caught.value.code == "decode_memory"
        assert decoder.preview(tmp_path / "result", max_megapixels=400).startswith(b"\xff\xd8")
        with pytest.raises(RestoreError):  # and no other photo after it
            decoder.preview(tmp_path / "result")
    finally:
        decoder.close()


def test_a_large_result_gets_the_time_that_its_size_needs(tmp_path: Path) -> None:
    encode(large(5000, 2000, deep=True), tmp_path / "result", "png", 95, "keep")
    decoder = Decoder(ImageLimits(decode_timeout_seconds=0.02))
    decoder.start()
    try:
        with pytest.raises(RestoreError) as caught:
            decoder.preview(tmp_path / "result")
        assert caught.value.code == "decode_timeout"
        assert decoder.preview(tmp_path / "result", max_megapixels=40 * 3000)
    finally:
        decoder.close()


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result").write_bytes(b"\x89PNG\r\n\x1a\n")
    for look in (result_memory, lambda path: preview_result(path, 10)):
        with pytest.raises(RestoreError) as caught:
            look(tmp_path / "result")
        assert caught.value.code == "undecodable_image"
