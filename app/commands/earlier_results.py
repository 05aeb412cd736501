"""Which files are results of `run.py restore`, and of which photo: an extended attribute of the result says so.

Names and times alone would not do: a file of the same name may be another photo, of which there is no second copy.
Where the file system (or macOS's Python) has no such attributes, a hidden file in the results' folder says it; it is
not written elsewhere, since a folder with nothing but results is what people pass on and what other programs list.
The photo's path is kept as a digest, so that a result that is given away does not tell it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

from app.atomic_files import sync_file
from app.errors import Conflict
from app.result_names import printable

ATTRIBUTE_NAME = "user.neural-image-restore"
RECORDS_NAME = ".neural-image-restore.jsonl"


@dataclasses.dataclass(frozen=True)
class PhotoVersion:
    """A photo as it was when it was read: a digest of its path, its size, and when it was changed, in nanoseconds."""

    path_digest: str
    size_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, photo: Path) -> PhotoVersion:
        """The photo as it is now. Raises `OSError`."""
        facts = photo.stat()
        digest = hashlib.sha256(os.fsencode(photo.resolve())).hexdigest()
        return cls(digest, facts.st_size, facts.st_mtime_ns)

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
        record = self._of(place)
        return record is not None and record.photo.is_same(photo)

    def check(self, place: Path, photo: PhotoVersion) -> None:
        """Judge whether a result of this photo may get its place.

        Raises:
            Conflict: `would_overwrite` when a file is there that is not known as an unchanged result of the photo.
            OSError: the records cannot be read.
        """
        if self._overwrite or not os.path.lexists(place) or place.is_dir():  # a folder cannot be replaced anyway
            return
        record = self._of(place)
        known = record and (record.photo.path_digest, record.result_bytes)
        if known == (photo.path_digest, place.stat().st_size):
            return
        raise Conflict(
            "would_overwrite",
            f"OUT holds a file {printable(place.name)} that is not known as a result of this photo; "
            "choose another OUT, or replace the file with --overwrite.",
        )

    def record(self, part: Path, place: Path, photo: PhotoVersion) -> None:
        """Note a result just before `part` gets its name `place`, so that no kill leaves one that nobody knows.

        Raises:
            OSError: the records cannot be written.
        """
        record = _Record(photo, part.stat().st_size)
        if _marked(part, record):
            return
        line = json.dumps({"result": place.name, **dataclasses.asdict(record)})
        file = place.parent / RECORDS_NAME
        with file.open("a", encoding="ascii") as records:
            records.write(f"\n{line}\n")  # one write on a line of its own, beside another run and after a torn line
        sync_file(file)
        self._in(place.parent)[place.name] = record

    def _of(self, place: Path) -> _Record | None:
        """What is known of the file at `place`."""
        return _mark_of(place) or self._in(place.parent).get(place.name)

    def _in(self, folder: Path) -> dict[str, _Record]:
        if folder not in self._folders:
            self._folders[folder] = _read(folder / RECORDS_NAME)
        return self._folders[folder]


def _marked(part: Path, record: _Record) -> bool:
    """Give a file the attribute; False where there are none."""
    if not hasattr(os, "setxattr"):
        return False
    try:
        os.setxattr(part, ATTRIBUTE_NAME, json.dumps(dataclasses.asdict(record)).encode("ascii"))
    except OSError:  # not supported, or no room for it
        return False
    return True


def _mark_of(place: Path) -> _Record | None:
    """What a file's attribute says; None without one."""
    if not hasattr(os, "getxattr"):
        return None
    try:
        return _parsed(json.loads(os.getxattr(place, ATTRIBUTE_NAME)))
    except (OSError, ValueError, TypeError, KeyError):
        return None


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
            records[str(row["result"])] = _parsed(row)
        except (ValueError, TypeError, KeyError):
            continue
    return records


def _parsed(row: dict[str, object]) -> _Record:
    """Raises `TypeError`, `KeyError` or `ValueError` for something else."""
    photo = row["photo"]
    if not isinstance(photo, dict):
        raise TypeError("no photo")
    return _Record(PhotoVersion(**photo), int(str(row["result_bytes"])))
