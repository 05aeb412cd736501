"""A second reader of pictures, libvips by Debian's `libvips-tools`: what it sees in a file, as an array."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

_VIPS = shutil.which("vips")
needs_vips = pytest.mark.skipif(_VIPS is None, reason="the second reader is missing: apt-get install libvips-tools")
_HEADER_BYTES = 64
_DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4")  # by libvips' numbers of sample formats


class Unreadable(Exception):
    """The second reader does not open the file; its own words."""


def read_with_vips(path: Path, options: str = "") -> NDArray[Any]:
    """(H, W, C) as stored, of the file's own depth; `options` are those of the loader, such as `[unlimited]`.

    The plain arrays come by libvips' own format: pixels behind a short header.
    """
    raw = path.with_name(f"{path.name}.v")
    done = subprocess.run(
        ["vips", "copy", f"{path}{options}", str(raw)], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise Unreadable(done.stderr.strip())
    data = raw.read_bytes()
    raw.unlink()
    width, height, bands, _, dtype = struct.unpack_from("<5i", data, 4)
    return np.frombuffer(data, _DTYPES[dtype], width * height * bands, _HEADER_BYTES).reshape(height, width, bands)
