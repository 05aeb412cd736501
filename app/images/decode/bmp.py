"""The pixels of a BMP whose colours are cut out of a number by masks, whatever those are."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from app.errors import Unprocessable
from app.images.bmp_header import MaskedBmp
from app.images.decode.channels import Channels
from app.images.header import undecodable

_MAX_MASK_BITS = 16


def masked_channels(file: BinaryIO, bmp: MaskedBmp) -> Channels:
    """RGB in 8 bits, or in 16 where a mask is wider, and alpha if there is a mask for it."""
    places = [_place(mask) for mask in bmp.masks]
    numbers = _numbers(file, bmp)
    deep = max(bits for _, bits in places) > 8
    red, green, blue = (_spread(numbers, *place, deep=deep) for place in places[:3])
    alpha = _spread(numbers, *places[3], deep=deep) if bmp.masks[3] else None
    return Channels(np.dstack([red, green, blue]), "RGB", alpha)


def _place(mask: int) -> tuple[int, int]:
    """The lowest bit of a mask and how many bits it has; 0 bits for no mask."""
    shift = (mask & -mask).bit_length() - 1 if mask else 0
    bits = (mask >> shift).bit_length()
    if mask != ((1 << bits) - 1) << shift or bits > _MAX_MASK_BITS:
        raise Unprocessable("unsupported_depth", "This BMP has masks of colours that cannot be read; save it as PNG.")
    return shift, bits


def _numbers(file: BinaryIO, bmp: MaskedBmp) -> NDArray[Any]:
    """(H, W) the numbers of the pixels, from top to bottom."""
    row_bytes = (bmp.width * bmp.bits + 31) // 32 * 4
    file.seek(bmp.start)
    data = file.read(row_bytes * bmp.height)
    if len(data) < row_bytes * bmp.height:
        raise undecodable("BMP")
    rows: NDArray[Any] = np.frombuffer(data, f"<u{bmp.bits // 8}").reshape(bmp.height, -1)[:, : bmp.width]
    return rows if bmp.top_down else rows[::-1]


def _spread(numbers: NDArray[Any], shift: int, bits: int, *, deep: bool) -> NDArray[Any]:
    """(H, W) the bits of one mask over the full range of 8 or 16 bits; zeros for no mask."""
    peak, most = 65535 if deep else 255, max(1, (1 << bits) - 1)
    table: NDArray[Any] = (np.arange(most + 1, dtype=np.uint64) * peak + most // 2) // most
    result: NDArray[Any] = table.astype(np.uint16 if deep else np.uint8)[(numbers >> shift) & ((1 << bits) - 1)]
    return result
