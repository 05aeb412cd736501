"""A TIFF writer for tests: any order of bytes, depth, layout and compression, put together by hand, right or wrong."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Value = tuple[str, Sequence[Any]]
_KINDS = {
    "B": (1, "B"),
    "A": (2, "B"),
    "H": (3, "H"),
    "I": (4, "I"),
    "R": (5, "I"),
    "U": (7, "B"),
    "F": (11, "f"),
    "Q": (16, "Q"),
}


class TiffWriter:
    """Directories are added one by one; `content` gives the file. Tags are {number: (letter of the type, values)}."""

    def __init__(self, order: str = "<", *, big: bool = False) -> None:
        self.order, self.big = order, big
        mark = b"II" if order == "<" else b"MM"
        if big:
            self.data = bytearray(mark + struct.pack(f"{order}HHHQ", 43, 8, 0, 0))
        else:
            self.data = bytearray(mark + struct.pack(f"{order}HI", 42, 0))
        self._offset = "Q" if big else "I"
        self.link = len(self.data) - struct.calcsize(f"<{self._offset}")

    def put(self, blob: bytes) -> int:
        """Append bytes on an even position, which is returned."""
        self.data += bytes(len(self.data) % 2)
        position = len(self.data)
        self.data += blob
        return position

    def directory(self, tags: Mapping[int, Value], *, linked: bool = True) -> int:
        """Append a directory; unless `linked` is False it follows the last one of the chain. Returns its position."""
        room, rows = struct.calcsize(f"<{self._offset}"), b""
        for tag in sorted(tags):
            letter, values = tags[tag]
            code, item = _KINDS[letter]
            packed = struct.pack(f"{self.order}{len(values)}{item}", *values)
            count = len(values) // (2 if letter == "R" else 1)
            cell = packed.ljust(room, b"\0")
            if len(packed) > room:
                cell = struct.pack(self.order + self._offset, self.put(packed))
            rows += struct.pack(f"{self.order}HH{self._offset}", tag, code, count) + cell
        table = struct.pack(f"{self.order}{'Q' if self.big else 'H'}", len(tags)) + rows
        position = self.put(table + bytes(room))
        if linked:
            struct.pack_into(self.order + self._offset, self.data, self.link, position)
            self.link = position + len(table)
        return position

    def page(self, samples: NDArray[Any], photometric: int, bits: int, *, linked: bool = True, **how: Any) -> int:
        """Append samples (H, W, C), whole numbers of `bits` or floats, and their directory; see `layout` for `how`."""
        tags, blobs = layout(samples, photometric, bits, self.order, **how)
        places = [self.put(blob) for blob in blobs]
        at, sizes = (324, 325) if 322 in tags else (273, 279)
        tags.setdefault(at, ("I", places))
        tags.setdefault(sizes, ("I", [len(blob) for blob in blobs]))
        return self.directory({tag: value for tag, value in tags.items() if value[1]}, linked=linked)

    def content(self) -> bytes:
        """The file."""
        return bytes(self.data)


def layout(
    samples: NDArray[Any],
    photometric: int,
    bits: int,
    order: str = "<",
    *,
    rows: int | None = None,
    tile: tuple[int, int] | None = None,
    planar: bool = False,
    compression: int = 1,
    predictor: int = 1,
    fill_order: int = 1,
    sample_format: int = 1,
    extras: Sequence[int] = (),
    tags: Mapping[int, Value] | None = None,
) -> tuple[dict[int, Value], list[bytes]]:
    """The tags of a page and its strips (of `rows`) or tiles (width, height)."""
    height, width, count = samples.shape
    found: dict[int, Value] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * count),
        259: ("H", [compression]),
        262: ("H", [photometric]),
        277: ("H", [count]),
        284: ("H", [2 if planar else 1]),
    }
    if predictor != 1:
        found[317] = ("H", [predictor])
    if fill_order != 1:
        found[266] = ("H", [fill_order])
    if sample_format != 1:
        found[339] = ("H", [sample_format] * count)
    if extras:
        found[338] = ("H", list(extras))
    planes = [samples[..., index : index + 1] for index in range(count)] if planar else [samples]
    if tile:
        found |= {322: ("I", [tile[0]]), 323: ("I", [tile[1]])}
        parts = [part for plane in planes for part in _tiles(plane, *tile)]
    else:
        step = rows or height
        found[278] = ("I", [step])
        parts = [plane[top : top + step] for plane in planes for top in range(0, height, step)]
    blobs = [_squeeze(_pack(part, bits, order, predictor), compression) for part in parts]
    if fill_order == 2:
        blobs = [bytes(int(f"{byte:08b}"[::-1], 2) for byte in blob) for blob in blobs]
    return {**found, **(tags or {})}, blobs


def _tiles(plane: NDArray[Any], width: int, height: int) -> list[NDArray[Any]]:
    padded = np.pad(plane, ((0, -plane.shape[0] % height), (0, -plane.shape[1] % width), (0, 0)))
    tops, lefts = range(0, padded.shape[0], height), range(0, padded.shape[1], width)
    return [padded[top : top + height, left : left + width] for top in tops for left in lefts]


def _pack(part: NDArray[Any], bits: int, order: str, predictor: int) -> bytes:
    """Samples to the bytes of a strip, one value at a time where they are packed: slow, and plain to see."""
    if predictor == 3:
        big = part.astype(f">f{bits // 8}")
        octets = big.view(np.uint8).reshape(part.shape[0], -1, bits // 8).transpose(0, 2, 1)
        octets = np.ascontiguousarray(octets).reshape(part.shape[0], -1, part.shape[2])
        octets = np.concatenate([octets[:, :1], np.diff(octets, axis=1)], axis=1)
        return octets.astype(np.uint8).tobytes()
    if predictor == 2:
        part = np.concatenate([part[:, :1], np.diff(part, axis=1)], axis=1)
    if bits in (8, 16, 32, 64):
        return part.astype(f"{order}{part.dtype.str[1:]}").tobytes()
    lines = ["".join(f"{value:0{bits}b}" for value in row) for row in part.reshape(part.shape[0], -1).tolist()]
    lines = [line + "0" * (-len(line) % 8) for line in lines]
    return b"".join(int(line, 2).to_bytes(len(line) // 8, "big") for line in lines)


def _squeeze(data: bytes, compression: int) -> bytes:
    if compression in (8, 32946):
        return zlib.compress(data)
    if compression == 32773:  # PackBits, here without a run
        parts = [data[at : at + 128] for at in range(0, len(data), 128)]
        return b"".join(bytes([len(part) - 1]) + part for part in parts)
    return data
