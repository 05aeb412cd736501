"""The before-picture is the photo as it was decoded, whatever kind of file it is."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.images import ImageLimits, encode_preview
from app.images.decode import DecodeOptions, decode_file
from app.images.file_preview import preview_file
from tests import picture_factory as make
from tests.hostile_files import ODD_BUT_GOOD

LIMITS = ImageLimits()


def chunk_gamma(value: float) -> bytes:
    return make.chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def wide_png(extra: bytes) -> bytes:
    return make.png(24, 12, 8, 2, b"".join(b"\0" + row.tobytes() for row in make.vivid()), extra)


ODD: dict[str, Callable[[], bytes]] = {
    **make.KINDS,
    **ODD_BUT_GOOD,
    "linear light": lambda: wide_png(chunk_gamma(1.0)),
    "linear light in 16 bits": lambda: make.deep_png(make.deep(make.photo()), chunk_gamma(1.0)),
    "PQ": lambda: make.deep_png(make.deep(make.photo()), make.chunk(b"cICP", bytes([9, 16, 0, 1]))),
    "P3 code points": lambda: wide_png(make.chunk(b"cICP", bytes([12, 13, 0, 1]))),
    "P3 profile": lambda: wide_png(make.iccp(make.display_p3())),
    "P3 in 16 bits": lambda: make.deep_png(make.deep(make.vivid()), make.iccp(make.display_p3())),
    "CMYK with a profile": lambda: make.saved(make.cmyk_image(), "JPEG", icc_profile=make.cmyk_profile()),
    "turned": lambda: make.jpeg(exif=b"Exif\0\0" + make.exif_block(6)),
    "white is zero": lambda: make.tiff(make.deep(make.photo())[..., 1], photometric="miniswhite"),
    "without an end": lambda: make.jpeg()[:-2],
}


def pixels(jpeg: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("kind", ODD)
def test_a_preview_is_made_of_the_decoded_picture(kind: str, tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(ODD[kind]())
    assert preview_file(tmp_path / "photo", LIMITS) == encode_preview(decode_file(tmp_path / "photo", LIMITS))


LARGE: dict[str, Callable[[NDArray[np.uint8]], bytes]] = {
    "jpeg": lambda photo: make.saved(Image.fromarray(photo), "JPEG", quality=95),
    "png": lambda photo: make.saved(Image.fromarray(photo), "PNG"),
    "png 16 bit": lambda photo: make.deep_png(photo.astype(np.uint16) * 257),
    "palette": lambda photo: make.saved(Image.fromarray(photo).quantize(64), "PNG"),
    "turned": lambda photo: make.saved(Image.fromarray(photo), "JPEG", exif=b"Exif\0\0" + make.exif_block(8)),
    "profile": lambda photo: make.saved(Image.fromarray(photo), "PNG", icc_profile=make.display_p3()),
    "tiff": lambda photo: make.saved(Image.fromarray(photo), "TIFF"),
    "webp": lambda photo: make.saved(Image.fromarray(photo), "WEBP", quality=95),
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_smaller_decoding_shows_the_same(kind: str, tmp_path: Path) -> None:
    y, x = np.mgrid[0:600, 0:900]
    photo: Any = np.stack([x / 4, y / 3, (x + y) / 8], axis=2).clip(0, 255).astype(np.uint8)
    (tmp_path / "photo").write_bytes(LARGE[kind](photo))
    shown = pixels(preview_file(tmp_path / "photo", LIMITS, 64))
    expected = pixels(encode_preview(decode_file(tmp_path / "photo", LIMITS), 64))
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 3


def test_of_a_cut_off_file_the_preview_shows_what_is_there(tmp_path: Path) -> None:
    for data in (make.saved(Image.fromarray(make.photo(96, 96)), kind) for kind in ("JPEG", "PNG")):
        (tmp_path / "photo").write_bytes(data[: len(data) * 2 // 3])
        kept = decode_file(tmp_path / "photo", LIMITS, DecodeOptions(keep_partial=True))
        assert preview_file(tmp_path / "photo", LIMITS) == encode_preview(kept)
