"""A matrix of small photo files of all containers but TIFF: every depth, colour type and layout of theirs.

PNG and BMP are written here byte by byte, since no package writes all their kinds. Each file is a name and its bytes.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests import picture_factory as make

SIZES = ((23, 17), (40, 24), (3, 5))
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# First column, first row, step to the right and downwards of the seven passes of an interlaced PNG.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png_files() -> Iterator[tuple[str, bytes]]:
    """Every colour type and depth, plain and interlaced, with and without transparent colours, all filters in turn."""
    for kind, depths in _DEPTHS.items():
        for depth, interlaced, transparent, size in itertools.product(depths, (False, True), (False, True), SIZES):
            if transparent and kind in (4, 6):
                continue
            words = (f"png {kind}/{depth}", "interlaced" * interlaced, "tRNS" * transparent, f"{size[0]}x{size[1]}")
            yield " ".join(filter(None, words)), png_file(kind, depth, size, interlaced, transparent)


def png_file(kind: int, depth: int, size: tuple[int, int], interlaced: bool, transparent: bool) -> bytes:
    """One PNG of random samples; a transparent one has the colour of its first pixel, or half of its palette, clear."""
    width, height = size
    chance = np.random.default_rng(kind * 100 + depth + width)
    samples = chance.integers(0, 1 << depth, (height, width, _CHANNELS[kind]))
    if kind in (4, 6):
        samples[0, 0, -1] = (1 << depth) - 1  # not transparent everywhere
    extra = b""
    if kind == 3:
        extra += make.chunk(b"PLTE", chance.integers(0, 256, 3 << depth, dtype=np.uint8).tobytes())
    if transparent and kind == 3:
        extra += make.chunk(b"tRNS", bytes(range(0, 1 << depth)))
    elif transparent:
        samples[-1, -1] = (samples[0, 0] + 1) % (1 << depth)  # not transparent everywhere
        extra += make.chunk(b"tRNS", b"".join(struct.pack(">H", int(value)) for value in samples[0, 0]))
    passes = [samples[y::down, x::right] for x, y, right, down in _ADAM7] if interlaced else [samples]
    rows = b"".join(_filtered(part, depth) for part in passes if part.size)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, int(interlaced))
    chunks = make.chunk(b"IHDR", header) + extra + make.chunk(b"IDAT", zlib.compress(rows)) + make.chunk(b"IEND", b"")
    return make.PNG_SIGNATURE + chunks


def _filtered(samples: NDArray[Any], depth: int) -> bytes:
    """Rows of (H, W, C) as bytes, filtered by the kinds 0 to 4 in turn."""
    packed = _packed(samples.reshape(samples.shape[0], -1), depth)
    step = max(1, samples.shape[2] * depth // 8)
    above = np.zeros(packed.shape[1] + step, int)
    out = []
    for number, row in enumerate(packed):
        padded = np.concatenate([np.zeros(step, int), row])
        left, up, corner = padded[:-step], above[step:], above[:-step]
        guesses = (0, left, up, (left + up) // 2, _paeth(left, up, corner))
        out.append(bytes([number % 5]) + ((row - guesses[number % 5]) % 256).astype(np.uint8).tobytes())
        above = padded
    return b"".join(out)


def _paeth(left: NDArray[Any], up: NDArray[Any], corner: NDArray[Any]) -> NDArray[Any]:
    guess = left + up - corner
    off = [np.abs(guess - each) for each in (left, up, corner)]
    return np.where((off[0] <= off[1]) & (off[0] <= off[2]), left, np.where(off[1] <= off[2], up, corner))


def _packed(rows: NDArray[Any], depth: int) -> NDArray[Any]:
    """(H, N) samples of 1 to 16 bits as (H, bytes), most significant bits first, rows padded to whole bytes."""
    if depth == 16:
        return np.stack([rows >> 8, rows & 255], axis=2).reshape(rows.shape[0], -1)
    bits = (rows[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.reshape(rows.shape[0], -1).astype(np.uint8), axis=1).astype(int)


def jpeg_files() -> Iterator[tuple[str, bytes]]:
    """Grey, YCbCr of every subsampling, RGB, CMYK and YCCK; baseline and progressive, with and without restarts."""
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "grey": ("L", {}),
        **{words: ("RGB", {"subsampling": words}) for words in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")},
        "rgb": ("RGB", {"keep_rgb": True}),
        "cmyk": ("CMYK", {}),
        "ycck": ("CMYK", {}),
    }
    for (words, (mode, options)), progressive, restarts, size in itertools.product(
        kinds.items(), (False, True), (0, 2), SIZES
    ):
        image = Image.fromarray(make.photo(*size)).convert(mode)
        more = {"restart_marker_blocks": restarts} if restarts else {}
        data = make.saved(image, "JPEG", quality=90, progressive=progressive, **options, **more)
        if words == "ycck":
            data = _as_ycck(data)
        name = ("jpeg", words, "progressive" * progressive, "restarts" * bool(restarts), f"{size[0]}x{size[1]}")
        yield " ".join(filter(None, name)), data


def _as_ycck(cmyk: bytes) -> bytes:
    """The same coefficients read as YCCK: the transform in Adobe's marker is 2 instead of 0."""
    at = cmyk.index(b"Adobe") + 11
    return cmyk[:at] + b"\2" + cmyk[at + 1 :]


def webp_files() -> Iterator[tuple[str, bytes]]:
    """Lossy, lossless, with transparency of both kinds, and the first frame of an animation."""
    for size, alpha in itertools.product(SIZES, (False, True)):
        rgb = make.photo(*size)
        image = Image.fromarray(np.dstack([rgb, make.soft_alpha(*size)]) if alpha else rgb)
        words = f"{'alpha ' * alpha}{size[0]}x{size[1]}"
        yield f"webp lossy {words}", make.saved(image, "WEBP", quality=90)
        yield f"webp coarse {words}", make.saved(image, "WEBP", quality=20, method=6)
        yield f"webp lossless {words}", make.saved(image, "WEBP", lossless=True)
        yield f"webp lossless exact {words}", make.saved(image, "WEBP", lossless=True, exact=True)
        frames = {"save_all": True, "append_images": [image.rotate(180)]}
        yield f"webp animated {words}", make.saved(image, "WEBP", lossless=True, **frames)


def avif_files() -> Iterator[tuple[str, bytes]]:
    """Every subsampling, with and without transparency, and grey."""
    for size, alpha, subsampling in itertools.product(SIZES, (False, True), ("4:4:4", "4:2:2", "4:2:0", "4:0:0")):
        rgb = make.photo(*size)
        image = Image.fromarray(np.dstack([rgb, make.soft_alpha(*size)]) if alpha else rgb)
        data = make.saved(image, "AVIF", quality=95, speed=9, subsampling=subsampling)
        yield f"avif {subsampling} {'alpha ' * alpha}{size[0]}x{size[1]}", data


# BMP.

_RGB, _RLE8, _RLE4, _BITFIELDS = 0, 1, 2, 3


def bmp_files() -> Iterator[tuple[str, bytes]]:
    """Palettes, packed and plain colours, run lengths and masks; rows upwards and downwards; old and new headers."""
    for size, top_down in itertools.product(SIZES, (False, True)):
        words = f"{'top-down ' * top_down}{size[0]}x{size[1]}"
        for depth in (1, 4, 8):
            yield f"bmp {depth} {words}", _palette_bmp(depth, size, top_down)
        for depth in (16, 24, 32):
            yield f"bmp {depth} {words}", _colour_bmp(depth, size, top_down)
        for name, masks in (("565", (0xF800, 0x7E0, 0x1F)), ("555", (0x7C00, 0x3E0, 0x1F))):
            yield f"bmp 16 masks {name} {words}", _colour_bmp(16, size, top_down, masks)
        yield f"bmp 32 masks {words}", _colour_bmp(32, size, top_down, (0xFF0000, 0xFF00, 0xFF))
        yield f"bmp 32 masks turned {words}", _colour_bmp(32, size, top_down, (0xFF, 0xFF00, 0xFF0000))
    for size in SIZES:
        yield f"bmp rle8 {size[0]}x{size[1]}", _run_length_bmp(8, size)
        yield f"bmp rle4 {size[0]}x{size[1]}", _run_length_bmp(4, size)
        yield f"bmp os/2 {size[0]}x{size[1]}", _old_bmp(size)


def _bmp(size: tuple[int, int], depth: int, method: int, between: bytes, pixels: bytes, *, top_down: bool) -> bytes:
    """A file with the usual header of 40 bytes; `between` are masks or a palette."""
    colours = len(between) // 4 if depth <= 8 else 0
    height = -size[1] if top_down else size[1]
    header = struct.pack("<IiiHHIIiiII", 40, size[0], height, 1, depth, method, len(pixels), 2835, 2835, colours, 0)
    start = 14 + len(header) + len(between)
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + header + between + pixels


def _bmp_rows(rows: list[bytes], top_down: bool) -> bytes:
    """Rows from the top, padded to four bytes each, in the order of the file."""
    padded = [row + bytes(-len(row) % 4) for row in rows]
    return b"".join(padded if top_down else padded[::-1])


def _indices(depth: int, size: tuple[int, int]) -> tuple[NDArray[Any], bytes]:
    """(H, W) indices with runs in them, and a palette of four bytes a colour."""
    chance = np.random.default_rng(depth + size[0])
    values = chance.integers(0, 1 << depth, (size[1], size[0]))
    values[::2, size[0] // 3 :] = values[::2, :1]
    palette = chance.integers(0, 256, (1 << depth, 4), dtype=np.uint8)
    palette[:, 3] = 0
    return values, palette.tobytes()


def _palette_bmp(depth: int, size: tuple[int, int], top_down: bool) -> bytes:
    values, palette = _indices(depth, size)
    rows = [row.astype(np.uint8).tobytes() for row in _packed(values, depth)]
    return _bmp(size, depth, _RGB, palette, _bmp_rows(rows, top_down), top_down=top_down)


def _colour_bmp(depth: int, size: tuple[int, int], top_down: bool, masks: tuple[int, ...] = ()) -> bytes:
    """16 bits are 5 each without masks; the fourth byte of 32 is not used, and zero."""
    shape = (size[1], size[0])
    chance = np.random.default_rng(depth + size[0])
    if depth == 24:
        values: NDArray[Any] = chance.integers(0, 256, (*shape, 3), dtype=np.uint8)
        rows = [row.tobytes() for row in values]
    else:
        values = chance.integers(0, 1 << min(depth, 24), shape)
        rows = [row.astype(f"<u{depth // 8}").tobytes() for row in values]
    between = struct.pack(f"<{len(masks)}I", *masks)
    return _bmp(size, depth, _BITFIELDS if masks else _RGB, between, _bmp_rows(rows, top_down), top_down=top_down)


def _run_length_bmp(depth: int, size: tuple[int, int]) -> bytes:
    values, palette = _indices(depth, size)
    pixels = b"".join(_runs(row, depth) + b"\0\0" for row in values[::-1]) + b"\0\1"
    return _bmp(size, depth, _RLE8 if depth == 8 else _RLE4, palette, pixels, top_down=False)


def _runs(row: NDArray[Any], depth: int) -> bytes:
    """Runs where there are some, and stretches of at least three as they are, padded to two bytes."""
    out, at = b"", 0
    while at < len(row):
        end = at + 1
        while end < len(row) and row[end] == row[at]:
            end += 1
        if end - at == 1 and len(row) - at >= 3:
            end = min(at + 5, len(row))
            plain = _packed(row[None, at:end], depth)[0].astype(np.uint8).tobytes()
            out += bytes([0, end - at]) + plain + bytes(len(plain) % 2)
        else:
            value = int(row[at])
            out += bytes([end - at, value if depth == 8 else value * 17])
        at = end
    return out


def _old_bmp(size: tuple[int, int]) -> bytes:
    """OS/2's header of 12 bytes, whose palette has three bytes a colour."""
    values, palette = _indices(8, size)
    short = np.frombuffer(palette, np.uint8).reshape(-1, 4)[:, :3].tobytes()
    pixels = _bmp_rows([row.astype(np.uint8).tobytes() for row in values], top_down=False)
    header = struct.pack("<IHHHH", 12, size[0], size[1], 1, 8)
    start = 14 + len(header) + len(short)
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + header + short + pixels


def all_files() -> dict[str, bytes]:
    """Every file of the matrix by its name."""
    makers = (png_files, jpeg_files, webp_files, avif_files, bmp_files)
    return {name: data for maker in makers for name, data in maker()}
