"""What the memory limits of this process's control groups leave: a container has less than the machine says.

`psutil` reports the machine, also inside a container. Both versions of control groups are read, with the tightest limit
of all the groups above; file cache that the kernel can drop counts as free.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_NO_LIMIT_BYTES = 1 << 60  # version 1 says "none" with a number near 2**63
_VERSIONS = {
    # controller in /proc/self/cgroup: (folder below the root, limit, use, key of the droppable cache)
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def limit_left_bytes(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """The least that any control group of this process leaves it, 0 or more; None without a limit."""
    left = [limit - used for limit, used in _limits(root, own)]
    return max(0, min(left)) if left else None


def limit_bytes(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """The smallest limit of the control groups of this process; None without one."""
    return min((limit for limit, _ in _limits(root, own)), default=None)


def physical_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def budget_bytes() -> int:
    """What this process may ever use: the machine's memory, or the smallest limit of its control groups."""
    physical = physical_bytes()
    return min(physical, limit_bytes() or physical)


def available_bytes() -> int:
    """Main memory that can be had now without swapping, within the limit of this process's container."""
    free, left = _free_on_machine_bytes(), limit_left_bytes()
    return free if left is None else min(free, left)


def _free_on_machine_bytes() -> int:
    """What is free at once where psutil is not installed."""
    try:
        import psutil
    except ImportError:  # a machine with torch and the model packages alone
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(psutil.virtual_memory().available)


def _limits(root: Path, own: Path) -> Iterator[tuple[int, int]]:
    """(limit, use that cannot be dropped) in bytes of each limited group of this process."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in _VERSIONS:
                yield from _limits_of(root, group, *_VERSIONS[controller])


def _limits_of(
    root: Path, group: str, mount: str, limit_file: str, use_file: str, cache_key: str
) -> Iterator[tuple[int, int]]:
    """The group and those above it. Inside a container the path may be the host's; then only the root is there."""
    top = root / mount
    path = top / group.lstrip("/")
    for folder in (path, *path.parents):
        limit, used = _number(folder / limit_file), _number(folder / use_file)
        if limit is not None and used is not None and limit < _NO_LIMIT_BYTES:
            yield limit, max(0, used - _droppable(folder / "memory.stat", cache_key))
        if folder == top:
            return


def _number(file: Path) -> int | None:
    """A file's number; None for `max`, or where there is none."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _droppable(stat: Path, key: str) -> int:
    try:
        facts = dict(line.split(" ", 1) for line in stat.read_text().splitlines())
        return int(facts.get(key, 0))
    except (OSError, ValueError):
        return 0
