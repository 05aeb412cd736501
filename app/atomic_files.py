"""Files that get their name only when they are whole: written beside their place, synced, renamed, the folder synced.

Standard library only, so that the set-up can use it before anything is installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def part_beside(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, whose folder is made; what was not renamed is removed at the end of the block.

    It is the same for the same path, so that a killed run leaves at most one, and short, whatever the path's own name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def publish(part: Path, target: Path) -> None:
    """Make a written file durable and give it its name, in the place of one that has it. Raises `OSError`."""
    sync_file(part)
    rename(part, target)


def rename(part: Path, target: Path) -> None:
    """Give a synced file its name, durably: the folder is synced too. Raises `OSError`."""
    part.replace(target)
    sync_folder(target.parent)


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable; a symbolic link is refused."""
    _sync(path, os.O_RDONLY | os.O_NOFOLLOW)


def sync_folder(folder: Path) -> None:
    """Make renames in this folder durable."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
