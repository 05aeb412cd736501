"""Good photo files, damaged at random: flipped bits, cuts, splices, wrong lengths and counts, parts that come again.

Every mutant follows from its seed and number alone, so that one that made trouble can be made again.
"""

from __future__ import annotations

import functools
import io
import random
import struct
from collections.abc import Callable, Iterator

import numpy as np
import tifffile
from PIL import Image

from tests import container_files
from tests import picture_factory as make

MOST_BYTES = 10_000_000  # the default of MAX_FILE_SIZE_MB
_USUAL_BYTES = 2 << 20
_LARGE_SHARE = 0.2  # of those that repeat a part
_HEAD_BYTES = 512  # where a change is likeliest to be looked at
_EDGES = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Mutation = Callable[[bytearray, random.Random], bytearray]


@functools.cache
def good_files() -> tuple[tuple[str, bytes], ...]:
    """Files of all containers: every kind of the tests, the matrix, and some rich in metadata, by name."""
    files = {f"kind {name}": maker() for name, maker in make.KINDS.items()}
    files |= {name: data for name, data in container_files.all_files().items() if "23x17" in name}
    files |= _rich_files()
    return tuple(sorted(files.items()))


def _rich_files() -> dict[str, bytes]:
    """With everything beside the pixels that has lengths, counts and offsets, and one of many pixels."""
    exif = make.exif_block(6, gps=True, thumbnail=make.jpeg())
    facts = {"exif": b"Exif\0\0" + exif, "icc_profile": make.display_p3(), "xmp": make.XMP}
    image, large = make.rgb_image(), Image.fromarray(make.photo(800, 600))
    pages = io.BytesIO()
    with tifffile.TiffWriter(pages, bigtiff=True) as writer:
        for seed in range(3):
            writer.write(make.photo(seed=seed), photometric="rgb", tile=(16, 16), compression="zlib")
    return {
        **{f"rich {name}": make.saved(image, name, **facts) for name in ("JPEG", "PNG", "WEBP", "AVIF")},
        "rich TIFF": make.saved(image, "TIFF", exif=exif, icc_profile=make.display_p3()),
        "rich TIFF of pages and tiles": pages.getvalue(),
        "large JPEG": make.saved(large, "JPEG", progressive=True, **facts),
        "large PNG": make.saved(large, "PNG"),
        "large TIFF": make.tiff(np.asarray(large), photometric="rgb", rowsperstrip=1),
        "large WEBP": make.saved(large, "WEBP"),
    }


def mutant(seed: int, number: int) -> tuple[str, bytes]:
    """(what it was and how it was damaged, bytes); one to three damages each."""
    chance = random.Random(f"{seed} {number}")
    name, data = chance.choice(good_files())
    damaged = bytearray(data)
    done = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        mutation = chance.choice(_MUTATIONS)
        damaged = mutation(damaged, chance)[:MOST_BYTES] or bytearray(b"\0")
        done.append(mutation.__name__.strip("_"))
    return f"{name}: {', '.join(done)}", bytes(damaged)


def _position(data: bytearray, chance: random.Random) -> int:
    """Anywhere, but half of the time in the head."""
    return chance.randrange(min(len(data), _HEAD_BYTES) if chance.random() < 0.5 else len(data))


def _flip_bits(data: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.choice((1, 2, 8, 64))):
        data[_position(data, chance)] ^= 1 << chance.randrange(8)
    return data


def _set_bytes(data: bytearray, chance: random.Random) -> bytearray:
    start = _position(data, chance)
    length = min(chance.choice((1, 4, 16, 300)), len(data) - start)
    data[start : start + length] = bytes([chance.choice((0, 0xFF, chance.randrange(256)))]) * length
    return data


def _cut_off(data: bytearray, chance: random.Random) -> bytearray:
    return data[: _position(data, chance)]


def _cut_out(data: bytearray, chance: random.Random) -> bytearray:
    start = _position(data, chance)
    del data[start : start + chance.choice((1, 2, 4, 12, 100, 5000))]
    return data


def _splice(data: bytearray, chance: random.Random) -> bytearray:
    """A piece of another file, put in or over."""
    _, other = chance.choice(good_files())
    begin = chance.randrange(len(other))
    piece = other[begin : begin + chance.choice((4, 60, 600, 20_000))]
    start = _position(data, chance)
    data[start : start + (len(piece) if chance.random() < 0.5 else 0)] = piece
    return data


def _repeat(data: bytearray, chance: random.Random) -> bytearray:
    """A part again and again: thousands of segments, chunks or directories."""
    found = list(fields(bytes(data)))
    start = chance.choice(found)[0] if found and chance.random() < 0.7 else _position(data, chance)
    piece = data[start : start + chance.choice((2, 8, 12, 24, 200, 3000))]
    most = MOST_BYTES if chance.random() < _LARGE_SHARE else _USUAL_BYTES
    times = min(chance.choice((2, 50, 3000, 300_000, 12_000_000)), most // max(1, len(piece)))
    data[start:start] = piece * times
    return data


def _wrong_number(data: bytearray, chance: random.Random) -> bytearray:
    """A number of 1 to 8 bytes, of either order, at any place: a small one, an edge, or random."""
    size = chance.choice((1, 2, 4, 8))
    return _put(data, _position(data, chance), size, chance)


def _wrong_field(data: bytearray, chance: random.Random) -> bytearray:
    """A length, count or offset of the container itself."""
    found = list(fields(bytes(data)))
    if not found:
        return _wrong_number(data, chance)
    return _put(data, *chance.choice(found), chance)


def _put(data: bytearray, start: int, size: int, chance: random.Random) -> bytearray:
    value = chance.choice((*_EDGES, len(data), len(data) - start, chance.getrandbits(8 * size)))
    value = max(0, value + chance.choice((-1, 0, 0, 1))) % (1 << 8 * size)
    data[start : start + size] = value.to_bytes(size, chance.choice(("big", "little")))
    return data


_MUTATIONS: tuple[Mutation, ...] = (
    _flip_bits,
    _set_bytes,
    _cut_off,
    _cut_out,
    _splice,
    _repeat,
    _wrong_number,
    _wrong_field,
    _wrong_field,
)


# Where a container keeps its lengths and counts.


def fields(data: bytes) -> Iterator[tuple[int, int]]:
    """(position, bytes) of the lengths, counts and offsets of a container, as far as it can be followed."""
    if data.startswith(b"\x89PNG"):
        yield from _chain(data, 8, ">I", 0, 12)
    elif data.startswith(b"RIFF"):
        yield 4, 4
        yield from _chain(data, 12, "<I", 4, 8)
    elif data[4:8] == b"ftyp":
        yield from _chain(data, 0, ">I", 0, 0)
    elif data.startswith(b"\xff\xd8"):
        yield from _chain(data, 2, ">H", 2, 2)
    elif data[:4] in (b"II*\0", b"MM\0*"):
        yield from _tiff_fields(data, "<" if data[:2] == b"II" else ">")
    elif data[:4] == b"II+\0":
        yield from _big_tiff_fields(data)
    elif data.startswith(b"BM"):
        yield from ((place, 4) for place in range(2, 54, 4))


def _chain(data: bytes, start: int, kind: str, at: int, more: int) -> Iterator[tuple[int, int]]:
    """Parts that follow each other: the length is `at` bytes from a part's start and leaves `more` bytes out."""
    size = struct.calcsize(kind)
    for _ in range(200):
        if start + at + size > len(data):
            return
        yield start + at, size
        (length,) = struct.unpack_from(kind, data, start + at)
        start += max(1, length + more)


def _big_tiff_fields(data: bytes) -> Iterator[tuple[int, int]]:
    """The same of the first directory of a little-endian BigTIFF."""
    yield 8, 8
    (directory,) = struct.unpack_from("<Q", data.ljust(16, b"\0"), 8)
    if directory + 8 <= len(data):
        yield directory, 8
        (count,) = struct.unpack_from("<Q", data, directory)
        for entry in range(directory + 8, min(directory + 8 + 20 * count, len(data) - 19), 20):
            yield from ((entry, 2), (entry + 2, 2), (entry + 4, 8), (entry + 12, 8))


def _tiff_fields(data: bytes, order: str) -> Iterator[tuple[int, int]]:
    """The offset of the directory; of each entry its tag, type, count and value, with the links to more."""
    link = 4
    for _ in range(5):
        (directory,) = struct.unpack_from(f"{order}I", data.ljust(link + 4, b"\0"), link)
        yield link, 4
        if directory < 8 or directory + 2 > len(data):
            return
        (count,) = struct.unpack_from(f"{order}H", data, directory)
        yield directory, 2
        for entry in range(directory + 2, min(directory + 2 + 12 * count, len(data) - 11), 12):
            yield from ((entry, 2), (entry + 2, 2), (entry + 4, 4), (entry + 8, 4))
        link = directory + 2 + 12 * count
