"""Opening a photo that somebody sent: never through a link put in its place, never a pipe or a device that would wait.

Whoever reads photos in another process gets what is opened here as a descriptor, so that no name is looked up twice.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from app.errors import NotFound, Unavailable, is_exhaustion

_NOT_THERE = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)


@contextlib.contextmanager
def opened_file(path: Path, *, follow_links: bool) -> Iterator[int]:
    """A descriptor for reading a plain file, for the time of the block.

    Raises:
        NotFound: `file_missing`, also where a link or anything but a plain file stands in its place.
        Unavailable: `no_space`, the disk does not give it.
        OSError: this process lacks descriptors or memory (`errors.is_exhaustion`).
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:
        file = os.open(path, flags)
    except OSError as error:
        if is_exhaustion(error):
            raise
        raise (_missing() if error.errno in _NOT_THERE else _unreadable()) from None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise _missing()
        yield file
    finally:
        os.close(file)


def _missing() -> NotFound:
    return NotFound("file_missing", "The photo's file is no longer here; upload it again.")


def _unreadable() -> Unavailable:
    return Unavailable("no_space", "There is no room to decode a photo now; try again later.")
