"""A picture's own colours to sRGB by a table, which the decoder's child made of the profile (`colour.srgb_table`).

So the process that serves and restores never opens a profile: to it one is bytes, of which it reads the name of the
colour space at a fixed place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from app.images import samples
from app.images.picture import Picture

Bytes8 = NDArray[np.uint8]

GREYS = 256
POINTS = 52  # on each axis of a table of colours, each exact in 8 bits
_STEP = 5  # of 255, from one point to the next


def profile_space(icc_profile: bytes) -> str:
    """The colour space that a profile's header names (RGB, GRAY, CMYK, Lab), or an empty text; nothing is parsed."""
    if icc_profile[36:40] != b"acsp":
        return ""
    return icc_profile[16:20].decode("latin-1").strip()


def table_grid() -> Bytes8:
    """The colours that a table answers for, (52, 52 * 52, 3) uint8 RGB: the last channel changes fastest."""
    steps = np.arange(0, 256, _STEP, dtype=np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(POINTS, -1, 3)


def table_of(block: bytes) -> Bytes8:
    """A table from its bytes, (256,) or (52, 52, 52, 3) uint8. Raises `ValueError` for bytes that are none."""
    shape = (GREYS,) if len(block) == GREYS else (POINTS, POINTS, POINTS, 3)
    return np.frombuffer(block, np.uint8).reshape(shape)


def greys_to_srgb(greys: Bytes8, table: Bytes8 | None) -> Bytes8:
    """Greys of any shape, uint8, through the table of a grey picture; unchanged without one."""
    return greys if table is None or table.ndim != 1 else table[greys]


def to_srgb(picture: Picture) -> Bytes8:
    """A picture's colours in sRGB, clipped to it: (H, W, 3) uint8, which may be a view of the picture's own."""
    return rgb_to_srgb(samples.eight_bit(picture.rgb), picture)


def rgb_to_srgb(rgb: Bytes8, picture: Picture) -> Bytes8:
    """The same of (h, w, 3) uint8 RGB that was made of a picture's own colours: a smaller copy, say."""
    table = picture.srgb_table
    if table is None or table.ndim == 1:
        return greys_to_srgb(rgb, table)
    # Pillow's table has red changing fastest.
    values = np.ascontiguousarray(table.transpose(2, 1, 0, 3), np.float32).reshape(-1) / np.float32(255)
    lookup = ImageFilter.Color3DLUT(POINTS, values)
    converted = np.empty_like(rgb)
    for rows in samples.row_slices(rgb):
        converted[rows] = np.asarray(Image.fromarray(np.ascontiguousarray(rgb[rows])).filter(lookup))
    return converted
