"""Which way up a photo is: the header check, the decoder and Pillow agree, wherever the file says it."""

from __future__ import annotations

import importlib.util
import io
import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from app.images import Header, ImageLimits, Picture, encode, read_header
from app.images.decode import DecodeOptions, decode_file
from app.images.decode.channels import turn
from app.images.metadata import exif
from app.images.orientation import MAX_PACKET_BYTES
from tests import orientation_carriers as carriers
from tests import picture_factory as make
from tests.orientation_carriers import CARRIERS
from tests.timing import allowed

LIMITS = ImageLimits()
CASES = list(itertools.product(CARRIERS, range(1, 9)))


def looked_at(folder: Path, data: bytes) -> tuple[Header, Picture]:
    (folder / "photo").write_bytes(data)
    return read_header(folder / "photo", LIMITS), decode_file(folder / "photo", LIMITS)


@pytest.mark.parametrize(("name", "orientation"), CASES)
def test_header_and_decoder_turn_a_photo_alike(name: str, orientation: int, tmp_path: Path) -> None:
    if name.startswith("heif") and importlib.util.find_spec("pillow_heif") is None:
        pytest.skip("HEIC needs the optional package pillow-heif")
    carrier = CARRIERS[name]
    header, picture = looked_at(tmp_path, carrier.file(orientation))
    assert (header.width, header.height) == (picture.width, picture.height)
    expected = turn(make.photo(), orientation if carrier.counts else 1)
    assert picture.rgb.shape == expected.shape
    assert np.abs(picture.rgb.astype(int) - expected).mean() < 6
    as_stored = decode_file(tmp_path / "photo", LIMITS, DecodeOptions(as_stored=True))
    assert as_stored.rgb.shape == picture.rgb.shape


@pytest.mark.parametrize(("name", "orientation"), [case for case in CASES if CARRIERS[case[0]].pillow])
def test_pillow_says_the_same(name: str, orientation: int, tmp_path: Path) -> None:
    data = CARRIERS[name].file(orientation)
    header, _ = looked_at(tmp_path, data)
    with Image.open(io.BytesIO(data)) as image:
        assert ImageOps.exif_transpose(image).size == (header.width, header.height)


@pytest.mark.parametrize("name", [name for name in CARRIERS if "xmp" in name])
def test_nothing_turns_a_result_a_second_time(name: str, tmp_path: Path) -> None:
    if name.startswith("heif") and importlib.util.find_spec("pillow_heif") is None:
        pytest.skip("HEIC needs the optional package pillow-heif")
    _, picture = looked_at(tmp_path, CARRIERS[name].file(6))
    for output_format in ("jpg", "png", "webp", "tiff", "avif"):
        encode(picture, tmp_path / "result", output_format, 95, "keep")
        header = read_header(tmp_path / "result", LIMITS)
        assert (header.width, header.height) == (picture.width, picture.height)


@pytest.mark.parametrize("name", ["webp exif not spoken of", "webp exif without a header"])
def test_exif_that_the_header_of_a_webp_does_not_speak_of_is_kept(name: str, tmp_path: Path) -> None:
    _, picture = looked_at(tmp_path, CARRIERS[name].file(6))
    block = exif.parse(picture.exif or b"")
    assert block.main[0x010F].text() == "Camera Works"
    assert block.main[0x0112].integers(block.order) == (1,)


def test_pages_of_a_tiff_are_turned_by_their_own_xmp(tmp_path: Path) -> None:
    pages = ([carriers.xmp_tag(carriers.packet(orientation))] for orientation in (3, 6, 1))
    header, _ = looked_at(tmp_path, carriers.tiff(*pages))
    sizes = []
    for number in range(3):
        picture = decode_file(tmp_path / "photo", LIMITS, DecodeOptions(page=number))
        sizes.append((picture.width, picture.height))
    upright, turned = (make.WIDTH, make.HEIGHT), (make.HEIGHT, make.WIDTH)
    assert sizes == list(header.page_sizes) == [upright, turned, upright]


def test_many_large_packets_cost_no_time(tmp_path: Path) -> None:
    """A file of a few megabytes could claim the same ones for a thousand pages."""
    filler = b"<x:xmpmeta a='" + b"y" * (MAX_PACKET_BYTES // 2) + b"'"
    tag = carriers.xmp_tag(carriers.packet(6).replace(b"<x:xmpmeta", filler))
    data = carriers.tiff(*([tag] for _ in range(8)))
    (tmp_path / "photo").write_bytes(data)
    began = time.thread_time()
    header = read_header(tmp_path / "photo", LIMITS)
    assert time.thread_time() - began < allowed(0.3)
    last = decode_file(tmp_path / "photo", LIMITS, DecodeOptions(page=7))
    assert header.page_sizes[7] == (last.width, last.height) == (make.WIDTH, make.HEIGHT)
    assert header.page_sizes[0] == (make.HEIGHT, make.WIDTH)


@pytest.mark.parametrize("count", [19_000, 50_000])
def test_packets_of_very_many_parts_cost_no_time(count: int, tmp_path: Path) -> None:
    packet = carriers.packet(6).replace(b"<rdf:RDF", b"<a/>" * count + b"<rdf:RDF")
    chunk = make.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
    (tmp_path / "png").write_bytes(carriers.png(chunk))
    (tmp_path / "tiff").write_bytes(carriers.tiff(*([carriers.xmp_tag(packet)] for _ in range(12))))
    for name, seconds in (("png", 0.3), ("tiff", 1.0)):
        began = time.thread_time()
        header = read_header(tmp_path / name, LIMITS)
        assert time.thread_time() - began < allowed(seconds)
        assert (header.width == make.HEIGHT) == (count < 20_000)
