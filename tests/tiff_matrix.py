"""The TIFF and BMP files of the differential test: every depth, layout and compression, by four writers."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests import picture_factory as make
from tests.tiff_writer import TiffWriter

WIDTH, HEIGHT = 37, 27
KINDS = {
    "white is zero": (0, 1, ()),
    "grey": (1, 1, ()),
    "rgb": (2, 3, ()),
    "rgba": (2, 4, (2,)),
    "grey alpha": (1, 2, (2,)),
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips": {"rows": 5},
    "tiles": {"tile": (16, 32)},
    "planes": {"planar": True, "rows": 7},
    "deflate strips": {"compression": 8, "rows": 8},
    "packbits": {"compression": 32773, "rows": 3},
    "bits reversed": {"fill_order": 2},
}
DEPTHS = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 24, 32)

Maker = Callable[[], bytes]


def photo() -> NDArray[np.uint8]:
    """(H, W, 3) a small photo."""
    return make.photo(WIDTH, HEIGHT)


def samples(count: int, bits: int) -> NDArray[Any]:
    """(H, W, count) numbers of `bits`: the photo with noise in its low bits; the last of 2 or 4 is a slope."""
    kind = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
    noise = np.random.default_rng(bits).random((HEIGHT, WIDTH, 4))
    slope = np.linspace(0.1, 1, WIDTH)[None].repeat(HEIGHT, 0)
    values = np.dstack([(photo() + noise[..., :3]) / 256, slope])
    chosen = values[..., {1: [1], 2: [1, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[count]]
    return (chosen * ((1 << bits) - 1)).round().astype(kind)


def _by_hand(kind: str, bits: int, how: dict[str, Any], order: str, big: bool) -> Maker:
    photometric, count, extras = KINDS[kind]

    def content() -> bytes:
        writer = TiffWriter(order, big=big)
        writer.page(samples(count, bits), photometric, bits, extras=extras, **how)
        return writer.content()

    return content


def meant(kind: str, bits: int) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """(H, W, 3) colours and (H, W) alpha, 0 to 1, that a file by hand was made of."""
    photometric, count, extras = KINDS[kind]
    values = samples(count, bits) / ((1 << bits) - 1)
    colours = values[..., :-1] if extras else values
    colours = 1 - colours if photometric == 0 else colours
    return np.broadcast_to(colours, (HEIGHT, WIDTH, 3)), values[..., -1] if extras else None


def _hand_made() -> dict[str, Maker]:
    """A part of all combinations, taken so that each pair of properties comes up."""
    found, number = {}, 0
    for kind in KINDS:
        for bits in DEPTHS:
            for name, how in LAYOUTS.items():
                number += 1
                if number % 3 and bits not in (8, 16):
                    continue
                order, big = "<>"[number // 2 % 2], number // 5 % 2 == 1
                label = f"by hand: {kind}, {bits} bits, {name}, {'II' if order == '<' else 'MM'}{' big' if big else ''}"
                found[label] = _by_hand(kind, bits, how, order, big)
    return found


def _by_pillow() -> dict[str, Maker]:
    image = Image.fromarray(photo())
    found: dict[str, Maker] = {}
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"):
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group3", "group4"):
            if compression.startswith("group") != (mode == "1") and compression != "raw":
                continue
            if compression == "jpeg" and mode not in ("L", "RGB", "CMYK"):
                continue
            picture = Image.fromarray(samples(1, 16)[..., 0]) if mode == "I;16" else image.convert(mode)
            if mode == "RGBA":
                picture.putalpha(Image.fromarray(samples(2, 8)[..., 1]))
            found[f"by Pillow: {mode}, {compression}"] = _saved(picture, compression)
    return found


def _saved(picture: Image.Image, compression: str) -> Maker:
    return lambda: make.saved(picture, "TIFF", compression=compression)


def _by_opencv() -> dict[str, Maker]:
    found: dict[str, Maker] = {}
    for bits in (8, 16):
        for count in (1, 3):
            for name, number in (("none", 1), ("lzw", 5), ("deflate", 8)):
                found[f"by OpenCV: {count} x {bits} bits, {name}"] = _encoded(samples(count, bits), number)
    return found


def _encoded(values: NDArray[Any], compression: int) -> Maker:
    def content() -> bytes:
        whole, data = cv2.imencode(".tif", values[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, compression])
        assert whole
        return bytes(data.tobytes())

    return content


def _by_tifffile() -> dict[str, Maker]:
    found: dict[str, Maker] = {}
    for bits in (8, 16, 32):
        for order in "<>":
            layouts: dict[str, dict[str, Any]] = {
                "contig": {},
                "predictor": {"compression": "zlib", "predictor": True},
                "tiles": {"tile": (16, 16)},
                "rows": {"rowsperstrip": 4, "compression": "zlib"},
                "bigtiff": {"bigtiff": True},
            }
            for name, how in layouts.items():
                for kind in ("minisblack", "rgb"):
                    values = samples(1, bits)[..., 0] if kind == "minisblack" else samples(3, bits)
                    options: dict[str, Any] = {"photometric": kind, "byteorder": order, **how}
                    found[f"by tifffile: {kind}, {bits} bits, {order}, {name}"] = _written(values, options)
    floats = (samples(3, 16) / 65535).astype(np.float32)
    found["by tifffile: floats"] = _written(floats, {"photometric": "rgb"})
    found["by tifffile: half floats"] = _written(floats.astype(np.float16), {"photometric": "rgb"})
    return found


def _written(values: NDArray[Any], options: dict[str, Any]) -> Maker:
    def content() -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, values, **options)
        return buffer.getvalue()

    return content


def bmp(masks: tuple[int, ...], bits: int, *, top_down: bool = False, header: int = 56) -> bytes:
    """A BMP whose colours are cut out by masks (red, green, blue, alpha), each filled with the photo's samples."""
    numbers = np.zeros((HEIGHT, WIDTH), np.uint32)
    for index, mask in enumerate(masks):
        if mask:
            shift, width = (mask & -mask).bit_length() - 1, bin(mask).count("1")
            numbers |= samples(4, width)[..., index].astype(np.uint32) << np.uint32(shift)
    rows = numbers if top_down else numbers[::-1]
    lines = [row.astype(f"<u{bits // 8}").tobytes() for row in rows]
    pixels = b"".join(line + bytes(-len(line) % 4) for line in lines)
    height = -HEIGHT if top_down else HEIGHT
    info = struct.pack("<IiiHHIIiiII", header, WIDTH, height, 1, bits, 3, len(pixels), 2835, 2835, 0, 0)
    info = (info + struct.pack("<4I", *masks))[: header if header > 40 else 52].ljust(header, b"\0")
    start = 14 + len(info)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + pixels


BMP_MASKS: dict[str, tuple[tuple[int, ...], int]] = {
    "565": ((0xF800, 0x07E0, 0x001F, 0), 16),
    "555": ((0x7C00, 0x03E0, 0x001F, 0), 16),
    "1555": ((0x7C00, 0x03E0, 0x001F, 0x8000), 16),
    "4444": ((0x0F00, 0x00F0, 0x000F, 0xF000), 16),
    "8888": ((0xFF0000, 0xFF00, 0xFF, 0xFF000000), 32),
    "888x": ((0xFF0000, 0xFF00, 0xFF, 0), 32),
    "rgba": ((0xFF, 0xFF00, 0xFF0000, 0xFF000000), 32),
    "abgr": ((0xFF000000, 0xFF0000, 0xFF00, 0xFF), 32),
    "10 bits": ((0x3FF00000, 0xFFC00, 0x3FF, 0), 32),
    "666": ((0x3F000, 0xFC0, 0x3F, 0), 32),
}


def _bmps() -> dict[str, Maker]:
    found: dict[str, Maker] = {}
    for mode in ("1", "L", "P", "RGB"):
        found[f"by Pillow: BMP {mode}"] = _saved_bmp(mode)
    for name, (masks, bits) in BMP_MASKS.items():
        for top_down in (False, True):
            for header in (40, 56, 124):
                if header == 40 and masks[3]:
                    continue
                label = f"by hand: BMP {name}, {'top down' if top_down else 'bottom up'}, header {header}"
                found[label] = _masked(masks, bits, top_down, header)
    return found


def _saved_bmp(mode: str) -> Maker:
    return lambda: make.saved(Image.fromarray(photo()).convert(mode), "BMP")


def _masked(masks: tuple[int, ...], bits: int, top_down: bool, header: int) -> Maker:
    return lambda: bmp(masks, bits, top_down=top_down, header=header)


FILES: dict[str, Maker] = {**_hand_made(), **_by_pillow(), **_by_opencv(), **_by_tifffile(), **_bmps()}
