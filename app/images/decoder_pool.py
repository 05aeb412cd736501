"""Several killable decoders for one process: for headers, for previews and crops that requests ask, and for photos.

Whoever comes takes one whose child stands free, whichever that is, and one is always left for headers. While nothing is
done there is one child; more start when all are at work, and end when they were not needed for a while.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from app.errors import RestoreError
from app.images.decoder import Decoder, shutting_down
from app.images.header import Header, ImageLimits
from app.images.patches import Box, Overview
from app.images.picture import Picture
from app.images.preview import PREVIEW_SIDE_PIXELS
from app.images.pyramid import Pyramid

PHOTOS_AT_ONCE, PREVIEWS_AT_ONCE = 1, 2
DECODERS = PHOTOS_AT_ONCE + PREVIEWS_AT_ONCE + 1  # the last one is for headers
IDLE_SECONDS = 60.0  # then a child that is not the only one ends


class DecoderPool:
    """Calls of `Decoder`, each by one that is free; safe to use from any thread. `clock` is monotonic seconds."""

    def __init__(self, limits: ImageLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._all = clock, [Decoder(limits) for _ in range(DECODERS)]
        self._cold = list(self._all)  # without a child
        self._free: list[tuple[Decoder, float]] = []  # with one, and since when; the last one was used last
        self._changed = threading.Condition()
        self._starting = self._closed = False
        self._photos = threading.BoundedSemaphore(PHOTOS_AT_ONCE)
        self._previews = threading.BoundedSemaphore(PREVIEWS_AT_ONCE)

    def start(self) -> None:
        """Start the first child now. Raises `decoder_unavailable`."""
        with self._borrowed() as decoder:
            decoder.start()

    def decode(
        self,
        path: Path,
        *,
        page: int | None = None,
        keep_partial: bool = False,
        rotate: int = 0,
        as_stored: bool = False,
    ) -> Picture:
        """See `Decoder.decode`. What is asked for as it is stored is a request's mask, and counts as a preview."""
        turn = self._previews if as_stored else self._photos
        with turn, self._borrowed(long=True) as decoder:
            return decoder.decode(path, page=page, keep_partial=keep_partial, rotate=rotate, as_stored=as_stored)

    def read_header(self, path: Path) -> Header:
        """See `Decoder.read_header`."""
        with self._borrowed() as decoder:
            return decoder.read_header(path)

    def preview(
        self,
        path: Path,
        max_side: int = PREVIEW_SIDE_PIXELS,
        max_megapixels: float | None = None,
        *,
        rotate: int = 0,
    ) -> bytes:
        """See `Decoder.preview`."""
        with self._previews, self._borrowed(long=True) as decoder:
            return decoder.preview(path, max_side, max_megapixels, rotate=rotate)

    def overview(self, path: Path, *, keep_partial: bool = False, rotate: int = 0) -> Overview:
        """See `Decoder.overview`."""
        with self._previews, self._borrowed(long=True) as decoder:
            return decoder.overview(path, keep_partial=keep_partial, rotate=rotate)

    def window(self, path: Path, box: Box, *, keep_partial: bool = False, rotate: int = 0) -> Picture:
        """See `Decoder.window`."""
        with self._previews, self._borrowed(long=True) as decoder:
            return decoder.window(path, box, keep_partial=keep_partial, rotate=rotate)

    def face_preview(self, layers: Path, result: Path, index: int, strength: float, max_side: int) -> bytes:
        """See `Decoder.face_preview`."""
        with self._previews, self._borrowed(long=True) as decoder:
            return decoder.face_preview(layers, result, index, strength, max_side)

    def tile_preview(self, pyramid: Pyramid, max_side: int) -> bytes:
        """See `Decoder.tile_preview`."""
        with self._previews, self._borrowed(long=True) as decoder:
            return decoder.tile_preview(pyramid, max_side)

    @property
    def child_pids(self) -> list[int]:
        """Process ids of the children that live."""
        return [decoder.child_pid for decoder in self._all if decoder.child_pid is not None]

    def end_idle(self) -> None:
        """End the children that were not needed for `IDLE_SECONDS`, but for the last one."""
        with self._changed:
            most = len(self._all) - len(self._cold) - 1
            since = self._clock() - IDLE_SECONDS
            resting = [decoder for decoder, used_at in self._free if used_at <= since][:most]
            self._free = [(decoder, used_at) for decoder, used_at in self._free if decoder not in resting]
        for decoder in resting:
            with contextlib.suppress(RestoreError):  # the pool is being closed
                decoder.rest()
        with self._changed:
            self._cold += resting

    def close(self) -> None:
        """Kill all children; what they are at ends with `shutting_down`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for decoder in self._all:
            decoder.close()

    @contextlib.contextmanager
    def _borrowed(self, *, long: bool = False) -> Iterator[Decoder]:
        """A decoder with a child; what takes `long` has the next child started, so that nobody waits for it."""
        with self._changed:
            while not self._free and not self._closed:
                self._start_another()
                self._changed.wait()
            if self._closed:
                raise shutting_down()
            decoder, _ = self._free.pop()
            if long and not self._free:
                self._start_another()
        try:
            yield decoder
        finally:
            self._give_back(decoder)

    def _give_back(self, decoder: Decoder) -> None:
        with self._changed:
            self._free.append((decoder, self._clock()))
            self._changed.notify_all()

    def _start_another(self) -> None:
        """Start one child more in a thread of its own, one at a time. Hold the condition."""
        if self._cold and not self._starting and not self._closed:
            self._starting = True
            threading.Thread(target=self._start, args=(self._cold.pop(),), name="decoder-start", daemon=True).start()

    def _start(self, decoder: Decoder) -> None:
        try:
            # Whoever asks it first tries again, and is told; OSError: no descriptors, memory or processes are left.
            with contextlib.suppress(RestoreError, OSError):
                decoder.start()
        finally:
            with self._changed:
                self._starting = False
            self._give_back(decoder)
