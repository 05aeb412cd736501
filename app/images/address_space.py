"""How much address space this process has mapped, and whether its limit leaves enough to decode a photo."""

from __future__ import annotations

import resource
from pathlib import Path

_STATM = Path("/proc/self/statm")
# Of a WebP, whose codec holds two canvases beside Pillow's; others take less, at the tightest limit about half of it.
_CODEC_BYTES_PER_PIXEL = 16


def mapped_bytes() -> int | None:
    """What is mapped now; None where no system says (not Linux)."""
    return int(_STATM.read_text().split()[0]) * resource.getpagesize() if _STATM.exists() else None


def lacks_memory(pixels: int) -> bool:
    """Whether less is left of the limit than decoding a photo of so many pixels may take; False without a limit.

    To be asked after a codec failed: each has words of its own for memory that it did not get, and most sound as if the
    photo were broken.
    """
    limit, mapped = resource.getrlimit(resource.RLIMIT_AS)[0], mapped_bytes()
    if limit == resource.RLIM_INFINITY or mapped is None:
        return False
    return limit - mapped < pixels * _CODEC_BYTES_PER_PIXEL
