"""An attempt whose photo is decoded: what the first step of a run gives to the second, and who decodes."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from app.backends.protocol import Backend, DeviceSharing
from app.images import Picture
from app.images.drawn_mask import Mask
from app.options import RestoreOptions
from app.store import Attempt


class PictureDecoder(Protocol):
    """Decodes an upload away from this process (`app.images.Decoder`)."""

    def decode(self, path: Path, *, page: int | None, keep_partial: bool, rotate: int) -> Picture:
        """The first picture of a file, or the asked page of a TIFF, from 0; upright, then turned clockwise by `rotate`.

        Raises `RestoreError` where it cannot be decoded, or lacks pixels that may not be missing.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An attempt that is claimed by the run `token` and decoded.

    `claimed_at` is in monotonic seconds; `shares_device`: its backend restores it in turns with another photo (see
    `DeviceSharing`).
    """

    attempt: Attempt
    token: str
    options: RestoreOptions
    picture: Picture
    claimed_at: float
    cache_key: str | None = None
    mask: Mask | None = None  # (H, W) bool that the attempt came with
    shares_device: bool = False


def expecting_photo(backend: Backend | None) -> AbstractContextManager[None]:
    """While the block decodes a photo, another one at work on a shared device may make room; see `DeviceSharing`."""
    sharing: object = backend
    return sharing.expecting_photo() if isinstance(sharing, DeviceSharing) else nullcontext()
