"""Thousands of damaged EXIF, XMP and IPTC blocks: no exception leaves the metadata code, and none takes long."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.images import ImageLimits, encode
from app.images.decode import decode_file
from app.images.metadata import exif, exif_rules, exif_writing, iptc, xmp_parsing, xmp_rules, xmp_writing
from app.images.metadata.fitting import fitted
from app.images.metadata.rewriting import Metadata, for_result
from tests import picture_factory as make
from tests.hidden_places import packet, segment
from tests.timing import allowed

LIMITS = ImageLimits()
MUTANTS = 2000
SLOWEST_SECONDS = 0.5  # a quiet machine needs milliseconds; what grows with the square of a block, minutes
THUMBNAIL = b"\xff\xd8thumbnail of a face\xff\xd9"
BODY = (
    "<dc:creator><rdf:Seq><rdf:li>One</rdf:li></rdf:Seq></dc:creator><e:LocationShown><rdf:Bag>"
    "<rdf:li rdf:parseType='Resource'><e:City>Paris</e:City></rdf:li></rdf:Bag></e:LocationShown>"
    '<r:Regions xmlns:r="http://www.metadataworkinggroup.com/schemas/regions/" rdf:parseType="Resource">'
    '<r:AppliedToDimensions xmlns:d="http://ns.adobe.com/xap/1.0/sType/Dimensions#" d:w="24" d:h="16"/>'
    '<r:Area xmlns:a="http://ns.adobe.com/xmp/sType/Area#" a:x="0.5" a:y="0.5" a:w="0.1" a:h="0.1" a:unit="pixel"/>'
    "</r:Regions>"
)
GOOD = {
    "exif": make.exif_block(6, gps=True, thumbnail=THUMBNAIL),
    "xmp": packet(BODY, 'photoshop:City="Paris" exif:PixelXDimension="24" n:HasExtendedXMP="AB"'),
    "iptc": make.iptc_block({120: "At the lake", 25: "lake", 90: "Paris", 55: "20200102", 60: "030405+0100", 231: "x"}),
}


def mutants(good: bytes, count: int) -> Iterator[bytes]:
    """Bytes changed, cut out, doubled and inserted, and 32-bit numbers set to their borders; seeded.

    Text is changed less, and by letters of its own, for else it would hardly ever be XML.
    """
    rng = np.random.default_rng(len(good))
    letters = good if good.startswith(b"<") else bytes(range(256))
    changes = 2 if good.startswith(b"<") else 6
    for index in range(count):
        block = bytearray(good)
        for _ in range(int(rng.integers(1, changes))):
            position, length = int(rng.integers(0, len(block))), int(rng.integers(1, 40))
            kind = int(rng.integers(0, 5))
            if kind == 0:
                block[position] = letters[int(rng.integers(0, len(letters)))]
            elif kind == 1 and len(block) > 60:
                del block[position : position + length]
            elif kind == 2:
                block[position:position] = block[position : position + length]
            elif kind == 3:
                block[position:position] = bytes(letters[i] for i in rng.integers(0, len(letters), length))
            elif letters is not good:
                number = (0, 1, 8, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, len(block))[int(rng.integers(0, 7))]
                block[position : position + 4] = struct.pack("<I" if index % 2 else ">I", number)
        yield bytes(block)


def upright_exif(data: bytes) -> bytes | None:
    block = exif.parse(data)
    exif_rules.drop_odd_resolution(block)
    exif_rules.make_upright(block, exif.stated_orientation(data) or 1, 24, 16)
    exif_rules.dpi(block)
    exif_rules.drop_unmovable_note(block)
    return exif_writing.serialized(block)


def upright_xmp(data: bytes) -> bytes | None:
    parsed = xmp_parsing.parse(data)
    xmp_rules.make_upright(parsed, 6, (24, 16))
    return xmp_writing.serialized(parsed)


def source_of(kind: str, data: bytes) -> Metadata:
    """What is collected of a block, or nothing when it is refused."""
    try:
        if kind == "exif":
            return Metadata(exif=upright_exif(data))
        if kind == "xmp":
            return Metadata(xmp=upright_xmp(data))
    except ValueError:
        return Metadata()
    return Metadata(iptc=iptc.serialized(iptc.parse(data)[0]))


@pytest.mark.parametrize("kind", list(GOOD))
def test_damaged_blocks_raise_nothing_and_take_no_time(kind: str) -> None:
    slowest, nothing = 0.0, 0
    for data in mutants(GOOD[kind], MUTANTS):
        started = time.thread_time()
        source = source_of(kind, data)
        nothing += source == Metadata()
        for policy in ("keep", "strip_gps", "strip"):
            carried = for_result(source, 96, 64, policy, "image/jpeg")
            assert not [note for note in carried.notes if "broken" in note], "what was collected is whole"
            fitted(carried, "avif")
        slowest = max(slowest, time.thread_time() - started)
    assert slowest < allowed(SLOWEST_SECONDS)
    assert 0 < nothing < MUTANTS * 0.9 or kind == "iptc"


@pytest.mark.parametrize("kind", list(GOOD))
def test_a_photo_with_a_damaged_block_is_decoded_and_written(kind: str, tmp_path: Path) -> None:
    forms = ["jpg", "png", "webp", "tiff", "avif"]
    heads = {"exif": b"Exif\0\0", "xmp": b"http://ns.adobe.com/xap/1.0/\0"}
    for index, data in enumerate(mutants(GOOD[kind], 100)):
        if kind == "iptc":
            resource = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(data)) + data
            added = segment(0xED, resource + bytes(len(data) % 2))
        else:
            added = segment(0xE1, heads[kind] + data)
        photo = make.jpeg()
        (tmp_path / "photo").write_bytes(photo[:2] + added + photo[2:])
        picture = decode_file(tmp_path / "photo", LIMITS)
        encode(picture, tmp_path / "result", forms[index % 5], 80, "keep")
        decode_file(tmp_path / "result", LIMITS)
