"""The table that stands for a colour profile wherever none may be opened: true to lcms, and there in every answer."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from app.images import Box, Decoder, Picture
from app.images.colour import srgb_table
from app.images.srgb_table import rgb_to_srgb, table_of, to_srgb
from tests import picture_factory as make
from tests.test_images_colour import scanner_profile, through


@pytest.mark.parametrize("profile", [make.display_p3, make.adobe_rgb, scanner_profile])
def test_colours_come_out_as_lcms_brings_them(profile: Any) -> None:
    pixels = np.concatenate([make.photo(60, 40).reshape(-1, 3), make.vivid().reshape(-1, 3)])[None]
    difference = np.abs(to_srgb(make.tagged(Picture(pixels), profile())).astype(int) - through(pixels, profile()))
    assert difference.mean() < 0.6
    assert np.percentile(difference, 99) <= 2
    assert difference.max() <= 8  # at the edge of sRGB, between two of the 52 points of an axis


def test_greys_come_out_exactly_in_8_bits_and_rounded_from_16() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(make.grey_gamma_18())), ImageCms.createProfile("sRGB")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    way = ImageCms.buildTransform(source, target, "L", "RGB", intent, flags)
    expected = np.asarray(ImageCms.applyTransform(Image.fromarray(ramp[..., 0].copy()), way))
    for pixels in (ramp, ramp.astype(np.uint16) * 257):
        picture = make.tagged(Picture(pixels, grey=True), make.grey_gamma_18())
        np.testing.assert_array_equal(to_srgb(picture), expected)


@pytest.mark.parametrize("grey", [False, True])
def test_what_is_srgb_or_cannot_be_used_needs_no_table(grey: bool) -> None:
    wrong_space = make.cmyk_profile()
    for profile in (None, make.srgb(), b"no profile" * 30, wrong_space):
        assert srgb_table(profile, grey=grey) is None
    pixels = make.photo()
    np.testing.assert_array_equal(rgb_to_srgb(pixels, make.tagged(Picture(pixels), wrong_space)), pixels)


def test_bytes_of_another_size_are_no_table() -> None:
    assert table_of(bytes(256)).shape == (256,)
    assert table_of(bytes(52**3 * 3)).shape == (52, 52, 52, 3)
    for size in (1, 255, 52**3 * 3 + 1):
        with pytest.raises(ValueError, match="cannot reshape"):
            table_of(bytes(size))


def test_every_answer_of_the_decoder_says_how_its_colours_look(decoder: Decoder, tmp_path: Path) -> None:
    vivid, grey = tmp_path / "vivid", tmp_path / "grey"
    vivid.write_bytes(make.saved(Image.fromarray(make.vivid()), "PNG", icc_profile=make.display_p3()))
    grey.write_bytes(make.deep_png(make.deep(make.photo())[..., 1], make.iccp(make.grey_gamma_18())))
    for path, shape in ((vivid, (52, 52, 52, 3)), (grey, (256,))):
        pictures = [decoder.decode(path), decoder.decode(path, as_stored=True), decoder.overview(path).small]
        for picture in [*pictures, decoder.window(path, Box(0, 0, 8, 8))]:
            assert picture.icc_profile is not None
            assert picture.srgb_table is not None
            assert picture.srgb_table.shape == shape
