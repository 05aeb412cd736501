"""What lies on the local disk for a while: unfinished uploads and results, and the names to write them to.

Every implementation of the storage works here first; the names are checked, and symbolic links refused.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from app.errors import NotFound
from app.storage import part_lock
from app.storage.names import ID_PATTERN
from app.storage.protocol import FoundFile

GONE = "There is no such file; it may have expired."
_UPLOAD_PART_PATTERN = re.compile(r"[0-9a-f]{32}\.part")
_PART_PATTERN = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{8}\.part")
_SCRATCH = ".scratch"
_MEGABYTE = 1024 * 1024


class ScratchFolders:
    """The upload folder with its unfinished uploads, and the scratch folder inside the folder of results."""

    def __init__(self, upload_folder: Path, processed_folder: Path, min_free_disk_mb: int = 0) -> None:
        self.uploads = Path(upload_folder).absolute()
        self.results = Path(processed_folder).absolute()
        self._scratch = self.results / _SCRATCH
        self._min_free_bytes = min_free_disk_mb * _MEGABYTE
        self.make()

    def make(self) -> None:
        """Make the folders, where they are missing."""
        for folder in (self.uploads, self.results, self._scratch):
            folder.mkdir(parents=True, exist_ok=True)

    def upload_part(self, photo_id: str) -> Path:
        """Where an upload is written to. Raises `NotFound` `photo_not_found` for what is no id."""
        inside(self.uploads, photo_id, ID_PATTERN, "photo_not_found")
        return self.uploads / f"{photo_id}.part"

    @contextlib.contextmanager
    def scratch(self, some_id: str) -> Iterator[Path]:
        """See `Storage`. The name lies on the results' file system; two blocks for one id never share it."""
        self.make()
        name = f"{some_id}.{secrets.token_hex(4)}.part"
        temporary = inside(self._scratch, name, _PART_PATTERN, "result_not_found")
        with part_lock.locked(temporary):
            yield temporary

    def free_disk_ok(self) -> bool:
        """See `Storage`: the least of both folders' file systems counts."""
        try:
            free = min(shutil.disk_usage(folder).free for folder in (self.uploads, self.results))
        except OSError:  # a folder is gone: the next write makes it again or says why not
            return False
        return free > self._min_free_bytes

    def iter_parts(self) -> Iterator[FoundFile]:
        """See `Storage`."""
        yield from found_files(self.uploads, _UPLOAD_PART_PATTERN)
        yield from found_files(self._scratch, _PART_PATTERN)

    def remove_part(self, name: str) -> bool | None:
        """Remove one of `iter_parts`; False when it is gone or has a writer, None when the name is none of theirs."""
        for folder, pattern in ((self.uploads, _UPLOAD_PART_PATTERN), (self._scratch, _PART_PATTERN)):
            if pattern.fullmatch(name):
                return part_lock.remove_unlocked(folder / name)
        return None


def inside(folder: Path, name: str, pattern: re.Pattern[str], code: str) -> Path:
    """`folder/name` once the name is one of ours, is no symbolic link and resolves to inside the folder.

    Raises `NotFound` with the code else.
    """
    path = folder / name if pattern.fullmatch(name) else None
    if path is None or path.is_symlink() or path.resolve().parent != folder.resolve():
        raise NotFound(code, GONE)
    return path


def found_files(folder: Path, pattern: re.Pattern[str]) -> Iterator[FoundFile]:
    """Regular files of the folder whose names match; a file that vanishes while we look is passed over."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):
            facts = entry.stat(follow_symlinks=False)
            if pattern.fullmatch(entry.name) and stat.S_ISREG(facts.st_mode):
                yield FoundFile(entry.name, facts.st_mtime)


def remove_file(path: Path) -> bool:
    """Remove a file; False when it is gone already."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
