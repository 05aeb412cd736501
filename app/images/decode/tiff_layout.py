"""How the samples of one TIFF page lie in the file: strips or tiles, depth, compression; each number bounded."""

from __future__ import annotations

import dataclasses

from app.errors import Unprocessable
from app.images.tiff_directories import Directory
from app.images.tiff_pages import COMPRESSION, PHOTOMETRIC, TILE_WIDTH, TiffPage

BITS, FILL_ORDER, SAMPLES_PER_PIXEL, ROWS_PER_STRIP, PLANAR, PREDICTOR = 258, 266, 277, 278, 284, 317
TILE_HEIGHT, EXTRA_SAMPLES, SAMPLE_FORMAT, DEPTH = 323, 338, 339, 32997
NO_COMPRESSION, OLD_JPEG, JPEG = 1, 6, 7
FAX = {2: "CCITT RLE", 3: "CCITT group 3", 4: "CCITT group 4"}
DEFLATE = {8, 32946}
# Compressions of plain bytes: what they hold is the same whatever the samples mean.
BYTE_COMPRESSIONS = {5, 8, 32773, 32946, 34925, 50000}  # LZW, Deflate, PackBits, Deflate (old), LZMA, ZSTD
_NAMES = {
    32766: "NeXT",
    32809: "ThunderScan",
    32909: "PixarLog",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    33007: "JPEG",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG",
    34933: "PNG",
    34934: "JPEG XR",
    22610: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, CIELAB: 3, ICCLAB: 3}
_PHOTOMETRIC_NAMES = {10: "ITU Lab", 32844: "LogL", 32845: "LogLuv"}
_MAX_SAMPLES, _MAX_BITS = 32, 64
_SEPARATE = 2


@dataclasses.dataclass(frozen=True)
class Layout:
    """One page's samples: all of `bits` in one `format`, in segments (strips or tiles) of equal width."""

    width: int
    height: int
    samples: int
    bits: int
    format: int
    compression: int
    photometric: int
    predictor: int
    extras: tuple[int, ...]
    separate: bool
    tiled: bool
    reversed_bits: bool
    segment_width: int
    segment_height: int

    @property
    def colours(self) -> int:
        """Samples of one pixel that are colour; the others are extra."""
        return COLOURS[self.photometric]

    @property
    def planes(self) -> int:
        """How many planes stand one after another."""
        return self.samples if self.separate else 1

    @property
    def samples_together(self) -> int:
        """Samples of one pixel that stand side by side."""
        return 1 if self.separate else self.samples

    @property
    def across(self) -> int:
        """Segments from left to right."""
        return -(-self.width // self.segment_width)

    @property
    def down(self) -> int:
        """Segments from top to bottom."""
        return -(-self.height // self.segment_height)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of a segment."""
        return (self.segment_width * self.samples_together * self.bits + 7) // 8

    def segment_rows(self, index: int) -> int:
        """Rows of a segment; only the last strip of a plane may have fewer than the others."""
        if self.tiled:
            return self.segment_height
        return min(self.segment_height, self.height - index % self.down * self.segment_height)


def unsupported(kind: str) -> Unprocessable:
    """The error for a kind of samples that is understood and not read; `kind` finishes "This TIFF holds ..."."""
    return Unprocessable(
        "unsupported_depth",
        f"This TIFF holds {kind}, which cannot be read; save it as RGB or grey with 8 or 16 bits a channel.",
    )


def read_layout(page: TiffPage) -> Layout:
    """The layout of a page. Raises `unsupported_depth` or `unsupported_compression` with the name of the kind."""
    tags = page.directory
    compression = tags.number(COMPRESSION, NO_COMPRESSION)
    samples = tags.number(SAMPLES_PER_PIXEL, 0) or max(1, len(tags.numbers(BITS)))
    photometric = tags.number(PHOTOMETRIC, _likely_photometric(compression, samples))
    _check_kinds(tags, compression, photometric, samples)
    bits = _one_of(tags.numbers(BITS)[:samples], 1, "channels of different depths")
    kind = _one_of(tags.numbers(SAMPLE_FORMAT)[:samples], UNSIGNED, "channels of different kinds of numbers")
    if not 1 <= bits <= _MAX_BITS or kind not in (UNSIGNED, SIGNED, FLOAT, UNDEFINED):
        raise unsupported(f"samples of {bits} bits" if kind in (UNSIGNED, SIGNED, FLOAT) else "complex numbers")
    tiled = TILE_WIDTH in tags.entries
    if tiled:
        width, height = tags.number(TILE_WIDTH, 0), tags.number(TILE_HEIGHT, 0)
    else:
        width, height = page.width, min(tags.number(ROWS_PER_STRIP, page.height) or page.height, page.height)
    if width < 1 or height < 1:
        raise ValueError("strips or tiles without a size")
    return Layout(
        width=page.width,
        height=page.height,
        samples=samples,
        bits=bits,
        format=UNSIGNED if kind == UNDEFINED else kind,
        compression=compression,
        photometric=photometric,
        predictor=tags.number(PREDICTOR, 1) if compression in BYTE_COMPRESSIONS else 1,
        extras=tags.numbers(EXTRA_SAMPLES),
        separate=tags.number(PLANAR, 1) == _SEPARATE and samples > 1,
        tiled=tiled,
        reversed_bits=tags.number(FILL_ORDER, 1) == 2,
        segment_width=width,
        segment_height=height,
    )


def _likely_photometric(compression: int, samples: int) -> int:
    """What a page without the tag most likely is."""
    if samples >= COLOURS[RGB]:
        return RGB
    return WHITE_IS_ZERO if compression in FAX else BLACK_IS_ZERO


def _check_kinds(tags: Directory, compression: int, photometric: int, samples: int) -> None:
    known = {NO_COMPRESSION, JPEG, OLD_JPEG, *FAX, *BYTE_COMPRESSIONS}
    if compression not in known:
        name = _NAMES.get(compression, f"number {compression}")
        raise Unprocessable(
            "unsupported_compression",
            f"This TIFF is compressed with the method {name}, which cannot be read; save it with LZW or without "
            "compression.",
        )
    if photometric not in COLOURS:
        raise unsupported(f"colours of the kind {_PHOTOMETRIC_NAMES.get(photometric, f'number {photometric}')}")
    if samples > _MAX_SAMPLES:
        raise unsupported(f"{samples} channels")
    if samples < COLOURS[photometric]:
        raise unsupported(f"{samples} channels where its colours need {COLOURS[photometric]}")
    if tags.number(DEPTH, 1) > 1:
        raise unsupported("a volume of several layers")


def _one_of(values: tuple[int, ...], default: int, kind: str) -> int:
    """The one value that all samples share."""
    if len(set(values)) > 1:
        raise unsupported(kind)
    return values[0] if values else default
