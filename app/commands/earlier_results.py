"""Which files of a folder are results of `run.py restore`, and of which photo: a hidden file beside them says so.

Names and times alone would not do: a file of the same name may be another photo, of which there is no second copy.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from app.atomic_files import sync_file
from app.errors import Conflict
from app.result_names import printable

RECORDS_NAME = ".neural-image-restore.jsonl"


@dataclasses.dataclass(frozen=True)
class PhotoVersion:
    """A photo as it was when it was read: its path, its size, and when it was changed, in nanoseconds."""

    path: str
    size_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, photo: Path) -> PhotoVersion:
        """The photo as it is now. Raises `OSError`."""
        facts = photo.stat()
        return cls(str(photo.resolve()), facts.st_size, facts.st_mtime_ns)

    def is_same(self, other: PhotoVersion) -> bool:
        """Whether both are one unchanged photo, wherever it lies by now."""
        return (self.size_bytes, self.changed_ns) == (other.size_bytes, other.changed_ns)


@dataclasses.dataclass(frozen=True)
class _Record:
    photo: PhotoVersion
    result_bytes: int


class EarlierResults:
    """The results of this run and of earlier ones. With `overwrite` every file may be replaced, and none is done."""

    def __init__(self, *, overwrite: bool) -> None:
        self._overwrite = overwrite
        self._folders: dict[Path, dict[str, _Record]] = {}

    def is_done(self, place: Path, photo: PhotoVersion) -> bool:
        """Whether the file at `place` was made from this photo as it is, and is not older. Raises `OSError`."""
        if self._overwrite or not place.is_file() or place.stat().st_mtime_ns < photo.changed_ns:
            return False
        record = self._in(place.parent).get(place.name)
        return record is not None and record.photo.is_same(photo)

    def check(self, place: Path, photo: PhotoVersion) -> None:
        """Judge whether a result of this photo may get its place.

        Raises:
            Conflict: `would_overwrite` when a file is there that is not known as an unchanged result of the photo.
            OSError: the records cannot be read.
        """
        if self._overwrite or not os.path.lexists(place) or place.is_dir():  # a folder cannot be replaced anyway
            return
        record = self._in(place.parent).get(place.name)
        if record is not None and record.photo.path == photo.path and record.result_bytes == place.stat().st_size:
            return
        raise Conflict(
            "would_overwrite",
            f"OUT holds a file {printable(place.name)} that is not known as a result of this photo; "
            "choose another OUT, or replace the file with --overwrite.",
        )

    def record(self, place: Path, photo: PhotoVersion, result_bytes: int) -> None:
        """Note a result just before it gets its name, so that no kill leaves one that the next run does not know.

        Raises:
            OSError: the records cannot be written.
        """
        line = json.dumps({"result": place.name, "bytes": result_bytes, "photo": dataclasses.asdict(photo)})
        file = place.parent / RECORDS_NAME
        with file.open("a", encoding="ascii") as records:
            records.write(f"\n{line}\n")  # one write on a line of its own, beside another run and after a torn line
        sync_file(file)
        self._in(place.parent)[place.name] = _Record(photo, result_bytes)

    def _in(self, folder: Path) -> dict[str, _Record]:
        if folder not in self._folders:
            self._folders[folder] = _read(folder / RECORDS_NAME)
        return self._folders[folder]


def _read(file: Path) -> dict[str, _Record]:
    """The newest record of each name; lines that are not ours are passed over."""
    try:
        lines = file.read_text("ascii", "replace").splitlines()
    except FileNotFoundError:
        return {}
    records: dict[str, _Record] = {}
    for line in filter(None, lines):
        try:
            row = json.loads(line)
            records[str(row["result"])] = _Record(PhotoVersion(**row["photo"]), int(row["bytes"]))
        except (ValueError, TypeError, KeyError):
            continue
    return records
