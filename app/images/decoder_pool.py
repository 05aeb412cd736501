"""Several killable decoders for what requests ask of files they do not trust: headers, previews, crops of faces.

They are apart from the one that decodes photos for restoration, so that neither waits for the other. Children start
when they are needed first.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator
from pathlib import Path

from app.images.decoder import Decoder
from app.images.header import Header, ImageLimits
from app.images.patches import Box, Overview
from app.images.picture import Picture
from app.images.preview import PREVIEW_SIDE_PIXELS
from app.images.pyramid import Pyramid

DECODERS = 3


class DecoderPool:
    """Calls of `Decoder`, each by one that is free; safe to use from any thread."""

    def __init__(self, limits: ImageLimits, decoders: int = DECODERS) -> None:
        self._all = [Decoder(limits) for _ in range(decoders)]
        self._free: queue.LifoQueue[Decoder] = queue.LifoQueue()  # the last one used has its child already
        for decoder in reversed(self._all):
            self._free.put(decoder)

    def start(self) -> None:
        """Start the first child now."""
        self._all[0].start()

    def read_header(self, path: Path) -> Header:
        """See `Decoder.read_header`."""
        with self._borrowed() as decoder:
            return decoder.read_header(path)

    def decode(self, path: Path, *, as_stored: bool = False) -> Picture:
        """See `Decoder.decode`."""
        with self._borrowed() as decoder:
            return decoder.decode(path, as_stored=as_stored)

    def preview(
        self,
        path: Path,
        max_side: int = PREVIEW_SIDE_PIXELS,
        max_megapixels: float | None = None,
        *,
        rotate: int = 0,
    ) -> bytes:
        """See `Decoder.preview`."""
        with self._borrowed() as decoder:
            return decoder.preview(path, max_side, max_megapixels, rotate=rotate)

    def overview(self, path: Path, *, keep_partial: bool = False, rotate: int = 0) -> Overview:
        """See `Decoder.overview`."""
        with self._borrowed() as decoder:
            return decoder.overview(path, keep_partial=keep_partial, rotate=rotate)

    def window(self, path: Path, box: Box, *, keep_partial: bool = False, rotate: int = 0) -> Picture:
        """See `Decoder.window`."""
        with self._borrowed() as decoder:
            return decoder.window(path, box, keep_partial=keep_partial, rotate=rotate)

    def face_preview(self, layers: Path, result: Path, index: int, strength: float, max_side: int) -> bytes:
        """See `Decoder.face_preview`."""
        with self._borrowed() as decoder:
            return decoder.face_preview(layers, result, index, strength, max_side)

    def tile_preview(self, pyramid: Pyramid, max_side: int) -> bytes:
        """See `Decoder.tile_preview`."""
        with self._borrowed() as decoder:
            return decoder.tile_preview(pyramid, max_side)

    @property
    def child_pids(self) -> list[int]:
        """Process ids of the children that live."""
        return [decoder.child_pid for decoder in self._all if decoder.child_pid is not None]

    def close(self) -> None:
        """Kill all children; what they are at ends with `shutting_down`."""
        for decoder in self._all:
            decoder.close()

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[Decoder]:
        decoder = self._free.get()
        try:
            yield decoder
        finally:
            self._free.put(decoder)
