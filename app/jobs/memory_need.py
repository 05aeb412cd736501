"""How much main memory a restoration on this machine takes at least, and which photos may not be in work together.

Measured with `python -m benchmarks.memory` on a CPU: the process with its networks, and for each pixel of the result
its canvas of floats and the picture itself. Tiles come on top, and adapt to what is free.
"""

from __future__ import annotations

import json
import math

from app.errors import TooLarge
from app.store import Attempt

PROCESS_BYTES = 700 * 1024 * 1024
BYTES_PER_RESULT_PIXEL = 15
PHOTOS_AT_ONCE = 3  # one decoded ahead, one restored, one encoded


def need_bytes(pixels: int, scale: float) -> int:
    """What a photo of so many pixels takes beside the process itself."""
    return int(pixels * scale * scale * BYTES_PER_RESULT_PIXEL)


def check_memory(pixels: int, scale: float, budget_bytes: int) -> None:
    """Raises `TooLarge` `memory_too_small`, with what would fit, for a photo that can never be restored here."""
    room = budget_bytes - PROCESS_BYTES
    if need_bytes(pixels, scale) <= room:
        return
    most = max(0.0, room / BYTES_PER_RESULT_PIXEL)
    fits = math.floor(10 * math.sqrt(most / pixels)) / 10
    remedy = f"the largest scale that fits is {fits:g}" if fits >= 1 else "make the photo smaller first"
    raise TooLarge(
        "memory_too_small",
        f"At scale {scale:g} the result would have {pixels * scale * scale / 1e6:.0f} megapixels, and this service has "
        f"memory for {most / 1e6:.0f}; {remedy}.",
    )


def must_be_alone(attempt: Attempt, budget_bytes: int) -> bool:
    """Whether there is no room for as many such photos as may be in work at once."""
    scale = float(json.loads(attempt.options_json).get("scale", 4.0))
    need = need_bytes(attempt.photo_width * attempt.photo_height, scale)
    return PHOTOS_AT_ONCE * need > budget_bytes - PROCESS_BYTES
