"""A real control group of this machine with a memory limit, versions 1 and 2, as a container has one.

Making one needs root. The kernel counts everything in it: all processes, their child processes, and their files' cache.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_EMPTY_AFTER_SECONDS = 10.0


class NoControlGroup(Exception):
    """None can be made here; the text says why."""


class ControlGroup:
    """A group below the root of its hierarchy; `version` is 1 or 2."""

    def __init__(self, folder: Path, version: int) -> None:
        self.folder, self.version = folder, version

    def limit(self, limit_bytes: int) -> None:
        """Allow so much memory, and no swap beside it."""
        if self.version == 2:
            (self.folder / "memory.max").write_text(str(limit_bytes))
            with contextlib.suppress(OSError):  # a kernel without swap has no such file
                (self.folder / "memory.swap.max").write_text("0")
            return
        (self.folder / "memory.limit_in_bytes").write_text(str(limit_bytes))
        with contextlib.suppress(OSError):
            (self.folder / "memory.memsw.limit_in_bytes").write_text(str(limit_bytes))

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command that first moves its own process into the group; its process id stays."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"), *command]

    def peak_bytes(self) -> int:
        """The most that was ever used, with file cache."""
        return int((self.folder / ("memory.max_usage_in_bytes", "memory.peak")[self.version - 1]).read_text())

    def unreclaimable_bytes(self) -> int:
        """What is used now without the cache that the kernel can drop: anonymous and shared memory of all processes."""
        keys = (("total_rss", "total_shmem"), ("anon", "shmem"))[self.version - 1]
        rows = dict(line.split(" ", 1) for line in (self.folder / "memory.stat").read_text().splitlines())
        return sum(int(rows[key]) for key in keys)

    def kills(self) -> int:
        """How many processes the kernel has killed for memory."""
        file = self.folder / ("memory.oom_control", "memory.events")[self.version - 1]
        rows = dict(line.split(" ", 1) for line in file.read_text().splitlines())
        return int(rows["oom_kill"])


@contextlib.contextmanager
def control_group(limit_bytes: int, root: Path = ROOT) -> Iterator[ControlGroup]:
    """Make a group, and remove it once its processes have ended. Raises `NoControlGroup`."""
    version = 2 if (root / "cgroup.controllers").exists() else 1
    folder = (root if version == 2 else root / "memory") / f"limited-{os.getpid()}-{time.monotonic_ns()}"
    try:
        if version == 2:
            (root / "cgroup.subtree_control").write_text("+memory")
        folder.mkdir()
    except OSError as error:
        raise NoControlGroup(f"no control group can be made here: {error}") from error
    group = ControlGroup(folder, version)
    try:
        try:
            group.limit(limit_bytes)
        except OSError as error:
            raise NoControlGroup(f"the control group takes no limit: {error}") from error
        yield group
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + _EMPTY_AFTER_SECONDS
    while True:
        try:
            folder.rmdir()
        except OSError:  # the last process is still ending
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
