"""The hostile files of the attacks, made in memory."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from pathlib import Path

from PIL import Image

from tests.hidden_places import Block, Entry, ascii_entry, exif_jpeg

_ROWS_AT_ONCE = 256


def photo(width: int = 64, height: int = 48, kind: str = "JPEG") -> bytes:
    """A small ordinary photo."""
    target = io.BytesIO()
    Image.radial_gradient("L").resize((width, height)).convert("RGB").save(target, kind)
    return target.getvalue()


def noise(width: int, height: int) -> bytes:
    """A PNG that does not get smaller: three bytes a pixel."""
    target = io.BytesIO()
    Image.merge("RGB", [Image.effect_noise((width, height), 80)] * 3).save(target, "PNG", compress_level=0)
    return target.getvalue()


@functools.cache
def many_segments(count: int = 130_000) -> bytes:
    """A JPEG with very many small Exif segments: joining them one by one costs the square of their number."""
    data = photo()
    segment = b"\xff\xe1" + struct.pack(">H", 14) + b"Exif\0\0" + bytes(6)
    return data[:2] + segment * count + data[2:]


@functools.cache
def many_profiles(count: int = 1000) -> bytes:
    """A PNG with very many compressed colour profiles of a megabyte of zeros."""
    profile = _chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1_000_000), 9))
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    pixels = _chunk(b"IDAT", zlib.compress((b"\0" + bytes(24)) * 8))
    return b"\x89PNG\r\n\x1a\n" + header + profile * count + pixels + _chunk(b"IEND", b"")


def black_png(path: Path, width: int, height: int, colour_type: int, depth: int) -> None:
    """Write a PNG of zeros, of any size: colour type 0 is grey, 2 RGB, 6 RGBA; `depth` in bits a sample."""
    channels = {0: 1, 2: 3, 6: 4}[colour_type]
    row = bytes(1 + width * channels * depth // 8)
    packer = zlib.compressobj(1)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)))
        for top in range(0, height, _ROWS_AT_ONCE):
            file.write(_chunk(b"IDAT", packer.compress(row * min(_ROWS_AT_ONCE, height - top))))
        file.write(_chunk(b"IDAT", packer.flush()) + _chunk(b"IEND", b""))


def odd_exif() -> dict[str, bytes]:
    """Photos whose EXIF tags have types and values that no camera writes, by what is odd."""
    resolution, artist = 0x011A, 0x013B
    outside = struct.pack("<I", 0x7FFFFFFF)
    entries: dict[str, list[Entry]] = {
        "resolution as text": [ascii_entry(resolution, "300 dots or so")],
        "resolution as bytes": [(resolution, 7, 8, b"\1\2\3\4\5\6\7\x08")],
        "artist as double": [(artist, 12, 1, struct.pack("<d", 1.5))],
        "artist outside the block": [(artist, 2, 5000, outside)],
        "artist of an unknown type": [(artist, 99, 4, b"abcd")],
        "exposure without a divisor": [(0x829A, 5, 1, bytes(8))],
    }
    upright = (0x0112, 3, 1, b"\1\0")  # where there is one, Pillow writes the block of an AVIF anew
    photos = {name: exif_jpeg(Block().finish([upright, *given])) for name, given in entries.items()}
    return photos | {"70,000 dots an inch": _dense_png()}


def _dense_png() -> bytes:
    """A PNG of 70,000 pixels an inch: more than the two bytes that a JPEG has for it."""
    target = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(target, "PNG", dpi=(70_000, 70_000))
    return target.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
