"""Every depth, layout and compression of TIFF and BMP against a second reader: ImageMagick, which decodes with libtiff.

Where ImageMagick is wrong itself (each kind is listed with the reason), the file is held against the samples it was
made of.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.images import ImageLimits
from app.images.decode import decode_file
from tests.tiff_matrix import BMP_MASKS, DEPTHS, FILES, HEIGHT, KINDS, WIDTH, bmp, meant, samples

LIMITS = ImageLimits()
BY_HAND = {f"by hand: {kind}, {bits} bits": (kind, bits) for kind in KINDS for bits in DEPTHS}
# What ImageMagick 6 reads otherwise, and how far off it may be (0 to 1; None: not compared).
EXCEPTIONS: dict[str, tuple[float | None, str]] = {
    r"white is zero, (2|3|4|6|10|12|14|24|32) bits": (None, "it turns white-is-zero round with 1, 8 and 16 bits only"),
    r"24 bits": (None, "it takes 24 bits for floating-point numbers"),
    r"grey alpha, .*planes": (None, "it does not read grey and alpha in planes"),
    r"grey alpha, (1|10|12) bits": (None, "it loses the alpha of packed grey and alpha"),
    r"BMP 1555": (None, "it takes the one bit of alpha for half transparent"),
    r"BMP (565|4444|666)": (0.06, "it shifts masked bits up instead of spreading them over the range"),
}


def decoded(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(H, W, 3) colours and (H, W) alpha, 0 to 1."""
    picture = decode_file(path, LIMITS)
    peak = np.iinfo(picture.rgb.dtype).max
    alpha = np.ones((HEIGHT, WIDTH)) if picture.alpha is None else picture.alpha / peak
    return picture.rgb / peak, alpha


def differs(path: Path, colours: NDArray[np.float64], alpha: NDArray[np.float64]) -> float:
    """The largest difference, not counting colours that are hidden."""
    mine, mine_alpha = decoded(path)
    seen = (alpha > 0) & (mine_alpha > 0)
    return max(float(np.abs(mine - colours)[seen].max(initial=0)), float(np.abs(mine_alpha - alpha).max()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files of the matrix, numbered."""
    folder = tmp_path_factory.mktemp("matrix")
    for number, content in enumerate(FILES.values()):
        (folder / f"{number}.{'bmp' if content().startswith(b'BM') else 'tif'}").write_bytes(content())
    return folder


def files(folder: Path) -> dict[str, Path]:
    paths = {int(path.stem): path for path in folder.glob("*.[tb][im][fp]")}
    return {name: paths[number] for number, name in enumerate(FILES)}


def test_the_matrix_is_large_enough() -> None:
    assert len(FILES) >= 300


def test_what_was_written_by_hand_comes_back(folder: Path) -> None:
    wrong = []
    for name, path in files(folder).items():
        kind = BY_HAND.get(",".join(name.split(",")[:2]))
        if kind is not None:
            colours, alpha = meant(*kind)
            peak = 255 if kind[1] <= 8 else 65535
            if differs(path, colours, np.ones((HEIGHT, WIDTH)) if alpha is None else alpha) > 0.51 / peak + 2e-5:
                wrong.append(name)
    assert wrong == []


def test_a_second_reader_sees_the_same(folder: Path) -> None:
    mogrify = shutil.which("mogrify")
    if mogrify is None:
        pytest.skip("ImageMagick is not installed (Debian: apt-get install imagemagick)")
    paths = files(folder)
    options = ["-depth", "16", "-endian", "LSB", "-alpha", "set", "-colorspace", "sRGB", "-format", "rgba"]
    subprocess.run([mogrify, *options, *(str(path) for path in paths.values())], capture_output=True, check=False)
    wrong, unread, used = [], [], set()
    for name, path in paths.items():
        rule = next((pattern for pattern in EXCEPTIONS if re.search(pattern, name)), None)
        tolerance = 1 / 255 if rule is None else EXCEPTIONS[rule][0]
        used.add(rule)
        if tolerance is None:
            continue
        data = np.fromfile(path.with_suffix(".rgba"), "<u2")
        if data.size != HEIGHT * WIDTH * 4:
            unread.append(name)
            continue
        values = data.reshape(HEIGHT, WIDTH, 4) / 65535
        if differs(path, values[..., :3], values[..., 3]) > tolerance:
            wrong.append(name)
    assert (wrong, unread) == ([], [])
    assert set(EXCEPTIONS) <= used


@pytest.mark.parametrize("name", BMP_MASKS)
def test_masked_colours_are_spread_over_the_whole_range(name: str, tmp_path: Path) -> None:
    masks, bits = BMP_MASKS[name]
    path = tmp_path / "masked.bmp"
    path.write_bytes(bmp(masks, bits))
    parts = [
        samples(4, mask.bit_count())[..., index] / ((1 << mask.bit_count()) - 1)
        for index, mask in enumerate(masks)
        if mask
    ]
    alpha = parts[3] if masks[3] else np.ones((HEIGHT, WIDTH))
    assert differs(path, np.dstack(parts[:3]), alpha) <= 0.51 / 255
