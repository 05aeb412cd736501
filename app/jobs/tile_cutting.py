"""Cuts large results into tiles for viewers while they are encoded: the pixels are at hand then, and whoever opens the
result finds the tiles there.

What lacks libvips, memory or disk goes without, and so does a result in colours of its own, whose profile only the
decoder's child may open; the first look then cuts the file.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from app.errors import RestoreError
from app.images import LARGE_PIXELS, Picture, Pyramid, cut_picture
from app.jobs.memory_need import has_room_for_tiles
from app.store import Attempt

log = logging.getLogger(__name__)

HandOver = Callable[[str, Pyramid], None]
Keep = Callable[[str], None]


class TileCutter:
    """Cuts results beside their encoding.

    Args:
        folder: where the nameless files of the tiles are made.
        hand_over: takes the tiles with the name of the result, in any thread, and closes them some day.
        disk_ok: whether there is more free disk space than results need themselves.
        memory_bytes: what this process may use in all.
    """

    def __init__(self, folder: Path, hand_over: HandOver, disk_ok: Callable[[], bool], memory_bytes: int) -> None:
        self._folder, self._hand_over, self._disk_ok, self._memory_bytes = folder, hand_over, disk_ok, memory_bytes

    @contextlib.contextmanager
    def beside(self, attempt: Attempt, picture: Picture, scale: float) -> Iterator[Keep]:
        """Cut the picture beside the block, if it is a large one.

        Yields what the block calls with the result's name once it is published: it waits for the tiles and hands them
        over. Without that call they go at the end of the block, which waits for them all the same.
        """
        if not self._is_worth_it(attempt, picture, scale):
            yield _keep_nothing
            return
        with ThreadPoolExecutor(1, thread_name_prefix="tile-cutter") as pool:
            cutting = pool.submit(self._cut, picture)
            kept = False

            def keep(name: str) -> None:
                nonlocal kept
                pyramid = cutting.result()
                if pyramid is not None:
                    self._hand_over(name, pyramid)
                    kept = True

            try:
                yield keep
            finally:
                if not kept:
                    _close(cutting)

    def _is_worth_it(self, attempt: Attempt, picture: Picture, scale: float) -> bool:
        if picture.width * picture.height <= LARGE_PIXELS or picture.srgb_table is not None:
            return False
        return has_room_for_tiles(attempt, scale, self._memory_bytes) and self._disk_ok()

    def _cut(self, picture: Picture) -> Pyramid | None:
        try:
            return cut_picture(picture, self._folder)
        except (RestoreError, OSError, ValueError, MemoryError) as error:  # the photo itself is restored all the same
            log.warning("a result could not be cut into tiles: %s", error)
            return None


def _keep_nothing(_name: str) -> None:
    """Of a result that is not cut."""


def _close(cutting: Future[Pyramid | None]) -> None:
    pyramid = cutting.result()
    if pyramid is not None:
        pyramid.close()
