"""The bytes of TIFF segments to samples: unpacked, predictor undone, brought to the full range of 8 or 16 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.images.decode.tiff_layout import FLOAT, PALETTE, SIGNED, UNSIGNED, Layout, unsupported

_DIFFERENCES, _FLOAT_DIFFERENCES = 2, 3
_WHOLE = {8: "u1", 16: "u2", 32: "u4", 64: "u8"}
_FLOATS = {16: "f2", 32: "f4", 64: "f8"}
_MAX_UNPACKED_BITS = 32
_PEAK_16 = 65535
_BAND_SAMPLES = 1 << 20
# How far floats may lie outside 0 to 1: resampling overshoots a little.
_OVERSHOOT = 1 / 64


def unpack(data: NDArray[np.uint8], layout: Layout, order: str) -> NDArray[Any]:
    """(rows, row_bytes) uint8 to (rows, W, C) samples as the file means them: unsigned, signed or float."""
    shape = (data.shape[0], layout.segment_width, layout.samples_together)
    if layout.predictor == _FLOAT_DIFFERENCES:
        return _undo_float_differences(data, layout, shape)
    if layout.bits in _WHOLE:
        values = data.view(f"{order}{_WHOLE[layout.bits]}").reshape(shape)
        if layout.predictor == _DIFFERENCES:
            values = np.cumsum(values, axis=1, dtype=_WHOLE[layout.bits])
        return _meaning(values.astype(_WHOLE[layout.bits], copy=False), layout)
    if layout.predictor == _DIFFERENCES:
        raise unsupported(f"samples of {layout.bits} bits, stored as differences")
    return _meaning(_packed(data, layout.bits, shape), layout)


def _meaning(values: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Whole numbers taken as what the format of the samples says."""
    if layout.format == FLOAT:
        if layout.bits not in _FLOATS:
            raise unsupported(f"floating-point samples of {layout.bits} bits")
        return values.view(_FLOATS[layout.bits])
    if layout.format == SIGNED and layout.bits in _WHOLE:
        return values.view(f"i{layout.bits // 8}")
    if layout.format == SIGNED:
        raise unsupported(f"signed samples of {layout.bits} bits")
    return values


def _packed(data: NDArray[np.uint8], bits: int, shape: tuple[int, int, int]) -> NDArray[Any]:
    """Samples of any depth to 32 bits that stand bit by bit, the highest bit first; each row begins at a byte."""
    if bits > _MAX_UNPACKED_BITS:
        raise unsupported(f"samples of {bits} bits")
    rows, per_row = shape[0], shape[1] * shape[2]
    kind: Any = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
    result = np.zeros((rows, per_row), kind)
    step = max(1, _BAND_SAMPLES // per_row)
    for start in range(0, rows, step):
        each = np.unpackbits(data[start : start + step], axis=1)[:, : per_row * bits]
        each = each.reshape(len(each), per_row, bits)  # (rows, W * C, bits)
        for bit in range(bits):
            result[start : start + step] |= each[..., bit].astype(kind) << kind(bits - 1 - bit)
    return result.reshape(shape)


def _undo_float_differences(data: NDArray[np.uint8], layout: Layout, shape: tuple[int, int, int]) -> NDArray[Any]:
    """Adobe's predictor for floats: each row holds all highest bytes first, as differences of bytes."""
    if layout.format != FLOAT or layout.bits not in _FLOATS:
        raise unsupported(f"samples of {layout.bits} bits with the predictor of floats")
    rows, width, samples = shape
    size = layout.bits // 8
    summed = np.cumsum(data.reshape(rows, width * size, samples), axis=1, dtype=np.uint8)
    planes = summed.reshape(rows, size, width * samples)  # (rows, byte of a sample, W * C)
    values = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f">{_FLOATS[layout.bits]}")
    return values.astype(_FLOATS[layout.bits]).reshape(shape)


def storage(layout: Layout) -> Any:
    """The type that a whole page is gathered in; what depends on all its values is scaled only then."""
    if layout.format == FLOAT:
        return np.dtype(_FLOATS.get(layout.bits, "f4"))
    if layout.format == SIGNED:
        return np.dtype(f"i{layout.bits // 8}")
    return np.dtype(np.uint8 if layout.bits <= 8 else np.uint16 if layout.bits <= 16 else np.uint32)


def scale_band(values: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Unsigned samples of 1 to 31 bits over the full range of uint8 or uint16; others, and indexes, as they are."""
    bits = layout.bits
    if layout.format != UNSIGNED or layout.photometric == PALETTE or bits in (8, 16):
        return values
    if bits > 32:
        return (values >> np.uint64(32)).astype(np.uint32)
    if bits > 16:
        return values if bits == 32 else values << np.uint32(32 - bits)
    peak = 255 if bits < 8 else _PEAK_16
    most = (1 << bits) - 1
    scaled = (values.astype(np.uint32) * peak + most // 2) // most
    return scaled.astype(np.uint8 if bits < 8 else np.uint16)


def to_whole(values: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """All samples of a page as uint8 or uint16 over their full range.

    Raises `unsupported_depth` for floats outside 0 to 1 and for signed samples below zero: what is black and what is
    white there, nothing says.
    """
    if layout.format == FLOAT:
        return _from_floats(values)
    if layout.format == SIGNED:
        return _from_signed(values, layout)
    if values.dtype.itemsize <= 2:
        return values
    if layout.bits == 32 and values.max() <= _PEAK_16:  # 16-bit numbers in a wider space, as science writes them
        return values.astype(np.uint16)
    return (values >> np.uint32(16)).astype(np.uint16)


def _from_floats(values: NDArray[Any]) -> NDArray[np.uint16]:
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)) or low < -_OVERSHOOT or high > 1 + _OVERSHOOT:
        raise unsupported("floating-point samples outside the range of 0 to 1")
    result = np.empty(values.shape, np.uint16)
    for row, out in zip(values, result, strict=True):
        out[...] = np.round(np.clip(row.astype(np.float32), 0, 1) * _PEAK_16)
    return result


def _from_signed(values: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Signed samples that are never below zero use one bit less than their depth."""
    if values.min() < 0:
        raise unsupported("signed samples below zero")
    bits = layout.bits - 1
    if bits == 7:
        return ((values.astype(np.uint16) * 255 + 63) // 127).astype(np.uint8)
    if bits > 16:
        if values.max() <= _PEAK_16:
            return values.astype(np.uint16)
        return (values >> (bits - 16)).astype(np.uint16)
    return ((values.astype(np.uint32) * _PEAK_16 + 16383) // 32767).astype(np.uint16)
