"""AVIF: the part of the picture that is shown (`clap`), and how deep it is where the usual box does not say so."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.images.isobmff import boxes, inspect
from tests import picture_factory as make
from tests.test_images_boxes import HEIGHT, WIDTH, decoded, deep_avif, photo

_CONTAINERS = {b"meta": 12, b"iprp": 8, b"ipco": 8}  # and where the boxes in them begin


def _places(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the boxes of a range and of those within, from the outside in."""
    for box in boxes(data, start, end):
        at = box.start - 8
        yield box.name, at, box.end
        if box.name in _CONTAINERS:
            yield from _places(data, at + _CONTAINERS[box.name], box.end)


def with_property(data: bytes, body: bytes) -> bytes:
    """An AVIF of ours whose main picture has one more property; nothing else moves but what stands behind."""
    places = {name: (start, end) for name, start, end in _places(data, 0, len(data))}
    count = sum(1 for _ in boxes(data, places[b"ipco"][0] + 8, places[b"ipco"][1]))
    owned_at = places[b"ipma"][0] + 18
    grown = {b"ipco": len(body), b"ipma": 1, b"iprp": len(body) + 1, b"meta": len(body) + 1}
    file = bytearray(data)
    for name, more in grown.items():
        struct.pack_into(">I", file, places[name][0], places[name][1] - places[name][0] + more)
    old = struct.unpack_from(">I", data, places[b"iloc"][1] - 8)[0]  # the one extent: its offset, then its length
    struct.pack_into(">I", file, places[b"iloc"][1] - 8, old + len(body) + 1)
    file[owned_at : owned_at + 1] = bytes([data[owned_at] + 1, 0x80 | count + 1])
    file[places[b"ipco"][1] : places[b"ipco"][1]] = body
    return bytes(file)


def aperture(width: int, height: int, right: float, down: float) -> bytes:
    numbers = (width, 1, height, 1, round(2 * right), 2, round(2 * down), 2)
    return struct.pack(">I4sIIIIiIiI", 40, b"clap", *numbers)


@pytest.mark.parametrize("bits", [8, 10])
def test_of_an_avif_the_part_that_is_shown_is_restored(bits: int, tmp_path: Path) -> None:
    """Encoders that need even sides pad the picture, and say so in this box; cropping programs write it too."""
    values = photo()
    plain = make.saved(Image.fromarray(values), "AVIF", quality=95) if bits == 8 else deep_avif(make.deep(values), bits)
    whole = decoded(tmp_path, plain)
    odd = decoded(tmp_path, with_property(plain, aperture(WIDTH - 1, HEIGHT - 1, -0.5, -0.5)))
    assert (odd.rgb == whole.rgb[:-1, :-1]).all()
    part = decoded(tmp_path, with_property(plain, aperture(40, 20, 10, -8)))
    assert (part.rgb == whole.rgb[30:50, 50:90]).all()
    turned = with_property(with_property(plain, aperture(40, 20, 10, -8)), b"\0\0\0\x09irot\x01")
    assert (decoded(tmp_path, turned).rgb == np.rot90(whole.rgb[30:50, 50:90])).all()


@pytest.mark.parametrize(
    "box",
    [
        aperture(WIDTH + 1, HEIGHT, 0, 0),
        aperture(WIDTH - 1, HEIGHT, 0, 0),  # between two pixels
        aperture(40, 20, 60, 0),
        aperture(0, 20, 0, 0),
        b"\0\0\0\x28clap" + bytes(32),
    ],
)
def test_an_aperture_that_makes_no_sense_counts_as_not_said(box: bytes, tmp_path: Path) -> None:
    plain = make.saved(Image.fromarray(photo()), "AVIF", quality=95)
    assert (decoded(tmp_path, with_property(plain, box)).rgb == decoded(tmp_path, plain).rgb).all()


def test_the_aperture_is_read_from_its_box() -> None:
    plain = make.saved(Image.fromarray(photo()), "AVIF", quality=95)
    assert inspect(plain).aperture is None
    found = inspect(with_property(plain, aperture(40, 20, 10, -8))).aperture
    assert found == ((40, 1), (20, 1), (20, 2), (-16, 2))


@pytest.mark.parametrize("bits", [10, 12])
def test_a_deep_avif_whose_writer_left_out_the_usual_box_keeps_its_depth(bits: int, tmp_path: Path) -> None:
    values = make.deep(photo())
    data = deep_avif(values, bits)
    assert data.count(b"pixi") == 1
    picture = decoded(tmp_path, data.replace(b"pixi", b"free"))
    assert picture.rgb.dtype == np.uint16
    assert np.abs(picture.rgb.astype(int) - values).max() <= 1 << (16 - bits)
    plain = make.saved(Image.fromarray(photo()), "AVIF", quality=95).replace(b"pixi", b"free")
    assert decoded(tmp_path, plain).rgb.dtype == np.uint8
