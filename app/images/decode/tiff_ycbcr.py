"""YCbCr samples of a TIFF that are not JPEG: blocks of pixels that share their two colour differences, to RGB."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.images.decode.tiff_layout import Layout, unsupported
from app.images.tiff_directories import Directory

SUBSAMPLING = 530
_COEFFICIENTS, _REFERENCE = 529, 532
_RATIONAL = 5
_DEPTHS = (8, 16)
_LUMA = (0.299, 0.587, 0.114)
_JPEG_RANGES = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)
_SAME_RANGE, _SAME_WEIGHT = 0.5, 0.002
_NO_PREDICTOR = 1


def subsampling(tags: Directory) -> tuple[int, int]:
    """How many pixels share one pair of colour differences, across and down."""
    values = tags.numbers(SUBSAMPLING)
    across, down = (int(value) for value in (*values, 2, 2)[:2]) if len(values) >= 2 else (2, 2)
    if across not in (1, 2, 4) or down not in (1, 2, 4):
        raise ValueError("a subsampling that does not exist")
    return across, down


def block_layout(tags: Directory, layout: Layout) -> Layout:
    """The page as a grid of blocks: each one is a pixel of the lightness of all its pixels, then Cb and Cr."""
    across, down = subsampling(tags)
    if layout.bits not in _DEPTHS or layout.separate or layout.samples != layout.colours:
        raise unsupported("YCbCr colours in planes, with more channels or of an unusual depth")
    if layout.predictor != _NO_PREDICTOR and (across, down) != (1, 1):
        raise unsupported("YCbCr colours in blocks, stored as differences")
    return dataclasses.replace(
        layout,
        width=-(-layout.width // across),
        height=-(-layout.height // down),
        samples=across * down + 2,
        segment_width=-(-layout.segment_width // across),
        segment_height=-(-layout.segment_height // down),
    )


def differs_from_jpeg(tags: Directory) -> bool:
    """Whether the page gives its YCbCr another meaning than a JPEG file does: another range, or other weights."""
    ranges = np.subtract(_fractions(tags, _REFERENCE, _JPEG_RANGES), _JPEG_RANGES)
    weights = np.subtract(_fractions(tags, _COEFFICIENTS, _LUMA), _LUMA)
    return bool(np.abs(ranges).max() > _SAME_RANGE or np.abs(weights).max() > _SAME_WEIGHT)


def to_rgb(blocks: NDArray[Any], tags: Directory, layout: Layout, block: tuple[int, int] | None = None) -> NDArray[Any]:
    """(rows, columns, samples of a block) to (H, W, 3) RGB of the same type; `block` overrules what the page says."""
    across, down = block or subsampling(tags)
    rgb: NDArray[Any] = np.empty((layout.height, layout.width, 3), blocks.dtype)
    for row, line in enumerate(blocks):
        luma = line[:, :-2].reshape(-1, down, across).transpose(1, 0, 2).reshape(down, -1)  # (down, W)
        differences = np.repeat(line[:, -2:], across, axis=0)  # (W, 2)
        target = rgb[row * down : (row + 1) * down]
        target[...] = _converted(luma, differences, tags)[: len(target), : layout.width]
    return rgb


def _converted(luma: NDArray[Any], differences: NDArray[Any], tags: Directory) -> NDArray[Any]:
    """(rows, W) lightness and (W, 2) colour differences to (rows, W, 3) RGB of the same type."""
    peak = float(np.iinfo(luma.dtype).max)
    middle = (peak + 1) / 2
    black_y, white_y, black_b, white_b, black_r, white_r = _fractions(
        tags, _REFERENCE, (0.0, peak, middle, peak, middle, peak)
    )
    red, green, blue = _fractions(tags, _COEFFICIENTS, _LUMA)
    y = (luma.astype(np.float32) - black_y) * (peak / (white_y - black_y))
    b, r = (
        (differences[:, index].astype(np.float32) - black) * ((peak - middle) / (white - black))
        for index, (black, white) in enumerate(((black_b, white_b), (black_r, white_r)))
    )
    rgb = np.empty((*luma.shape, 3), np.float32)
    rgb[..., 0] = y + r * (2 - 2 * red)
    rgb[..., 2] = y + b * (2 - 2 * blue)
    rgb[..., 1] = (y - blue * rgb[..., 2] - red * rgb[..., 0]) / green
    return np.clip(np.round(rgb), 0, peak).astype(luma.dtype)


def _fractions(tags: Directory, tag: int, default: tuple[float, ...]) -> tuple[float, ...]:
    """The fractions (or whole numbers, as old writers put them) of a tag; the default where they are not usable."""
    entry = tags.entries.get(tag)
    if entry is None or entry.count != len(default):
        return default
    if entry.type == _RATIONAL:
        parts = np.frombuffer(tags.block(tag), f"{tags.reader.order}u4").astype(np.float64)
        found = parts[::2] / parts[1::2] if parts[1::2].all() else parts[:0]
    else:
        found = tags.array(tag).astype(np.float64)
    values = tuple(float(value) for value in found)
    if len(values) != len(default) or not np.isfinite(found).all():
        return default
    pairs = zip(values[::2], values[1::2], strict=False)
    usable = all(values) if tag == _COEFFICIENTS else all(white > black for black, white in pairs)
    return values if usable else default
