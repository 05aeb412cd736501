"""The `Picture`: plain data, which crosses the backend border."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from app.notices import Notice

_BAND_ROWS = 256  # a photo with colours is told by its first band, and little memory is needed

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclasses.dataclass(frozen=True)
class Picture:
    """One decoded photo, upright (EXIF orientation applied and reset).

    Attributes:
        rgb: (H, W, 3), uint8 in [0, 255] or uint16 in [0, 65535], RGB. A grey photo has three equal channels.
        alpha: (H, W), same dtype as `rgb`, straight (not premultiplied), or None when the photo has none.
        grey: True when the photo was grey; the result is written as grey again.
        icc_profile: the profile that `rgb` is encoded in; None means sRGB (or unknown, taken as sRGB).
        srgb_table: what the colours are in sRGB, of the profile (`srgb_table`): (256,) uint8 of a grey photo, else
            (52, 52, 52, 3); None where they are sRGB already, or where nothing can be made of the profile.
        exif: EXIF block (TIFF header first, without the ``Exif\\0\\0`` mark), orientation already reset, or None.
        xmp: XMP packet as UTF-8 bytes, or None.
        dpi: (x, y) pixels per inch, or None.
        iptc: IPTC data sets (IIM), or None.
        texts: keyword and text of a PNG's texts; a JPEG's comment has the keyword Comment.
        source_format: Pillow's name of the format it came from (JPEG, PNG, WEBP, TIFF, BMP, AVIF, HEIF).
        notes: what had to be given up while decoding (a broken profile, say).
        pages: how many pages the file has that this picture is one of (of a TIFF; else 1).
    """

    rgb: Pixels
    alpha: Pixels | None = None
    grey: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    source_format: str = "PNG"
    notes: tuple[Notice, ...] = ()
    iptc: bytes | None = None
    texts: tuple[tuple[str, str], ...] = ()
    pages: int = 1
    srgb_table: NDArray[np.uint8] | None = None

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.rgb.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.rgb.shape[0])

    def is_colourless(self) -> bool:
        """Whether the three colours are equal everywhere: a grey photo, also one that its file keeps as RGB."""
        bands = (self.rgb[top : top + _BAND_ROWS] for top in range(0, self.height, _BAND_ROWS))
        return self.grey or all(
            np.array_equal(band[..., 0], band[..., 1]) and np.array_equal(band[..., 0], band[..., 2]) for band in bands
        )


@dataclasses.dataclass(frozen=True)
class NormalizedColor:
    """Colours ready for the network.

    Attributes:
        pixels: (H, W, 3) RGB or (H, W) grey, uint8 or uint16 (16-bit photos mostly keep their own space).
        icc_profile: what to tag the result with, or None.
        notes: what had to be given up.
    """

    pixels: Pixels
    icc_profile: bytes | None = None
    notes: tuple[str, ...] = ()
