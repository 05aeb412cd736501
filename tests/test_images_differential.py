"""Every file of the matrix of containers, decoded by us and by a second reader: the same picture.

TIFF has a matrix of its own. The second reader is libvips; OpenCV for BMP, which libvips does not read itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from app.images import ImageLimits, Picture
from app.images.decode import decode_file
from tests.container_files import all_files
from tests.second_reader import needs_vips, read_with_vips

FILES = all_files()
# How far two decoders may be apart, of 255, by words of a name: those of lossy formats round in their own ways.
NEAR = {
    ("jpeg",): 2,
    ("webp",): 1,
    ("avif",): 3,
    ("bmp", "16"): 7,  # OpenCV leaves the low bits of 5 and 6 empty; the full range is ours
}


def ours(path: Path) -> NDArray[Any]:
    """(H, W, 4): our decoder's picture; a photo without alpha is opaque."""
    picture: Picture = decode_file(path, ImageLimits())
    peak = np.iinfo(picture.rgb.dtype).max
    alpha = np.full(picture.rgb.shape[:2], peak, picture.rgb.dtype) if picture.alpha is None else picture.alpha
    return np.dstack([picture.rgb, alpha])


def theirs(path: Path, name: str) -> NDArray[Any]:
    """(H, W, 4) of the second reader."""
    words = name.split()
    if words[0] == "bmp" or (words[0] == "avif" and words[1] in ("4:2:2", "4:2:0")):
        # OpenCV: libvips reads no BMP itself, and libheif repeats subsampled colours where others blend them.
        return _by_opencv(path, alpha="alpha" in words, turned="turned" in words)
    found = read_with_vips(path)
    if "cmyk" in words or "ycck" in words:  # inks, each of which takes its share of the light away
        light = 255 - found.astype(int)
        return _with_alpha(((light[..., :3] * light[..., 3:] + 127) // 255).astype(np.uint8))
    if found.shape[2] < 3:  # grey, and maybe alpha
        found = np.dstack([found[..., :1]] * 3 + [found[..., 1:]])
    return _with_alpha(found)


def _by_opencv(path: Path, *, alpha: bool, turned: bool) -> NDArray[Any]:
    """`turned`: OpenCV overlooks the masks of 32 bits, so that red and blue change places."""
    found: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED if alpha else cv2.IMREAD_COLOR_BGR)
    if alpha:
        return np.ascontiguousarray(found[..., [2, 1, 0, 3]])
    return _with_alpha(found if turned else np.ascontiguousarray(found[..., ::-1]))


def _with_alpha(found: NDArray[Any]) -> NDArray[Any]:
    peak = np.iinfo(found.dtype).max
    return found if found.shape[2] == 4 else np.dstack([found, np.full(found.shape[:2], peak, found.dtype)])


@needs_vips
@pytest.mark.parametrize("name", FILES)
def test_two_readers_see_the_same_picture(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(FILES[name])
    mine, other = ours(path), theirs(path, name)
    assert mine.dtype == other.dtype
    assert mine.shape == other.shape
    np.testing.assert_array_equal(mine[..., 3], other[..., 3])
    shown = mine[..., 3] > 0  # what hides under full transparency is ours to choose
    off = np.abs(mine[shown].astype(int) - other[shown].astype(int))
    assert off.size
    assert off.max() <= max((near for words, near in NEAR.items() if set(words) <= set(name.split())), default=0)


def test_the_matrix_is_large() -> None:
    assert len(FILES) >= 300
    assert {name.split()[0] for name in FILES} == {"png", "jpeg", "webp", "avif", "bmp"}
