"""The mask of damage that somebody sends with a photo: judged once it is decoded, and kept as packed bits.

What is kept is of our own making, 8 bytes of size before one deflated bit a pixel, so that no worker ever opens a file
of somebody's for it.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from app.errors import Unprocessable
from app.images.picture import Picture, Pixels

MARKED_FROM = 128  # of 255
MOST_COLOUR = 24  # between the channels of a pixel: WebP that loses detail gives greys a tinge
_BAND_ROWS = 256
_SIZE = struct.Struct(">II")  # width, height

Mask = NDArray[np.bool_]


def check_mask_size(size: tuple[int, int], photo: tuple[int, int]) -> None:
    """Raises `Unprocessable` `mask_wrong_size` unless a mask has its photo's width and height."""
    if size != photo:
        raise Unprocessable(
            "mask_wrong_size",
            f"The mask is {size[0]} x {size[1]} pixels and the photo, upright and turned as its job turns it, "
            f"{photo[0]} x {photo[1]}; send a mask of that size.",
        )


def mask_of(picture: Picture) -> Mask:
    """What a decoded mask marks: where it is white and not transparent.

    Args:
        picture: 8-bit grey, stored as grey or as colours that are none.

    Returns:
        (H, W) bool.

    Raises:
        Unprocessable: `mask_not_grey` for colours, or more than 8 bits.
    """
    if picture.rgb.dtype != np.uint8:
        raise _not_grey("more than 8 bits a sample")
    marked = np.empty((picture.height, picture.width), np.bool_)
    for top in range(0, picture.height, _BAND_ROWS):
        band: Pixels = picture.rgb[top : top + _BAND_ROWS]
        if not picture.grey and int((band.max(axis=2) - band.min(axis=2)).max()) > MOST_COLOUR:
            raise _not_grey("colours")
        marked[top : top + _BAND_ROWS] = band[:, :, 1] >= MARKED_FROM
    if picture.alpha is not None:
        marked &= picture.alpha >= MARKED_FROM
    return marked


def pack_mask(mask: Mask) -> bytes:
    """(H, W) bool as bytes to keep."""
    height, width = mask.shape
    return _SIZE.pack(width, height) + zlib.compress(np.packbits(mask, axis=1).tobytes(), 6)


def unpack_mask(data: bytes, photo: tuple[int, int]) -> Mask:
    """What `pack_mask` packed, for a photo of this width and height: (H, W) bool.

    Raises:
        Unprocessable: `mask_wrong_size` for that of another photo, `mask_unreadable` for what is no mask of ours.
    """
    if len(data) < _SIZE.size:
        raise _unreadable()
    width, height = _SIZE.unpack_from(data)
    check_mask_size((width, height), photo)
    row_bytes = -(-width // 8)
    stream = zlib.decompressobj()
    try:
        bits = stream.decompress(data[_SIZE.size :], row_bytes * height + 1)
    except zlib.error:
        raise _unreadable() from None
    if len(bits) != row_bytes * height or not stream.eof:  # only a whole stream has its checksum
        raise _unreadable()
    rows = np.frombuffer(bits, np.uint8).reshape(height, row_bytes)
    return np.unpackbits(rows, axis=1, count=width).view(np.bool_)


def _not_grey(what: str) -> Unprocessable:
    return Unprocessable(
        "mask_not_grey",
        f"The mask has {what}; send an 8-bit grey PNG or WebP that is white where the photo is to be repaired.",
    )


def _unreadable() -> Unprocessable:
    return Unprocessable("mask_unreadable", "The kept mask cannot be read; send it again.")
