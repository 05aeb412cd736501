"""Processes whose wall clock is another than the machine's: a preloaded library that is built when it is needed."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock_ahead.c")


class MovableClock:
    """A clock that can be moved while processes with its `environment` run; monotonic time stays as it is."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock-ahead"
        self.move_to(0)
        self.environment = {"LD_PRELOAD": str(build_library(folder)), "CLOCK_AHEAD_FILE": str(self._file)}

    def move_to(self, ahead_seconds: int) -> None:
        """Put the clock so far ahead of the machine's (negative: behind)."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:  # in place: it is mapped
            file.write(struct.pack("=q", ahead_seconds))


def fixed_clock(ahead_seconds: float, folder: Path) -> dict[str, str]:
    """The environment of a host whose clock is ahead for good."""
    if not ahead_seconds:
        return {}
    return {"LD_PRELOAD": str(build_library(folder)), "CLOCK_AHEAD_SECONDS": f"{ahead_seconds:.0f}"}


def build_library(folder: Path) -> Path:
    """The library, built in the folder when it is not there. Raises `SystemExit` without a C compiler."""
    library, compiler = folder / "clock_ahead.so", shutil.which("cc")
    if compiler is None:
        raise SystemExit("there is no C compiler (apt-get install gcc), so no clock can be moved")
    if not library.exists():
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, _SOURCE], check=True)
    return library
