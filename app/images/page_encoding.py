"""Several pages into one TIFF file, each written as soon as it is restored, so that no two results are in memory."""

from __future__ import annotations

from pathlib import Path

from app.images.encoding import Encoded, carried_metadata, fitting_profile
from app.images.picture import Picture
from app.images.tiff import TiffPagesWriter, readable
from app.notices import RESULT_CHANGED, Notice, notices_of


class PagesEncoder:
    """Writes the pages of one result to a new file; the caller removes it on failure.

    Args:
        path: where to write.
        total: how many pages there will be.
        metadata: keep, strip_gps or strip.
    """

    def __init__(self, path: Path, total: int, metadata: str) -> None:
        self._file = path.open("w+b")
        self._writer = TiffPagesWriter(self._file, total)
        self._metadata = metadata
        self._size = (0, 0)
        self._notes: dict[Notice, None] = {}

    def add(self, picture: Picture) -> None:
        """Append a page. Raises `too_large_for_format` when the file would have more than 4 gibibytes."""
        carried = carried_metadata(picture, "tiff", self._metadata)
        picture, lost = readable(picture)
        self._writer.add(picture, carried, fitting_profile(picture))
        self._notes |= dict.fromkeys(notices_of(RESULT_CHANGED, (*carried.notes, *lost)))
        self._size = self._size if any(self._size) else (picture.width, picture.height)

    def finish(self) -> Encoded:
        """Close the file; its size in pixels is that of the first page."""
        self._file.seek(0, 2)
        size = self._file.tell()
        self._file.close()
        return Encoded("tif", "image/tiff", *self._size, size, tuple(self._notes))

    def close(self) -> None:
        """Close the file, finished or not; safe to call again."""
        self._file.close()
