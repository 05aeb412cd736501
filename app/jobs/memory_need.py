"""How much main memory a restoration on this machine takes at least, and which photos may not be in work together.

Measured with `python -m benchmarks.memory_needs` on a CPU in control groups of 2 GB, and rounded up: the service with
the largest network and its smallest tiles, and for each pixel of photo and result the pictures, the canvas of floats
and the encoder. Alpha and 16 bits, which a JPEG cannot have, take most. Larger tiles adapt to what is free.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable

from app.errors import TooLarge
from app.images import LARGE_PIXELS
from app.options import Repair
from app.store import Attempt

PROCESS_BYTES = 900 * 1024 * 1024  # measured: 568 MB loaded, and 312 MB of RealESRGAN_x4plus at work
NETWORK_BYTES = 332 * 1024 * 1024  # of these the part of the network at work, which a second one takes again
# Cutting into tiles, from pixels in hand: two rows of tiles of each level. `benchmarks.pyramids` measured 163 MB at
# 20,000 pixels of width and 339 MB at 40,000, whatever the height.
TILES_BYTES, TILES_BYTES_PER_COLUMN = 32 * 1024 * 1024, 10 * 1024
TILES_FROM_FILE_BYTES = 256 * 1024 * 1024  # more from a file: a process for it, and rows of the decoder
WHOLE_BYTES_PER_PIXEL = 14  # of a file that is decoded whole before it is cut into tiles
PHOTOS_AT_ONCE = 3  # of one owner: one decoded ahead, one restored, one encoded


@dataclasses.dataclass(frozen=True)
class BytesPerPixel:
    """What each pixel of a photo and of its result takes."""

    photo: int
    result: int


EIGHT_BITS = BytesPerPixel(photo=40, result=12)  # measured as PNG: 30 and 7
DEEP = BytesPerPixel(photo=54, result=18)  # measured with alpha and 16 bits: 53 and 17.9
REPAIR_BYTES_PER_PIXEL = 12  # of the photo: its filled copy, probabilities and masks
_ALWAYS_EIGHT_BITS = frozenset(("image/jpeg", "image/bmp"))


def bytes_per_pixel(mime: str) -> BytesPerPixel:
    """By what a photo of this type can be, since only its decoder knows what it is."""
    return EIGHT_BITS if mime in _ALWAYS_EIGHT_BITS else DEEP


def need_bytes(pixels: int, scale: float, mime: str, *, repaired: bool = False) -> int:
    """What a photo of so many pixels takes beside the process itself; `repaired` where damage is to be filled."""
    each = bytes_per_pixel(mime)
    return int(pixels * (each.photo + scale * scale * each.result + (REPAIR_BYTES_PER_PIXEL if repaired else 0)))


def check_memory(pixels: int, scale: float, mime: str, budget_bytes: int, *, repaired: bool = False) -> None:
    """Raises `TooLarge` `memory_too_small`, with what would fit, for a photo that can never be restored here."""
    room = budget_bytes - PROCESS_BYTES
    if need_bytes(pixels, scale, mime, repaired=repaired) <= room:
        return
    each = bytes_per_pixel(mime)
    photo_bytes = need_bytes(pixels, 0.0, mime, repaired=repaired)
    most = max(0.0, (room - photo_bytes) / each.result)  # pixels of the result
    fits = math.floor(10 * math.sqrt(most / pixels)) / 10
    remedy = f"the largest scale that fits is {fits:g}" if fits >= 1 else "make the photo smaller first"
    raise TooLarge(
        "memory_too_small",
        f"At scale {scale:g} the result would have {pixels * scale * scale / 1e6:.0f} megapixels, and this service has "
        f"memory for {most / 1e6:.0f}; {remedy}.",
    )


def check_attempt_memory(attempt: Attempt, scale: float, budget_bytes: int) -> None:
    """`check_memory` of an attempt's photo."""
    pixels, repaired = attempt.photo_width * attempt.photo_height, _is_repaired(attempt)
    check_memory(pixels, scale, attempt.photo_mime, budget_bytes, repaired=repaired)


def tiles_bytes(width: int, height: int) -> int:
    """What it takes to cut a picture of this size into tiles; 0 for one that is shown without."""
    return TILES_BYTES + TILES_BYTES_PER_COLUMN * width if width * height > LARGE_PIXELS else 0


def cutting_bytes(width: int, height: int, *, in_bands: bool) -> int:
    """What it takes to cut a file of so many pixels into tiles; `in_bands`: without decoding it whole."""
    decoded = 0 if in_bands else WHOLE_BYTES_PER_PIXEL * width * height
    return TILES_FROM_FILE_BYTES + TILES_BYTES + TILES_BYTES_PER_COLUMN * width + decoded


def has_room_for_tiles(attempt: Attempt, scale: float, budget_bytes: int) -> bool:
    """Whether this attempt's result can be cut into tiles while it is encoded. No photo is refused for want of that."""
    return _need_with_tiles(attempt, scale) <= budget_bytes - PROCESS_BYTES


def must_be_alone(attempt: Attempt, budget_bytes: int) -> bool:
    """Whether there is no room for as many such photos as may be in work at once, each with its tiles."""
    return PHOTOS_AT_ONCE * attempt_bytes(attempt) > budget_bytes - PROCESS_BYTES


def fit_together(need_bytes: Iterable[int], budget_bytes: int) -> bool:
    """Whether photos that need so much, each as `attempt_bytes` says, can be in work at once."""
    return sum(need_bytes) <= budget_bytes - PROCESS_BYTES


def attempt_bytes(attempt: Attempt) -> int:
    """What an attempt's photo takes beside the process itself, with its tiles."""
    return _need_with_tiles(attempt, float(json.loads(attempt.options_json).get("scale", 4.0)))


def _need_with_tiles(attempt: Attempt, scale: float) -> int:
    width, height = attempt.photo_width, attempt.photo_height
    longer, shorter = round(scale * max(width, height)), round(scale * min(width, height))  # it may be turned
    need = need_bytes(width * height, scale, attempt.photo_mime, repaired=_is_repaired(attempt))
    return need + tiles_bytes(longer, shorter)


def _is_repaired(attempt: Attempt) -> bool:
    return bool(json.loads(attempt.options_json).get("repair", Repair.OFF) != Repair.OFF)
