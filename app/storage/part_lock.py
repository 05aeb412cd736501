"""Locks on unfinished files: as long as a process writes one, whatever its age says, nobody else removes it.

The kernel frees a lock with its process, so what a killed one left is free at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def create_locked(path: Path) -> int:
    """Make a file for writing, locked until its descriptor is closed. Raises `OSError`, also when the name is taken."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """An empty file, locked while the block writes it under its name and removed at the end if it still is there."""
    handle = create_locked(path)
    try:
        yield
    finally:
        os.close(handle)
        path.unlink(missing_ok=True)


def remove_unlocked(path: Path) -> bool:
    """Remove a file that nobody writes; False when it has a writer, or is gone already."""
    try:
        handle = _open_to_lock(path)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _open_to_lock(path: Path) -> int:
    """Writable, since NFS gives an exclusive lock to nobody else; for reading what is not ours to write."""
    try:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
